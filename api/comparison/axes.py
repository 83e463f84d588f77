"""Axes of a plot: where values lie, and which of them are written down."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

_LOGARITHMIC_FROM: Final = 5.0
"""Where the largest value is so many times the smallest, a linear axis would crowd most of them at one end."""
_ROOM: Final = 0.08
"""Share of the axis that is left free at each end."""
_TICKS: Final = 6


@dataclass(frozen=True, slots=True)
class Tick:
    """A value that is written at an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from one end to the other, and the places of a drawing that they take."""

    title: str
    low: float
    high: float
    start: float
    end: float
    logarithmic: bool
    ticks: tuple[Tick, ...]

    def place(self, value: float) -> float:
        """Where a value lies, within the drawing."""
        low, high, at = self.low, self.high, value
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(max(value, self.low / 10))
        share = min(1.0, max(0.0, (at - low) / (high - low)))
        return round(self.start + share * (self.end - self.start), 1)


def axis(
    title: str,
    values: Sequence[float],
    *,
    start: float,
    end: float,
    text: Callable[[float, float], str],
    bounds: tuple[float, float] = (-math.inf, math.inf),
    logarithmic: bool | None = None,
) -> Axis:
    """An axis that holds the values with some room at both ends.

    Args:
        title: What the values are, with their unit.
        values: At least one, all finite.
        start: Place of the lower end in the drawing.
        end: Place of the upper end.
        text: A tick's text, of its value and the distance of ticks.
        bounds: What no value can lie beyond.
        logarithmic: Whether distances are ratios; where left out, the values tell.
    """
    least, most = min(values), max(values)
    if logarithmic is None:
        logarithmic = least > 0 and most / least >= _LOGARITHMIC_FROM
    if logarithmic:
        room = (most / least) ** _ROOM
        low, high = least / room, most * room
        found = _log_ticks(low, high)
        step = 0.0
    else:
        span = (most - least) or abs(most) or 1.0
        low, high = max(bounds[0], least - _ROOM * span), min(bounds[1], most + _ROOM * span)
        if low >= high:
            low, high = low - span / 2, high + span / 2
        step = nice_step((high - low) / _TICKS)
        found = [step * n for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    made = Axis(title, low, high, start, end, logarithmic, ())
    ticks = tuple(Tick(made.place(value), text(value, step or value)) for value in found)
    return Axis(title, low, high, start, end, logarithmic, ticks)


def nice_step(wanted: float) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that is not below what is wanted."""
    power = 10.0 ** math.floor(math.log10(wanted))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= wanted * (1 - 1e-9))


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        found = [f * 10.0**d for d in decades for f in factors if low <= f * 10.0**d <= high]
        if len(found) <= _TICKS:
            break
    return found


def decimals(step: float) -> int:
    """Digits behind the point that tell multiples of a step apart."""
    digits = 0
    while digits < 9 and abs(step * 10**digits - round(step * 10**digits)) > 1e-6:  # noqa: PLR2004  (floats end there)
        digits += 1
    return digits
