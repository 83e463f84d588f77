"""Fourier transforms. ONNX keeps a complex number as two real ones in a last axis."""

from __future__ import annotations

import torch
from torch import Tensor

from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator

_NATIVE = frozenset({torch.float32, torch.float64})


@operator("DFT", since=20)
def dft(node: Node) -> Run:
    """Discrete Fourier transform along one axis, an input, which has a length to be cut or filled with zeros to."""
    inverse, half = bool(node.int("inverse", 0)), bool(node.int("onesided", 0))

    def run(x: Tensor, length: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
        return _transformed(x, length, -2 if axis is None else int(axis), inverse=inverse, half=half)

    return run


@operator("DFT", since=17)
def dft_17(node: Node) -> Run:
    """Discrete Fourier transform along the axis that the node names."""
    inverse, half, axis = bool(node.int("inverse", 0)), bool(node.int("onesided", 0)), node.int("axis", 1)
    return lambda x, length=None: _transformed(x, length, axis, inverse=inverse, half=half)


@operator("STFT", since=17)
def stft(node: Node) -> Run:
    """Fourier transforms of frames of a signal [batch, samples, 1 or 2], each multiplied by a window."""
    half = bool(node.int("onesided", 1))

    def run(signal: Tensor, step: Tensor, window: Tensor | None = None, length: Tensor | None = None) -> Tensor:
        x = _joined(signal if signal.ndim > 2 else signal.unsqueeze(-1))  # noqa: PLR2004  (batch and samples)
        frame = x if window is None else window
        size = frame.shape[-1] if length is None else int(length)
        frames = x.unfold(1, size, int(step))
        if window is not None:
            frames = frames * window
        return _parted(torch.fft.rfft(frames) if half else torch.fft.fft(frames), signal.dtype)

    return run


def _transformed(x: Tensor, length: Tensor | None, axis: int, *, inverse: bool, half: bool) -> Tensor:
    place = axis if axis >= 0 else axis + 1  # without the axis of the two parts
    size = None if length is None else int(length)
    signal = _joined(x)
    if not half:
        return _parted((torch.fft.ifft if inverse else torch.fft.fft)(signal, size, place), x.dtype)
    if inverse:
        real: Tensor = torch.fft.irfft(signal, size, place)
        return real.unsqueeze(-1).to(x.dtype)
    return _parted(torch.fft.rfft(signal, size, place), x.dtype)


def _joined(x: Tensor) -> Tensor:
    """Pairs in the last axis as complex numbers, single ones as real numbers."""
    wide = x if x.dtype in _NATIVE else x.float()
    return wide.squeeze(-1) if x.shape[-1] == 1 else torch.complex(wide[..., 0], wide[..., 1])


def _parted(x: Tensor, dtype: torch.dtype) -> Tensor:
    parts: Tensor = torch.view_as_real(x.resolve_conj())
    return parts.to(dtype)
