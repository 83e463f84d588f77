"""Weights that are stored as integers, trained as the floats behind them.

While it trains, such a weight is a float; DequantizeLinear rounds it to the grid in the forward pass and lets the gradient
pass as if it had not (Jacob et al. 2018, arXiv 1712.05877). Written back are the integers it rounds to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor

from accel.errors import UnsupportedOperator
from accel.graph.layers import integer
from accel.graph.torch_graph.dtypes import TORCH
from accel.graph.torch_graph.fake_quantization import Grid, grid_of, spread
from accel.graph.torch_graph.parameters import Candidate

_ZERO = 2
"""The place of the zero point among a DequantizeLinear's inputs."""


@dataclass(frozen=True, slots=True)
class Latent:
    """How the floats of one weight become its integers."""

    start: Tensor
    """The floats to begin with: what the integers stand for."""
    scale: ir.Value
    zero_point: ir.Value | None
    grid: Grid
    dtype: torch.dtype

    def integers(self, weight: Tensor, store: Mapping[ir.Value, Tensor]) -> Tensor:
        """The integers that a trained weight rounds to, by the scale that it has now."""
        step = spread(store[self.scale], weight, self.grid.axis, self.grid.block)
        steps = torch.round(weight / step).to(torch.float64)  # 32 bits of an integer and more
        if self.zero_point is not None:
            steps = steps + spread(store[self.zero_point].to(steps), weight, self.grid.axis, self.grid.block)
        return steps.clamp(self.grid.low, self.grid.high).to(self.dtype)


def latent_of(candidate: Candidate, store: Mapping[ir.Value, Tensor]) -> Latent:
    """How the weight of a candidate is stored.

    Raises:
        UnsupportedOperator: It is dequantized in two ways, or by a scale that is computed.
    """
    uses = [use.node for use in candidate.value.uses()]
    ways = {(*_parameters(node), integer(node, "axis", 1), integer(node, "block_size", 0)) for node in uses}
    scale, zero, axis, block = next(iter(ways))
    if len(ways) > 1 or scale is None or scale not in store or (zero is not None and zero not in store):
        raise UnsupportedOperator(
            f"The integers {candidate.name!r} have no scale of their own that is known before the model runs, so they cannot be "
            "trained.",
            hint="Train the model before it is quantized, or quantize it by quantize_static.",
        )
    dtype, held = candidate.constant.dtype, store[candidate.value]
    step = spread(store[scale], held, axis, block)
    start = held.to(step)
    if zero is not None:
        start = start - spread(store[zero].to(step), held, axis, block)
    return Latent(start * step, scale, zero, grid_of(dtype, axis, block), TORCH[dtype])


def _parameters(node: ir.Node) -> tuple[ir.Value | None, ir.Value | None]:
    return node.inputs[1], node.inputs[_ZERO] if len(node.inputs) > _ZERO else None
