"""How reasons name operators and times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from accel.benchmark.reasons.evidence import Kernel

_LONGEST = 60
_NAMED = 5


def shown(name: str) -> str:
    """A name for a text: exporters make some that fill a page."""
    return repr(name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}")


def some(kernels: Iterable[Kernel]) -> tuple[str, ...]:
    """Names of the most expensive ones."""
    ordered = sorted(kernels, key=lambda kernel: -kernel.ms)
    return tuple(dict.fromkeys(kernel.name for kernel in ordered if kernel.name))[:_NAMED]


def kinds(kernels: Iterable[Kernel]) -> str:
    """Their operators, the most expensive first: "Mul, Add and Clip"."""
    times: dict[str, float] = defaultdict(float)
    for kernel in kernels:
        times[kernel.operator] += kernel.ms
    names = sorted(times, key=lambda operator: (-times[operator], operator))
    return listed(names)


def are(kernels: Iterable[Kernel]) -> str:
    """The verb for :func:`kinds`."""
    return "is" if len({kernel.operator for kernel in kernels}) == 1 else "are"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names in a sentence."""
    few = [*names[:most], *(["others"] if len(names) > most else [])]
    return few[0] if len(few) == 1 else f"{', '.join(few[:-1])} and {few[-1]}" if few else ""


def total(kernels: Iterable[Kernel]) -> float:
    """Milliseconds of all of them."""
    return sum(kernel.ms for kernel in kernels)


def spent(ms: float) -> str:
    """A time with its unit."""
    return f"{ms:.3g} ms" if ms >= 1 else f"{ms * 1e3:.3g} µs"
