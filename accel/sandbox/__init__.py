"""Confinement of this process: what it may take, and what it may touch.

Everything here can only be tightened, never undone, and goes over to child processes.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from accel.report import SandboxSummary
from accel.runtimes.plugins import folders as plugin_folders

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38

_ABOUT_THE_HOST = (
    "/proc/self", "/proc/1/cgroup", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/pressure",
    "/proc/driver/nvidia", "/run/systemd/container", "/sys/devices/system", "/sys/bus/pci", "/sys/fs/cgroup",
    "/sys/class/dmi", "/sys/devices/virtual/dmi", "/sys/class/powercap", "/sys/devices/virtual/powercap",
)  # fmt: skip
"""What libraries ask the system, and what a report says of its environment: processor, limits, container, energy."""
_ABOUT_THE_NETWORK = ("modules", "sys/net/core/somaxconn"), ("class/net", "devices/virtual/net", "devices/pci*")
"""What gloo, which connects the processes of a training, asks the system beneath /proc and /sys: how fast each card is."""
_ACCELERATORS = ("nvidia*", "dri", "accel", "kfd")


class Limits(BaseModel):
    """What the engine's process may take of its host; None is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    memory_bytes: int | None = Field(None, gt=0, description="Address space.")
    cpu_seconds: int | None = Field(None, gt=0)
    file_bytes: int | None = Field(None, gt=0, description="Largest file that may be written.")
    open_files: int = Field(1024, ge=64)


def die_with_parent(parent_pid: int) -> None:
    """Ask the kernel to kill this process when the thread that started it ends.

    Args:
        parent_pid: Who the parent should be: it may be gone before the kernel was asked.
    """
    if sys.platform != "linux":
        return
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


Network = Literal["none", "loopback", "hosts"]
"""``none``: no sockets. ``loopback``: those of this process and its children among themselves. ``hosts``: the host's network, for a
training that several hosts share out."""


def confine(*, readable: Sequence[Path], writable: Path, limits: Limits, network: Network = "none") -> SandboxSummary:
    """Close this process in: resources, privileges, file system, network, system calls.

    Args:
        readable: Files and folders of the caller that may be read, besides Python and the system's libraries.
        writable: The one folder that may be written.
        limits: Resources.
        network: What sockets are for.

    Returns:
        What is in force, and what this host lacks with the reason.
    """
    from accel.sandbox import landlock, seccomp

    active: list[str] = []
    missing: dict[str, str] = {}
    _limit(limits)
    active.append("rlimits")
    if sys.platform != "linux":
        return SandboxSummary(active=tuple(active), missing={"landlock": "not Linux", "seccomp": "not Linux"})
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    active.append("no_new_privs")
    if network == "loopback":
        # Namespaces come first: afterwards nobody may make one.
        from accel.sandbox.network import isolate

        reason = isolate()
        if reason:
            missing["network"] = f"sockets reach the host's network, since {reason}"
        else:
            active.append("network")
    elif network == "hosts":
        missing["network"] = "several hosts share out the work, so that sockets reach the host's network"
    # libseccomp is looked up before the file system closes: finding a library wants a temporary folder.
    sockets = network != "none"
    load_filter, why = seccomp.prepare(sockets=sockets)
    reason = landlock.restrict(
        readable=(*_system_paths(), *(_about_the_network() if sockets else ()), *readable),
        writable=(writable, Path("/dev/null"), *_devices()),
        sockets=sockets,
    )
    if reason:
        missing["landlock"] = reason
    else:
        active.append("landlock")
    if load_filter is None:
        missing["seccomp"] = why
    else:
        load_filter()
        active.append("seccomp")
    return SandboxSummary(active=tuple(active), missing=missing)


def _limit(limits: Limits) -> None:
    import resource

    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
    ):
        if value is None:
            continue
        _, hard = resource.getrlimit(kind)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (bound, bound))
    if limits.file_bytes is not None:
        # A write beyond the limit then fails with EFBIG, which is reported, instead of killing the process.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def _system_paths() -> tuple[Path, ...]:
    """What an interpreter and its libraries read: no home, no configuration but the linker's."""
    places = [Path(entry) for entry in (sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path) if entry]
    places += [Path(__file__).resolve().parents[2] / "accel"]
    places += [Path(name) for name in ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime")]
    places += [Path(name) for name in ("/dev/null", "/dev/urandom", *_ABOUT_THE_HOST)]
    return tuple(place for place in (*places, *plugin_folders()) if place.exists())


def _about_the_network() -> tuple[Path, ...]:
    processes, system = _ABOUT_THE_NETWORK
    found = [
        place
        for root, names in (("/proc", processes), ("/sys", system))
        for name in names
        for place in Path(root).glob(name)
    ]
    return tuple(sorted(found))


def _devices() -> tuple[Path, ...]:
    """Accelerators, which execution providers open for writing; there are none on most hosts."""
    return tuple(sorted(place for name in _ACCELERATORS for place in Path("/dev").glob(name)))


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")
