"""Resizing by nearest elements, or by linear and cubic interpolation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F  # noqa: N812  (as everybody calls it)
from torch import Tensor

from accel.graph.torch_graph.coordinates import ROUNDINGS, Axis, Rule, nearest, outside, sources, weights
from accel.graph.torch_graph.dtypes import FLOATS
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator, unsupported

Resample = Callable[[Tensor], Tensor]
_MODES = {"nearest": "nearest", "linear": "linear", "bilinear": "linear", "cubic": "cubic"}
_COORDINATES = frozenset(
    {
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "tf_half_pixel_for_nn",
        "asymmetric",
        "align_corners",
        "tf_crop_and_resize",
    }
)
_NATIVE_RANKS = (3, 4, 5)
_LINEAR = {3: "linear", 4: "bilinear", 5: "trilinear"}
_CUBIC = {4: "bicubic"}
_PYTORCH_CUBIC = -0.75
"""The only a of its cubic kernel."""
_KEPT = 16
"""Shapes that a node's weights are kept for."""


@operator("Resize", since=11)
def resize(node: Node) -> Run:
    """An input enlarged or reduced along its axes, to sizes or by factors."""
    rule = _rule(node)
    crops, fill = rule.coordinates == "tf_crop_and_resize", node.float("extrapolation_value", 0.0)
    policy, given = node.string("keep_aspect_ratio_policy", "stretch"), node.ints("axes")
    if policy not in {"stretch", "not_larger", "not_smaller"}:
        raise unsupported(node, f"its keep_aspect_ratio_policy {policy!r} is unknown")
    planned = lru_cache(_KEPT)(_planner(rule, fill))

    def run(x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None) -> Tensor:
        places = [place % x.ndim for place in given] or list(range(x.ndim))
        ends = [0.0] * len(places) + [1.0] * len(places)
        if crops and roi is not None and roi.numel():
            ends = roi.tolist()
        starts, stops = ends[: len(places)], ends[len(places) :]
        lengths = [x.shape[place] for place in places]
        if sizes is not None and sizes.numel():
            outputs, factors = _by_sizes(lengths, sizes.tolist(), policy)
        elif scales is not None and scales.numel():
            outputs, factors = _by_scales(lengths, scales), scales.tolist()
        else:
            raise ValueError("neither sizes nor scales are given")
        axes = map(Axis, places, lengths, outputs, factors, starts, stops)
        return planned(tuple(axes), x.ndim, x.dtype, x.device)(x)

    return run


@operator("Resize", since=10)
@operator("Upsample", since=9)
def upsample(node: Node) -> Run:
    """An input enlarged by factors that are an input."""
    planned = lru_cache(_KEPT)(_planner(_early_rule(node), 0.0))
    return lambda x, scales: _scaled(planned, x, scales)


@operator("Upsample", since=7)
def upsample_7(node: Node) -> Run:
    """An input enlarged by factors that are an attribute."""
    planned = lru_cache(_KEPT)(_planner(_early_rule(node), 0.0))
    scales = torch.tensor(node.floats("scales"), dtype=torch.float32)
    return lambda x: _scaled(planned, x, scales)


@operator("Upsample", since=1)
def upsample_1(node: Node) -> Run:
    """An image enlarged by a factor of its height and one of its width."""
    planned = lru_cache(_KEPT)(_planner(_early_rule(node), 0.0))
    scales = torch.tensor([1.0, 1.0, node.float("height_scale", 1.0), node.float("width_scale", 1.0)])
    return lambda x: _scaled(planned, x, scales)


def _rule(node: Node) -> Rule:
    named, coordinates = node.string("mode", "nearest"), node.string("coordinate_transformation_mode", "half_pixel")
    rounding = node.string("nearest_mode", "round_prefer_floor")
    for what, value, known in (
        ("mode", named, _MODES),
        ("coordinate_transformation_mode", coordinates, _COORDINATES),
        ("nearest_mode", rounding, ROUNDINGS),
    ):
        if value not in known:
            raise unsupported(node, f"its {what} {value!r} is unknown")
    return Rule(
        _MODES[named],
        coordinates,
        rounding,
        node.float("cubic_coeff_a", -0.75),
        bool(node.int("antialias", 0)),
        bool(node.int("exclude_outside", 0)),
    )


def _early_rule(node: Node) -> Rule:
    """What Upsample and the first Resize do: their specification names neither coordinates nor rounding."""
    named = node.string("mode", "nearest")
    if named not in {"nearest", "linear", "bilinear"}:
        raise unsupported(node, f"its mode {named!r} is unknown")
    return Rule(_MODES[named], "asymmetric", "outward")


def _scaled(planned: Callable[..., Resample], x: Tensor, scales: Tensor) -> Tensor:
    lengths = list(x.shape)
    axes = map(Axis, range(x.ndim), lengths, _by_scales(lengths, scales), scales.tolist())
    return planned(tuple(axes), x.ndim, x.dtype, x.device)(x)


def _by_scales(lengths: Sequence[int], scales: Tensor) -> list[int]:
    """Sizes by factors, in 32 bits and whatever the region of interest, as ONNX Runtime computes them."""
    found: list[int] = (torch.tensor(lengths, dtype=torch.float32) * scales.cpu()).to(torch.int64).tolist()
    return found


