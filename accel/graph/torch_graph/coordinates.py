"""Where each element of a resized axis comes from, and how much each element of the input counts for it.

Coordinates are computed in 32 bits, as ONNX Runtime does, so that what lies on the border between two elements goes to the
same one. Formulas: ONNX's specification of Resize; where its tests take another length for ``align_corners`` than its text
(onnx/onnx issue 2462), ONNX Runtime and this keep to the text. Cubic weights: Keys 1981, doi 10.1109/TASSP.1981.1163711.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis that is resized."""

    place: int
    size: int
    """Of the input."""
    output: int
    """Of the output."""
    scale: float
    """Output by input, before the output was rounded."""
    start: float = 0.0
    end: float = 1.0
    """The part of the input that is shown, of what ``tf_crop_and_resize`` alone takes notice."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How elements between those of the input are made."""

    mode: str
    """``nearest``, ``linear`` or ``cubic``."""
    coordinates: str
    """ONNX's ``coordinate_transformation_mode``."""
    rounding: str = "round_prefer_floor"
    """ONNX's ``nearest_mode``; or ``outward``, what ONNX Runtime does for Resize of version 10, which leaves it open."""
    cubic: float = -0.75
    """What Keys calls a."""
    antialias: bool = False
    """Whether the weights widen where the output is smaller than the input."""
    exclude: bool = False
    """Whether elements beyond the ends count nothing, instead of being those at the ends."""


ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda at: torch.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: torch.floor(at + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


def sources(rule: Rule, axis: Axis) -> Tensor:
    """Where in the input each element of the output comes from: float32 [output], beyond the ends too."""
    at, scale = torch.arange(axis.output, dtype=torch.float32), torch.tensor(axis.scale, dtype=torch.float32)
    last = axis.size - 1
    match rule.coordinates:
        case "half_pixel":
            return (at + 0.5) / scale - 0.5
        case "half_pixel_symmetric":
            shift = axis.size / 2 * (1 - axis.output / (scale * axis.size))
            return shift + (at + 0.5) / scale - 0.5
        case "pytorch_half_pixel":
            return (at + 0.5) / scale - 0.5 if axis.output > 1 else torch.zeros_like(at)
        case "tf_half_pixel_for_nn":
            return (at + 0.5) / scale
        case "asymmetric":
            return at / scale
        case "align_corners":
            return at * last / (axis.output - 1) if axis.output > 1 else torch.zeros_like(at)
        case "tf_crop_and_resize":
            if axis.output == 1:
                return torch.full_like(at, 0.5 * (axis.start + axis.end) * last)
            return axis.start * last + at * ((axis.end - axis.start) * last) / (axis.output - 1)
        case unknown:
            raise ValueError(f"The coordinate_transformation_mode {unknown!r} is unknown.")


def nearest(rule: Rule, axis: Axis) -> Tensor:
    """Which element of the input each element of the output is: int64 [output]."""
    at = sources(rule, axis).to(torch.float64)
    outward = "ceil" if axis.scale < 1 else "floor"
    rounded = ROUNDINGS[outward if rule.rounding == "outward" else rule.rounding](at)
    return rounded.to(torch.int64).clamp(0, axis.size - 1)


def weights(rule: Rule, axis: Axis) -> Tensor:
    """How much each element of the input counts for each element of the output: float64 [output, input]."""
    at = sources(rule, axis).to(torch.float64)
    shrink = min(axis.scale, 1.0) if rule.antialias else 1.0
    kernel, support = (_linear, 1) if rule.mode == "linear" else (_cubic, 2)
    reach = int(-(-support // shrink))
    taps = at.floor()[:, None] + torch.arange(1 - reach, reach + 1)
    counted = kernel((taps - at[:, None]) * shrink, rule.cubic)
    counted = counted / counted.sum(1, keepdim=True)
    if rule.exclude:
        counted = torch.where((taps >= 0) & (taps < axis.size), counted, 0)
        counted = counted / counted.sum(1, keepdim=True)
    places = taps.to(torch.int64).clamp(0, axis.size - 1)
    return torch.zeros(axis.output, axis.size, dtype=torch.float64).scatter_add(1, places, counted)


def outside(rule: Rule, axis: Axis) -> Tensor:
    """Which elements of the output lie beyond the ends of the input: bool [output]."""
    at = sources(rule, axis)
    return (at < 0) | (at > axis.size - 1)


def _linear(distance: Tensor, _: float) -> Tensor:
    return (1 - distance.abs()).clamp_min(0)


def _cubic(distance: Tensor, a: float) -> Tensor:
    d = distance.abs()
    inner = ((a + 2) * d - (a + 3)) * d * d + 1
    outer = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return torch.where(d <= 1, inner, torch.where(d < 2, outer, torch.zeros_like(d)))  # noqa: PLR2004  (the kernel's reach)
