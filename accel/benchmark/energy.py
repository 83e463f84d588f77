"""Energy that a machine took, from counters of its hardware.

Sources: https://docs.kernel.org/power/powercap/powercap.html (RAPL) and NVML's nvmlDeviceGetTotalEnergyConsumption.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from accel.benchmark.cgroups import read

_POWERCAP = Path("/sys/class/powercap")
_COUNTED = ("package", "dram")
"""Zones that lie in no other counted one: a package holds its cores, and not its memory; ``psys`` holds all of it again."""


class Meter(Protocol):
    """Something that counts energy."""

    what: str
    """Whose energy it is."""

    def joules(self) -> float:
        """Energy since the meter was opened; read it at least every few minutes, since counters begin anew when full."""


def open_meter(powercap: Path = _POWERCAP, *, gpu: bool = False) -> Meter | None:
    """A meter of the processors, or of the graphics processors, with all that runs on them.

    Args:
        powercap: The kernel's folder of zones.
        gpu: Whether the work is done by graphics processors.

    Returns:
        None where no counter can be read: most systems keep RAPL for root, and most virtual machines have none.
    """
    return _graphics() if gpu else _processors(powercap)


def _processors(powercap: Path) -> Meter | None:
    zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if read(zone / "name").startswith(_COUNTED)]
    counters = [Counter.of(zone) for zone in zones]
    opened = tuple(counter for counter in counters if counter is not None)
    if not opened or len(opened) < len(zones):  # a sum with a part left out would be taken for all of it
        return None
    return RaplMeter(opened)


@dataclass(slots=True)
class Counter:
    """One zone's counter, which begins anew at its range."""

    file: Path
    range_uj: int
    last_uj: int
    total_uj: int = 0

    @classmethod
    def of(cls, zone: Path) -> Counter | None:
        """Open a zone; None where it cannot be read."""
        now, largest = read(zone / "energy_uj"), read(zone / "max_energy_range_uj")
        return cls(zone / "energy_uj", int(largest), int(now)) if now.isdigit() and largest.isdigit() else None

    def advance(self) -> int:
        """Read it; microjoules since it was opened."""
        now = int(self.file.read_text(encoding="utf-8"))
        # The range is the largest value: after it comes 0.
        self.total_uj += now - self.last_uj if now >= self.last_uj else now - self.last_uj + self.range_uj + 1
        self.last_uj = now
        return self.total_uj


@dataclass(slots=True)
class RaplMeter:
    """The processors' packages and memory, by RAPL."""

    counters: Sequence[Counter]
    what: str = "processor packages and memory (RAPL)"

    def joules(self) -> float:
        """Energy since the meter was opened."""
        return sum(counter.advance() for counter in self.counters) / 1e6


def _graphics() -> Meter | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
        meter = NvmlMeter(pynvml, handles)
        meter.joules()
    except Exception:  # noqa: BLE001  (no package, no driver, or a device from before Volta: all mean that there is none)
        return None
    return meter if handles else None


@dataclass(slots=True)
class NvmlMeter:
    """All of NVIDIA's graphics processors, by NVML."""

    library: Any
    handles: Sequence[Any]
    what: str = "graphics processors (NVML)"
    _begin_mj: int | None = field(default=None, init=False)

    def joules(self) -> float:
        """Energy since it was first asked."""
        now = sum(int(self.library.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in self.handles)
        self._begin_mj = now if self._begin_mj is None else self._begin_mj
        return (now - self._begin_mj) / 1e3
