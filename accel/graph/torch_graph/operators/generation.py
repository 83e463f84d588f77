"""Tensors made from a few numbers."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import onnx_ir as ir
import torch
from torch import Tensor

from accel.graph.torch_graph.dtypes import torch_dtype
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator

_SMALL = frozenset({torch.float16, torch.bfloat16})
_MEL = 2595.0
"""The mel scale: 2595 log10(1 + hertz / 700)."""
_MEL_HERTZ = 700.0


@operator("Range", domain="com.microsoft")
@operator("Range", since=11)
def numbers(node: Node) -> Run:
    """Numbers from a start, a step apart, until before a limit. Gradients reach start and step."""
    wide = node.int("stash_type", 1) == ir.DataType.FLOAT

    def run(start: Tensor, limit: Tensor, step: Tensor | None = None) -> Tensor:
        dtype = start.dtype
        if not dtype.is_floating_point:
            given = range(int(start), int(limit), 1 if step is None else int(step))
            return torch.arange(given.start, given.start + len(given) * given.step, given.step, dtype=dtype)
        if step is None:
            step = torch.ones((), dtype=dtype)
        if wide and dtype in _SMALL:
            start, limit, step = start.float(), limit.float(), step.float()
        count = max(0, ceil((limit - start).item() / step.item()))
        steps = torch.arange(count, dtype=start.dtype, device=start.device)
        return (start.reshape(()) + steps * step.reshape(())).to(dtype)

    return run


@operator("EyeLike", since=9)
def eye_like(node: Node) -> Run:
    """A matrix with ones on a diagonal, in the shape of another matrix."""
    diagonal, dtype = node.int("k", 0), _type(node, "dtype", None)

    def run(x: Tensor) -> Tensor:
        ones = torch.ones(x.shape, dtype=torch.uint8, device=x.device)
        return ones.tril(diagonal).triu(diagonal).to(dtype or x.dtype)

    return run


@operator("HannWindow", since=17)
def hann_window(node: Node) -> Run:
    """The window of Hann: a cosine from zero to zero."""
    return _window(node, lambda size: torch.hann_window(size, periodic=False, dtype=torch.float64))


@operator("HammingWindow", since=17)
def hamming_window(node: Node) -> Run:
    """The window of Hamming: a cosine that stops above zero."""
    low = 25 / 46
    return _window(node, lambda size: torch.hamming_window(size, False, low, 1 - low, dtype=torch.float64))


@operator("BlackmanWindow", since=17)
def blackman_window(node: Node) -> Run:
    """The window of Blackman: two cosines."""
    return _window(node, lambda size: torch.blackman_window(size, periodic=False, dtype=torch.float64))


@operator("MelWeightMatrix", since=17)
def mel_weight_matrix(node: Node) -> Run:
    """What each frequency of a one-sided spectrum adds to each band of the mel scale, [frequencies, bands]."""
    dtype = _type(node, "output_datatype", ir.DataType.FLOAT)

    def run(bands: Tensor, length: Tensor, rate: Tensor, low: Tensor, high: Tensor) -> Tensor:
        count, size = int(bands), int(length)
        edges = torch.tensor([low.item(), high.item()], dtype=torch.float64)
        lowest, highest = (_MEL * torch.log10(1 + edges / _MEL_HERTZ)).tolist()
        mels = lowest + torch.arange(count + 2, dtype=torch.float64) * (highest - lowest) / (count + 2)
        hertz = _MEL_HERTZ * (10 ** (mels / _MEL) - 1)
        corners = ((size + 1) * hertz / int(rate)).floor()
        begin, centre, end = corners[:-2], corners[1:-1], corners[2:]
        places = torch.arange(size // 2 + 1, dtype=torch.float64).unsqueeze(1)
        rising = torch.where(centre > begin, (places - begin) / (centre - begin), 1.0)
        falling = (end - places) / (end - centre)
        inside = (places >= begin) & (places <= centre)
        behind = (places > centre) & (places < end)
        return torch.where(inside, rising, torch.where(behind, falling, 0.0)).to(dtype)

    return run


def _window(node: Node, make: Callable[[int], Tensor]) -> Run:
    """A window that is the same from both ends; a periodic one is cut from the one that is longer by one."""
    beyond, dtype = node.int("periodic", 1), _type(node, "output_datatype", ir.DataType.FLOAT)

    def run(size: Tensor) -> Tensor:
        count = int(size)
        return make(count + beyond)[:count].to(dtype)

    return run


def _type(node: Node, attribute: str, default: ir.DataType | None) -> torch.dtype | None:
    chosen = node.type_of(attribute) or default
    return None if chosen is None else torch_dtype(chosen)
