"""Convolution whose kernel reads from places that are computed."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (as everybody calls it)
from torch import Tensor

from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator
from accel.graph.torch_graph.windows import Windows, spread, windows_of

_IMAGE, _VOLUME = 2, 3


@operator("DeformConv", since=19)
def deform_conv(node: Node) -> Run:
    """Convolution with an offset, and a mask if there is one, for each element of the kernel at each place.

    Source: Dai et al. 2017, arXiv 1703.06211; with masks, Zhu et al. 2018, arXiv 1811.11168.
    """
    windows, groups, offset_groups = windows_of(node), node.int("group", 1), node.int("offset_group", 1)

    def run(
        x: Tensor, weight: Tensor, offset: Tensor, bias: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        rank, kernel, outputs = x.ndim - 2, weight.shape[2:], offset.shape[2:]
        elements, batch, channels = kernel.numel(), x.shape[0], x.shape[1]
        if rank not in {_IMAGE, _VOLUME}:
            raise ValueError(f"deformable convolution over {rank} axes is not covered, only over 2 and 3")
        wide = torch.promote_types(x.dtype, torch.float32)  # 16 bits are too few to tell places apart
        # [batch * offset groups, kernel elements, axes, *outputs], in elements of the input
        shifted = offset.to(wide).reshape(-1, elements, rank, *outputs) + _regular(windows, kernel, outputs, x)
        sizes = shifted.new_tensor(x.shape[2:]).reshape(rank, *[1] * rank)
        # as grid_sample takes them: from -1 to 1 between the outer edges, the last axis first
        places = ((2 * shifted + 1) / sizes - 1).flip(2).movedim(2, -1)
        grouped = x.reshape(batch * offset_groups, channels // offset_groups, *x.shape[2:])
        columns = F.grid_sample(grouped.to(wide), places.flatten(1, 2), align_corners=False)
        columns = columns.to(x.dtype).reshape(*grouped.shape[:2], elements, *outputs)
        if mask is not None:
            columns = columns * mask.reshape(-1, 1, elements, *outputs)
        columns = columns.reshape(batch, groups, -1, outputs.numel())
        kernels = weight.reshape(groups, weight.shape[0] // groups, -1)
        y = (kernels @ columns).reshape(batch, -1, *outputs)
        return y if bias is None else y + bias.reshape(-1, *[1] * rank)

    return run


def _regular(windows: Windows, kernel: torch.Size, outputs: torch.Size, x: Tensor) -> Tensor:
    """Where the kernel's elements lie without offsets: [kernel elements, axes, *outputs]."""
    rank = len(kernel)
    begins, _ = windows.padding(x.shape[2:], kernel)
    found = []
    for axis, (stride, step) in enumerate(
        zip(spread(windows.strides, rank), spread(windows.dilations, rank), strict=True)
    ):
        starts = torch.arange(outputs[axis], device=x.device) * stride - begins[axis]
        steps = torch.arange(kernel[axis], device=x.device) * step
        at = steps.reshape([-1 if place == axis else 1 for place in range(2 * rank)]) + starts.reshape(
            [-1 if place == rank + axis else 1 for place in range(2 * rank)]
        )
        found.append(at.expand(*kernel, *outputs).reshape(-1, *outputs))
    return torch.stack(found, 1)
