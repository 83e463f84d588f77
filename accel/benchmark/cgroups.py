"""What the control groups of this process allow it: versions 1 and 2 of the kernel's interface.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html and https://docs.kernel.org/admin-guide/cgroup-v1/
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/")
_NO_LIMIT = 1 << 60
"""Version 1 says "no limit" by a number that is larger than any memory."""


@dataclass(frozen=True, slots=True)
class Throttling:
    """Counters of a group with a limit on processor time."""

    periods: int
    throttled: int


def cpu_limit(root: Path = _ROOT) -> float | None:
    """Cores' worth of processor time that is allowed; None without a limit."""
    limits = [limit for folder in _folders(root, "cpu") if (limit := _cores(folder)) is not None]
    return min(limits, default=None)


def memory_limit(root: Path = _ROOT) -> int | None:
    """Bytes of memory that are allowed; None without a limit."""
    found = []
    for folder in _folders(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            value = read(folder / name)
            if value.isdigit() and int(value) < _NO_LIMIT:
                found.append(int(value))
    return min(found, default=None)


def throttling(root: Path = _ROOT) -> Throttling | None:
    """The counters of the innermost group that has a limit; None without a limit."""
    for folder in _folders(root, "cpu"):
        counters = dict(line.split()[:2] for line in read(folder / "cpu.stat").splitlines() if " " in line)
        if _cores(folder) is not None and "nr_periods" in counters:
            return Throttling(int(counters["nr_periods"]), int(counters.get("nr_throttled", 0)))
    return None


def _cores(folder: Path) -> float | None:
    quota, _, period = read(folder / "cpu.max").partition(" ")
    if not quota:
        quota, period = read(folder / "cpu.cfs_quota_us"), read(folder / "cpu.cfs_period_us")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """The groups that hold this process, the innermost first.

    In a container the path that the kernel tells may be that of the host; what can be seen is then the container's own
    group at the top.
    """
    for line in read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            tops = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
        elif controller in controllers.split(","):
            tops = [root / "sys/fs/cgroup" / controllers, root / "sys/fs/cgroup" / controller]
        else:
            continue
        parts = Path(path.lstrip("/"))
        for top in dict.fromkeys(tops):
            yield from (top / inner for inner in (parts, *parts.parents) if ".." not in inner.parts)


def read(file: Path) -> str:
    """What is in a small file of the kernel; empty where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
