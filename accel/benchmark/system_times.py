"""Where the time of this host's cores goes: readings of the kernel's counters, and what lies between two of them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from accel.benchmark.cgroups import Throttling, read, throttling

_ROOT = Path("/")
_IDLE, _IOWAIT, _STEAL = 3, 4, 7
"""Positions in a line of /proc/stat; what comes after steal is in the first two already."""
_BUSY_CORES = 0.3
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class SystemTimes:
    """A reading. Jiffies, of the cores that this process may use, are None where the system does not tell."""

    at_s: float
    total: int | None
    idle: int | None
    steal: int | None
    throttling: Throttling | None


def system_times(root: Path = _ROOT) -> SystemTimes:
    """Read the counters."""
    wanted = {f"cpu{core}" for core in os.sched_getaffinity(0)} if hasattr(os, "sched_getaffinity") else None
    sums = [0] * (_STEAL + 1)
    seen = False
    for line in read(root / "proc/stat").splitlines():
        name, *fields = line.split()
        if not name.startswith("cpu") or name == "cpu" or (wanted is not None and name not in wanted):
            continue
        seen = True
        for position, value in enumerate(fields[: _STEAL + 1]):
            sums[position] += int(value)
    now = time.monotonic()
    if not seen:
        return SystemTimes(now, None, None, None, throttling(root))
    return SystemTimes(now, sum(sums), sums[_IDLE] + sums[_IOWAIT], sums[_STEAL], throttling(root))


def steal_share(before: SystemTimes, after: SystemTimes) -> float | None:
    """Share of the cores' time between two readings that the host's other guests took, 0 to 1."""
    if before.steal is None or after.steal is None or before.total is None or after.total is None:
        return None
    passed = after.total - before.total
    return max(0, after.steal - before.steal) / passed if passed > 0 else None


def throttled_share(before: SystemTimes, after: SystemTimes) -> float | None:
    """Share of the control group's periods between two readings in which it held its processes back, 0 to 1."""
    if before.throttling is None or after.throttling is None:
        return None
    periods = after.throttling.periods - before.throttling.periods
    return (after.throttling.throttled - before.throttling.throttled) / periods if periods > 0 else None


def cores_in_use(before: SystemTimes, after: SystemTimes) -> float | None:
    """Cores' worth of time that anything took between two readings, steal included; of the cores that this process may use."""
    if before.total is None or after.total is None or before.idle is None or after.idle is None:
        return None
    passed, idle = after.total - before.total, after.idle - before.idle
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores * max(0, passed - idle) / passed if passed > 0 else None


def busy_cores(seconds: float = _LOOK_S, root: Path = _ROOT) -> float | None:
    """Cores' worth of time that others take now, by waiting so long; call it when this process has nothing to do."""
    before = system_times(root)
    time.sleep(seconds)
    return cores_in_use(before, system_times(root))


def is_busy(cores: float | None) -> bool:
    """Whether so much use by others disturbs a benchmark."""
    return cores is not None and cores > _BUSY_CORES
