"""Products of matrices."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from accel.graph.torch_graph.activation import ACTIVATIONS
from accel.graph.torch_graph.native import native
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator, unsupported
from accel.graph.torch_graph.unsigned import wrapping

_MICROSOFT = "com.microsoft"
_PREFIX = "activation_"
_HALF = 2
"""Bytes of the floats that PyTorch finds no determinants of."""


native({"MatMul": wrapping(torch.matmul)})
native({"Inverse": torch.inverse}, domain=_MICROSOFT)


@operator("Gemm")
def gemm(node: Node) -> Run:
    """The product of two matrices and a factor, plus a third times another factor."""
    return _gemm(node)


@operator("FusedGemm", domain=_MICROSOFT)
def fused_gemm(node: Node) -> Run:
    """Gemm and an activation; from ONNX Runtime's optimiser."""
    name, multiply = node.string("activation", ""), _gemm(node)
    if name not in ACTIVATIONS:
        raise unsupported(node, f"its activation {name!r} is unknown")
    given = [name for name in ("alpha", "beta", "gamma") if node.has(_PREFIX + name)]
    activate = ACTIVATIONS[name](**{name: node.float(_PREFIX + name, 0.0) for name in given})
    return lambda *inputs: activate(multiply(*inputs))


@operator("TransposeMatMul", domain=_MICROSOFT)
@operator("FusedMatMul", domain=_MICROSOFT)
def fused_matmul(node: Node) -> Run:
    """The product of matrices and a factor, each matrix transposed first if an attribute says so.

    ``transBatchA`` and ``transBatchB`` move the first axis to the place before the last.
    """
    alpha = node.float("alpha", 1.0)
    first = bool(node.int("transA", 0)), bool(node.int("transBatchA", 0))
    second = bool(node.int("transB", 0)), bool(node.int("transBatchB", 0))

    def run(a: Tensor, b: Tensor) -> Tensor:
        product = torch.matmul(_turned(a, *first), _turned(b, *second))
        return product if alpha == 1 else product * alpha

    return run


@operator("Einsum")
def einsum(node: Node) -> Run:
    """Sums of products by the Einstein summation convention."""
    equation = node.string("equation", "")

    @wrapping
    def run(*given: Tensor) -> Tensor:
        return torch.einsum(equation, *given)

    return run


@operator("Det")
def det(_node: Node) -> Run:
    """The determinant of each matrix."""
    return lambda x: torch.det(x) if x.dtype.itemsize > _HALF else torch.det(x.float()).to(x.dtype)


def _gemm(node: Node) -> Callable[..., Tensor]:
    alpha, beta = _number(node.float("alpha", 1.0)), _number(node.float("beta", 1.0))
    first, second = bool(node.int("transA", 0)), bool(node.int("transB", 0))

    @wrapping
    def run(a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        left, right = a.t() if first else a, b.t() if second else b
        if c is not None:
            return torch.addmm(c, left, right, beta=beta, alpha=alpha)
        product = torch.mm(left, right)
        return product if alpha == 1 else product * alpha

    return run


def _number(factor: float) -> float:
    """A factor as an integer where it is one: products of integers take no others."""
    return int(factor) if factor.is_integer() else factor


def _turned(x: Tensor, matrix: bool, batch: bool) -> Tensor:  # noqa: FBT001  (a pair of attributes)
    if x.ndim < 2:  # noqa: PLR2004  (a vector)
        return x
    if batch:
        x = x.movedim(0, -2)
    return x.transpose(-1, -2) if matrix else x
