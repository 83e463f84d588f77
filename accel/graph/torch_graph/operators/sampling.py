"""Values read from an image at places that are computed."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (as everybody calls it)
from torch import Tensor

from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator, unsupported

_MODES = {
    "bilinear": "bilinear",
    "linear": "bilinear",
    "nearest": "nearest",
    "bicubic": "bicubic",
    "cubic": "bicubic",
}
"""What PyTorch calls the ways to interpolate that ONNX has named in two ways."""
_LINE, _IMAGE, _VOLUME = 3, 4, 5


@operator("GridSample", since=16)
def grid_sample(node: Node) -> Run:
    """Values at places between -1 and 1 along each axis; lines, images and volumes."""
    mode, padding = node.string("mode", "linear"), node.string("padding_mode", "zeros")
    align = bool(node.int("align_corners", 0))
    if mode not in _MODES or padding not in {"zeros", "border", "reflection"}:
        raise unsupported(node, f"its mode {mode!r} or its padding_mode {padding!r} is unknown")

    def sample(x: Tensor, grid: Tensor) -> Tensor:
        return F.grid_sample(x, grid, _MODES[mode], padding, align)

    def run(x: Tensor, grid: Tensor) -> Tensor:
        # 16 bits are too few to tell places apart
        wide = torch.promote_types(torch.promote_types(x.dtype, grid.dtype), torch.float32)
        places, values = grid.to(wide), x.to(wide)
        if x.ndim == _LINE:  # an image of one row
            flat = torch.stack([places[..., 0], torch.zeros_like(places[..., 0])], -1)
            return sample(values[:, :, None], flat[:, None])[:, :, 0].to(x.dtype)
        if x.ndim not in {_IMAGE, _VOLUME} or (x.ndim == _VOLUME and _MODES[mode] == "bicubic"):
            raise ValueError(f"{mode} interpolation of an input with {x.ndim} axes is not covered")
        return sample(values, places).to(x.dtype)

    return run


@operator("AffineGrid", since=20)
def affine_grid(node: Node) -> Run:
    """Where affine maps take an even grid of an image or of a volume."""
    align = bool(node.int("align_corners", 0))
    return lambda theta, size: F.affine_grid(theta, size.tolist(), align_corners=align)
