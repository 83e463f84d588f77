"""Sums, means, norms and extremes along axes."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, prod

import torch
from torch import Tensor

from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator
from accel.graph.torch_graph.unsigned import comparing, selecting, wrapping

Reduce = Callable[[Tensor, tuple[int, ...], bool], Tensor]
"""Reduces a tensor along axes, of which there are none only if it has none; the last argument keeps them with size 1."""


@wrapping
def _sum(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:  # noqa: FBT001  (see Reduce)
    return torch.sum(x, axes, keepdim=keep, dtype=x.dtype)


@wrapping
def _sum_square(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:  # noqa: FBT001
    return torch.sum(x * x, axes, keepdim=keep, dtype=x.dtype)


@wrapping
def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:  # noqa: FBT001
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keep, dtype=x.dtype)
    return x


def _mean(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:  # noqa: FBT001
    if x.is_floating_point():
        return torch.mean(x, axes, keepdim=keep)
    count = prod(x.shape[axis] for axis in axes)
    return torch.div(torch.sum(x.to(torch.int64), axes, keepdim=keep), count, rounding_mode="trunc").to(x.dtype)


def _l1(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:  # noqa: FBT001
    if x.is_floating_point():
        return _norm(x, 1, axes, keep=keep)
    return _sum(x.abs() if x.dtype.is_signed else x, axes, keep)


def _l2(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:  # noqa: FBT001
    if x.is_floating_point():
        return _norm(x, 2, axes, keep=keep)
    return _norm(x.to(torch.float64), 2, axes, keep=keep).to(x.dtype)


def _log_sum(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:  # noqa: FBT001
    return torch.log(_sum(x, axes, keep)).to(x.dtype)


def _log_sum_exp(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:  # noqa: FBT001
    return torch.logsumexp(x if x.is_floating_point() else x.to(torch.float64), axes, keepdim=keep).to(x.dtype)


@selecting
def _max(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:  # noqa: FBT001
    return torch.amax(x, axes, keepdim=keep) if x.numel() else _of_nothing(x, axes, keep=keep, greatest=False)


@selecting
def _min(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:  # noqa: FBT001
    return torch.amin(x, axes, keepdim=keep) if x.numel() else _of_nothing(x, axes, keep=keep, greatest=True)


_REDUCTIONS: dict[str, Reduce] = {
    "ReduceL1": _l1,
    "ReduceL2": _l2,
    "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": _max,
    "ReduceMean": _mean,
    "ReduceMin": _min,
    "ReduceProd": _product,
    "ReduceSum": _sum,
    "ReduceSumSquare": _sum_square,
}


def _by_input(node: Node) -> Run:
    """Along the axes of the second input; along all if there are none, or along none if ``noop_with_empty_axes`` is set."""
    reduce, keep = _REDUCTIONS[node.native.op_type], bool(node.int("keepdims", 1))
    none = bool(node.int("noop_with_empty_axes", 0))

    def run(x: Tensor, given: Tensor | None = None) -> Tensor:
        if given is not None and given.numel():
            return reduce(x, tuple(given.tolist()), keep)
        if none:  # what is done to each element remains, so each is reduced for itself
            return reduce(x.unsqueeze(-1), (-1,), False)
        return reduce(x, tuple(range(x.ndim)), keep)

    return run


def _by_attribute(node: Node) -> Run:
    """Along the axes of an attribute, or along all if it is left out."""
    reduce, keep, axes = _REDUCTIONS[node.native.op_type], bool(node.int("keepdims", 1)), node.ints("axes")
    return lambda x: reduce(x, axes or tuple(range(x.ndim)), keep)


for _name in _REDUCTIONS:
    operator(_name, since=13 if _name == "ReduceSum" else 18)(_by_input)
    operator(_name, since=1)(_by_attribute)


@operator("ArgMax")
def arg_max(node: Node) -> Run:
    """Where along an axis the greatest stands; the first of several, or the last."""
    return _place(node, torch.argmax)


@operator("ArgMin")
def arg_min(node: Node) -> Run:
    """Where along an axis the least stands; the first of several, or the last."""
    return _place(node, torch.argmin)


def _place(node: Node, search: Callable[..., Tensor]) -> Run:
    axis, keep, last = node.int("axis", 0), bool(node.int("keepdims", 1)), bool(node.int("select_last_index", 0))

    @comparing
    def run(x: Tensor) -> Tensor:
        if last:
            return x.shape[axis] - 1 - search(x.flip(axis), axis, keepdim=keep)
        return search(x, axis, keepdim=keep)

    return run


def _norm(x: Tensor, order: int, axes: tuple[int, ...], *, keep: bool) -> Tensor:
    """The p-norm; its gradient is zero where the norm is, and not undefined."""
    found: Tensor = torch.linalg.vector_norm(x, order, axes, keepdim=keep)
    return found


def _of_nothing(x: Tensor, axes: tuple[int, ...], *, keep: bool, greatest: bool) -> Tensor:
    """What an extreme of no elements is: the greatest or the least value of the type."""
    if x.is_floating_point():
        value: float = inf if greatest else -inf
    elif x.dtype == torch.bool:
        value = greatest
    else:
        limits = torch.iinfo(x.dtype)
        value = limits.max if greatest else limits.min
    return torch.full_like(torch.sum(x, axes, keepdim=keep), value, dtype=x.dtype)
