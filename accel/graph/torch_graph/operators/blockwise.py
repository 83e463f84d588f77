"""Products with matrices that are stored in a few bits, a scale for each block of a row."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (as everybody calls it)

from accel.graph.torch_graph.dtypes import FLOATS
from accel.graph.torch_graph.fake_quantization import through
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator, unsupported

_BYTE = 8
_INTEGER_LEVEL = 4
"""The ``accuracy_level`` of integer kernels."""
_STEPS = 127
_FEWEST, _BLOCKS_OF_FEWEST = 2, (32, 64, 128)
"""Bits for which ONNX Runtime has them for some blocks alone."""


@operator("MatMulNBits", domain="com.microsoft")
def matmul_nbits(node: Node) -> Run:
    """The product of a matrix of floats with a packed one, [outputs, blocks, bytes], whose blocks run along the inputs.

    An ``accuracy_level`` of 4 permits to round the first matrix to eight bits, as ONNX Runtime does where it has a kernel for
    that. The rounding is computed here, too, and a gradient passes it.
    """
    bits, columns, rows, block = node.int("bits", 4), node.int("K", 0), node.int("N", 0), node.int("block_size", 0)
    if _BYTE % bits:
        raise unsupported(node, f"it packs numbers of {bits} bits; 2, 4 and 8 are covered")
    if node.int("weight_prepacked", 0):
        raise unsupported(node, "its weight is packed for one processor alone")
    if node.inputs > 4 and node.native.inputs[4] is not None:  # noqa: PLR2004  (g_idx)
        raise unsupported(node, "its blocks are not in order (g_idx)")
    rounds = node.int("accuracy_level", 0) == _INTEGER_LEVEL and (bits > _FEWEST or block in _BLOCKS_OF_FEWEST)
    kept = _Kept()

    def weight(packed: Tensor, scales: Tensor, zeros: Tensor | None) -> Tensor:
        """[outputs, inputs] of floats."""
        blocks = -(-columns // block)
        steps = scales.reshape(rows, blocks, 1)
        if zeros is None:
            shift: Tensor | int = 1 << (bits - 1)
        elif zeros.dtype in FLOATS:
            shift = zeros.reshape(rows, blocks, 1)
        else:
            shift = _unpacked(zeros.reshape(rows, -1), bits)[:, :blocks].unsqueeze(-1).to(steps)
        integers = _unpacked(packed.reshape(rows, blocks, -1), bits)
        return ((integers.to(steps) - shift) * steps).reshape(rows, -1)[:, :columns]

    def run(
        a: Tensor,
        packed: Tensor,
        scales: Tensor,
        zeros: Tensor | None = None,
        _group: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        matrix = kept.read(packed, scales, zeros)
        if matrix is None:
            matrix = kept.keep(weight(packed, scales, zeros), packed, scales, zeros)
        exact = zeros is not None and zeros.dtype in FLOATS
        return F.linear(_rounded(a, block) if rounds and not exact else a, matrix, bias)

    return run


class _Kept:
    """A matrix as floats, and what it was made of, so that it is unpacked once and not on each run."""

    def __init__(self) -> None:
        self._sources: tuple[Tensor | None, ...] = ()
        self._matrix: Tensor | None = None

    def read(self, *sources: Tensor | None) -> Tensor | None:
        """The matrix; None if it was made of other tensors, or of some that are trained."""
        same = len(sources) == len(self._sources) and all(
            one is other for one, other in zip(sources, self._sources, strict=True)
        )
        return self._matrix if same else None

    def keep(self, matrix: Tensor, *sources: Tensor | None) -> Tensor:
        """Remember a matrix for as long as its sources stay what they are."""
        if not any(source is not None and source.requires_grad for source in sources) and not matrix.is_inference():
            self._sources, self._matrix = sources, matrix
        return matrix


def _rounded(a: Tensor, block: int) -> Tensor:
    """Each block of the last axis rounded to 127 steps up to its greatest magnitude."""
    columns = a.shape[-1]
    blocks = F.pad(a, [0, -columns % block]).unfold(-1, block, block)
    greatest = blocks.detach().abs().amax(-1, keepdim=True)
    greatest = torch.where(greatest > 0, greatest, 1)
    return (through(blocks * (_STEPS / greatest), torch.round) * (greatest / _STEPS)).flatten(-2)[..., :columns]


def _unpacked(packed: Tensor, bits: int) -> Tensor:
    """Bytes as the numbers in them along the last axis, the first in the lowest bits."""
    if bits == _BYTE:
        return packed
    shifts = torch.arange(0, _BYTE, bits, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(-1) >> shifts) & ((1 << bits) - 1)).flatten(-2)
