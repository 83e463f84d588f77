"""Where the numbers of a plot's points are written, so that they hide neither points nor each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

_RADII: Final = (13.0, 19.0, 27.0, 37.0, 50.0)
_ANGLES: Final = (-45, 45, -135, 135, 0, 180, -90, 90, -22, 22, -157, 157)
"""In degrees from the right, downwards; diagonals first, since error bars take the straight ways."""
_HALF_WIDTH: Final = 8.0
_HALF_HEIGHT: Final = 8.0
_POINT: Final = 6.0
_FAR: Final = 16.0

Spot = tuple[float, float]
Box = tuple[float, float, float, float]


def place_labels(points: Sequence[Spot], bars: Sequence[Box], area: Box) -> list[Spot]:
    """For each point the centre of its label: the nearest spot that is free, or the one that hides least.

    Args:
        points: Where the points are.
        bars: Left, top, right and bottom of each point's error bars.
        area: The same of what may be written on.
    """
    taken: list[Box] = [(x - _POINT, y - _POINT, x + _POINT, y + _POINT) for x, y in points]
    lines: list[Box] = []
    for (x, y), (left, top, right, bottom) in zip(points, bars, strict=True):
        lines += [(left, y - 1, right, y + 1), (x - 1, top, x + 1, bottom)]
    spots: list[Spot] = []
    for x, y in points:
        spot = min(_spots(x, y), key=lambda at: _cost(at, taken, lines, area, math.dist(at, (x, y))))
        taken.append(_box(spot))
        spots.append(spot)
    return spots


def far(point: Spot, spot: Spot) -> bool:
    """Whether a label needs a line to its point."""
    return math.dist(point, spot) > _FAR


def _spots(x: float, y: float) -> list[Spot]:
    return [
        (round(x + r * math.cos(math.radians(a)), 1), round(y + r * math.sin(math.radians(a)), 1))
        for r in _RADII
        for a in _ANGLES
    ]


def _box(spot: Spot) -> Box:
    x, y = spot
    return x - _HALF_WIDTH, y - _HALF_HEIGHT, x + _HALF_WIDTH, y + _HALF_HEIGHT


def _cost(spot: Spot, taken: Sequence[Box], lines: Sequence[Box], area: Box, distance: float) -> float:
    box = _box(spot)
    outside = box[0] < area[0] or box[1] < area[1] or box[2] > area[2] or box[3] > area[3]
    hidden = sum(_overlap(box, other) for other in taken)
    crossed = sum(_overlap(box, line) > 0 for line in lines)
    return 10_000 * outside + 20 * hidden + 25 * crossed + distance


def _overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0
