"""Sums, products, powers and remainders of elements."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from accel.graph.torch_graph.native import native
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator
from accel.graph.torch_graph.scalar import Scalar
from accel.graph.torch_graph.unsigned import comparing, selecting, wrapping

_MOST = torch.iinfo(torch.int64).max


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """The quotient; of integers it is cut toward zero."""
    if a.is_floating_point():
        return torch.div(a, b)
    return _quotient(a, b) if a.dtype == torch.uint64 else _truncated(a, b)


def _absolute(x: Tensor) -> Tensor:
    return torch.abs(x) if x.dtype.is_signed else x


def _sign(x: Tensor) -> Tensor:
    return torch.sign(x) if x.dtype.is_signed else torch.ne(x, 0).to(x.dtype)


def _mean(*given: Tensor) -> Tensor:
    return _sum(*given) / len(given)


def _of_any(combine: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """What combines two, for any number of them."""
    return lambda *given: reduce(combine, given)


_sum = _of_any(torch.add)
native(
    {
        "Neg": torch.neg,
        "Abs": _absolute,
        "Sign": _sign,
        "Reciprocal": torch.reciprocal,
        "Max": _of_any(selecting(torch.maximum)),
        "Min": _of_any(selecting(torch.minimum)),
        "Sum": _sum,
        "Mean": _mean,
    }
)
# Before version 7, attributes told which axes of two tensors belong together.
native(
    {"Add": wrapping(torch.add), "Sub": wrapping(torch.sub), "Mul": wrapping(torch.mul), "Div": _divide},
    since=7,
)


@operator("Mod")
def mod(node: Node) -> Run:
    """The remainder of a division; it has the sign of the divisor, or with ``fmod`` that of the dividend."""
    remain = _remainder_of_dividend if node.int("fmod", 0) else _remainder_of_divisor

    def run(a: Tensor, b: Tensor) -> Tensor:
        if a.dtype == torch.uint64:
            return wrapping(torch.sub)(a, wrapping(torch.mul)(_quotient(a, b), b))
        return remain(a, b)

    return run


@operator("Pow", since=7)
def power(_node: Node) -> Run:
    """One tensor to the power of another, in the type of the base."""
    exponent = Scalar()

    def run(x: Tensor, y: Tensor) -> Tensor:
        if not x.is_floating_point():
            wide = torch.float64 if y.is_floating_point() else x.dtype
            return torch.pow(x.to(wide), y.to(wide)).to(x.dtype)
        number = exponent.read(y) if y.ndim <= x.ndim else None
        return torch.pow(x, y.to(x.dtype) if number is None else number)

    return run


@wrapping
def _truncated(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b, rounding_mode="trunc")


@wrapping
def _remainder_of_dividend(a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b)


@wrapping
def _remainder_of_divisor(a: Tensor, b: Tensor) -> Tensor:
    found = torch.remainder(a, b)
    return torch.where(found == 0, torch.copysign(found, b), found) if found.is_floating_point() else found


def _quotient(a: Tensor, b: Tensor) -> Tensor:
    """Quotient of uint64, for which int64 has not enough values.

    Half of the dividend fits; twice its quotient is the whole one, or one less. A divisor beyond int64 goes in once at most.
    """
    above = comparing(torch.ge)
    dividend, divisor = a.to(torch.int64), b.to(torch.int64)
    half = (dividend >> 1) & _MOST
    doubled = torch.div(half, divisor.clamp(min=0) + (divisor < 0), rounding_mode="trunc") << 1
    rest = (dividend - doubled * divisor).to(torch.uint64)
    return torch.where(divisor < 0, above(a, b).long(), doubled + above(rest, b)).to(torch.uint64)