def _by_sizes(lengths: Sequence[int], sizes: Sequence[int], policy: str) -> tuple[list[int], list[float]]:
    """Sizes as they are wanted, or the nearest of the input's proportions; with the factor of each axis."""
    factors = [goal / length for goal, length in zip(sizes, lengths, strict=True)]
    if policy == "stretch":
        return list(sizes), factors
    factor = min(factors) if policy == "not_larger" else max(factors)
    return [int(factor * length + 0.5) for length in lengths], [factor] * len(lengths)


def _planner(rule: Rule, fill: float) -> Callable[..., Resample]:
    """What computes, for each set of axes, how they are resized; what does not depend on values is done once."""

    def plan(axes: tuple[Axis, ...], rank: int, dtype: torch.dtype, device: torch.device) -> Resample:
        with torch.inference_mode(False):  # what is kept here may be used for training later
            return _resample(rule, fill, axes, rank, dtype, device)

    return plan


def _resample(
    rule: Rule, fill: float, axes: Sequence[Axis], rank: int, dtype: torch.dtype, device: torch.device
) -> Resample:
    """How an input of some shape is resized."""
    crops = rule.coordinates == "tf_crop_and_resize"
    moved = [axis for axis in axes if crops or axis.scale != 1.0 or axis.output != axis.size]
    if not moved:
        return lambda x: x
    if rank in _NATIVE_RANKS and dtype in FLOATS and not crops and all(axis.place > 1 for axis in moved):
        native = _native(rule, moved, rank)
        if native is not None:
            return native
    found = _selection(rule, moved, device) if rule.mode == "nearest" else _mixture(rule, moved, dtype, device)
    if not crops:
        return found
    beyond = torch.zeros([1] * rank, dtype=torch.bool)
    for axis in moved:
        beyond = beyond | outside(rule, axis).reshape([-1 if place == axis.place else 1 for place in range(rank)])
    filled, there = torch.tensor(fill, dtype=dtype, device=device), beyond.to(device)
    return lambda x: torch.where(there, filled, found(x))


def _selection(rule: Rule, moved: Sequence[Axis], device: torch.device) -> Resample:
    """Elements taken as they are, axis by axis."""
    chosen = [(axis.place, nearest(rule, axis).to(device)) for axis in moved]

    def run(x: Tensor) -> Tensor:
        for place, elements in chosen:
            x = x.index_select(place, elements)
        return x

    return run


def _mixture(rule: Rule, moved: Sequence[Axis], dtype: torch.dtype, device: torch.device) -> Resample:
    """Weighted sums of elements, axis by axis; integers are cut off, or rounded with ``antialias``, as ONNX Runtime does."""
    wide = dtype if dtype in FLOATS else torch.float32
    mixed = [(axis.place, weights(rule, axis).T.to(device, wide)) for axis in moved]

    def run(x: Tensor) -> Tensor:
        y = x.to(wide)
        for place, matrix in mixed:
            y = (y.movedim(place, -1) @ matrix).movedim(-1, place)
        if wide == dtype:
            return y
        limits = torch.iinfo(dtype)
        return (y.round() if rule.antialias else y).clamp(limits.min, limits.max).to(dtype)

    return run


def _native(rule: Rule, moved: Sequence[Axis], rank: int) -> Resample | None:
    """PyTorch's kernel where it computes the same, which its coordinates tell; None where none does."""
    goals = {axis.place: axis.output for axis in moved}

    def by(mode: str, *, align: bool | None) -> Resample:
        def run(x: Tensor) -> Tensor:
            sizes = [goals.get(place, x.shape[place]) for place in range(2, rank)]
            return F.interpolate(x, sizes, mode=mode, align_corners=align)

        return run

    if rule.mode == "nearest":
        for mode, shift in (("nearest", 0.0), ("nearest-exact", 0.5)):
            if all(torch.equal(nearest(rule, axis), _pytorch_nearest(axis, shift)) for axis in moved):
                return by(mode, align=None)
        return None
    known = _LINEAR if rule.mode == "linear" else _CUBIC
    if rank not in known or rule.antialias or (rule.mode == "cubic" and (rule.cubic != _PYTORCH_CUBIC or rule.exclude)):
        return None
    for align in (False, True):
        if all(_same(rule, axis, align=align) for axis in moved):
            return by(known[rank], align=align)
    return None


def _pytorch_nearest(axis: Axis, shift: float) -> Tensor:
    """The element that PyTorch takes for each of the output."""
    at = (torch.arange(axis.output, dtype=torch.float32) + shift) * (
        torch.tensor(axis.size, dtype=torch.float32) / axis.output
    )
    return at.floor().to(torch.int64).clamp_max(axis.size - 1)


def _same(rule: Rule, axis: Axis, *, align: bool) -> bool:
    """Whether PyTorch's linear and cubic kernels would read from the same places, to a hundred-thousandth of an element."""
    pytorch = Rule(rule.mode, "align_corners" if align else "half_pixel")
    theirs = sources(pytorch, Axis(axis.place, axis.size, axis.output, axis.output / axis.size))
    ours = sources(rule, axis)
    if rule.mode == "linear":
        theirs, ours = theirs.clamp(0, axis.size - 1), ours.clamp(0, axis.size - 1)
    return torch.allclose(ours, theirs, rtol=1e-6, atol=1e-5)
