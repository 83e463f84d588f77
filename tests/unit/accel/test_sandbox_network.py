"""Sockets of a confined process: none, those among its own children, or those of the host."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

TRIED = """
import errno, json, os, socket, subprocess, sys
from pathlib import Path
from accel.sandbox import Limits, confine
summary = confine(readable=[], writable=Path(sys.argv[1]), limits=Limits(), network=sys.argv[2])
def tried(what):
    try:
        what()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "ok"
def loopback():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        code = f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}))"
        child = subprocess.Popen([sys.executable, "-c", code])
        server.accept()
        assert child.wait() == 0
def audit():
    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)
def local():
    socket.socket(socket.AF_UNIX)
def packets():
    socket.socket(17, socket.SOCK_RAW)
def unshare():
    os.unshare(os.CLONE_NEWNET) if hasattr(os, "unshare") else (_ for _ in ()).throw(PermissionError(errno.EPERM, ""))
print(json.dumps({
    "active": summary.active, "missing": summary.missing,
    "loopback": tried(loopback), "far": tried(lambda: socket.create_connection(("192.0.2.1", 9), timeout=0.2)),
    "local": tried(local), "audit": tried(audit), "packets": tried(packets), "unshare": tried(unshare),
    "interfaces": [name for _, name in socket.if_nameindex()] if sys.argv[2] != "none" else [],
    "ids": [os.getuid(), os.getgid()],
}))
"""


def tried(tmp_path: Path, network: str) -> dict[str, object]:
    answer = subprocess.run(
        [sys.executable, "-c", TRIED, str(tmp_path), network], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert answer.returncode == 0, answer.stderr
    found: dict[str, object] = json.loads(answer.stdout)
    return found


def test_there_are_no_sockets_unless_they_are_asked_for(tmp_path: Path) -> None:
    found = tried(tmp_path, "none")
    assert found["loopback"] == found["far"] == found["local"] == "EPERM"


def test_a_process_meets_its_children_and_nobody_else(tmp_path: Path) -> None:
    found = tried(tmp_path, "loopback")
    if "network" in found["missing"]:  # type: ignore[operator]
        pytest.skip(f"this host has no namespaces: {found['missing']}")
    assert "network" in found["active"]  # type: ignore[operator]
    assert found["loopback"] == "ok"
    assert found["far"] == "ENETUNREACH"
    assert found["interfaces"] == ["lo"]
    assert found["local"] == found["audit"] == found["packets"] == found["unshare"] == "EPERM"
    import os

    assert found["ids"] == [os.getuid(), os.getgid()]


def test_the_hosts_network_is_told(tmp_path: Path) -> None:
    found = tried(tmp_path, "hosts")
    assert "several hosts" in found["missing"]["network"]  # type: ignore[index]
    assert found["loopback"] == "ok"
    assert found["local"] == found["audit"] == found["packets"] == "EPERM"


def test_a_host_without_namespaces_says_why(tmp_path: Path) -> None:
    """The limit of namespaces is 0 in a namespace of this test's own, as an administrator sets it for the host."""
    script = 'echo 0 > /proc/sys/user/max_net_namespaces && exec "$0" -c "$1" "$2" loopback'
    answer = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", script, sys.executable, TRIED, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if answer.returncode and not answer.stdout:
        pytest.skip(f"this host has no user namespaces: {answer.stderr.strip()[:200]}")
    found = json.loads(answer.stdout)
    assert "sockets reach the host's network, since this host has no network namespaces" in found["missing"]["network"]
    assert found["loopback"] == "ok"
    assert found["local"] == "EPERM"
