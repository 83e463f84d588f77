"""Values as another element type."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
import torch
from torch import Tensor

from accel.graph.torch_graph.dtypes import torch_dtype
from accel.graph.torch_graph.float8 import is_float8, to_float8
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator, unsupported
from accel.graph.torch_graph.subbyte import fitted


@operator("Cast")
def cast(node: Node) -> Run:
    """Each element as another type."""
    return _conversion(node, ir.DataType(node.int("to", 0)))


@operator("CastLike")
def cast_like(node: Node) -> Run:
    """Each element as the type of another tensor, which the file tells, or else that tensor itself."""
    target, saturate = node.input_type(1) or node.output_type(), bool(node.int("saturate", 1))
    if target is None:
        return lambda x, like: _converted(x, like.dtype, saturate=saturate)
    convert = _conversion(node, target)
    return lambda x, _like: convert(x)


def _conversion(node: Node, target: ir.DataType) -> Callable[[Tensor], Tensor]:
    if node.input_type(0) == ir.DataType.STRING:
        raise unsupported(node, "its input is a text")
    dtype, saturate = torch_dtype(target), bool(node.int("saturate", 1))
    return lambda x: fitted(_converted(x, dtype, saturate=saturate), target)


def _converted(x: Tensor, dtype: torch.dtype, *, saturate: bool) -> Tensor:
    """As another type; for a float8, what is beyond its greatest becomes that one, or, unless ``saturate``, no number."""
    return to_float8(x, dtype, saturate=saturate) if is_float8(dtype) and x.dtype != dtype else x.to(dtype)
