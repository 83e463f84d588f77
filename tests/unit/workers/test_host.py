"""Who may work on a host at the same time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from workers.host import host


class GaveUp(Exception):
    """The wait was ended."""


def give_up() -> None:
    raise GaveUp


def fail() -> None:
    raise AssertionError("nobody should have to wait")


def test_jobs_share_the_host(tmp_path: Path) -> None:
    lock = tmp_path / "new" / "host.lock"
    with host(lock, alone=False, waiting=fail), host(lock, alone=False, waiting=fail):
        pass


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (True, True)])
def test_a_benchmark_shares_with_nobody(tmp_path: Path, *, first: bool, second: bool) -> None:
    lock = tmp_path / "host.lock"
    with host(lock, alone=first, waiting=fail), pytest.raises(GaveUp), host(lock, alone=second, waiting=give_up):
        pass
    with host(lock, alone=second, waiting=fail):
        pass


def test_the_wait_ends_with_the_other_job(tmp_path: Path) -> None:
    lock = tmp_path / "host.lock"
    other = host(lock, alone=False, waiting=fail)
    other.__enter__()
    asked: list[int] = []

    def leave() -> None:
        asked.append(1)
        if len(asked) == 3:
            other.__exit__(None, None, None)

    with host(lock, alone=True, waiting=leave):
        assert len(asked) == 3


def test_the_lock_does_not_outlive_its_process(tmp_path: Path) -> None:
    lock = tmp_path / "host.lock"
    code = (
        "import os, signal, sys; from pathlib import Path; from workers.host import host\n"
        "with host(Path(sys.argv[1]), alone=True, waiting=exit):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(GaveUp), host(lock, alone=False, waiting=give_up):
            pass
        process.kill()
        process.wait()
        with host(lock, alone=True, waiting=fail):
            pass


def test_what_ends_the_wait_is_told(tmp_path: Path) -> None:
    def waiting(reason: str) -> Callable[[], None]:
        def end() -> None:
            raise GaveUp(reason)

        return end

    lock = tmp_path / "host.lock"
    with (
        host(lock, alone=True, waiting=fail),
        pytest.raises(GaveUp, match="cancelled"),
        host(lock, alone=True, waiting=waiting("cancelled")),
    ):
        pass


def test_who_waits_to_be_alone_is_not_overtaken(tmp_path: Path) -> None:
    lock = tmp_path / "host.lock"
    first = host(lock, alone=False, waiting=fail)
    first.__enter__()
    newcomers: list[str] = []

    def newcomer() -> None:
        with pytest.raises(GaveUp), host(lock, alone=False, waiting=give_up):
            pass
        newcomers.append("has to wait")
        if len(newcomers) == 2:
            first.__exit__(None, None, None)

    with host(lock, alone=True, waiting=newcomer):
        assert newcomers == ["has to wait"] * 2
    with host(lock, alone=False, waiting=fail):
        pass
