"""Scales that move the spread of channels from one side of a product to the other, and leave the product as it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from accel.numerics.scales import ACTIVATIONS, WEIGHTS, Granularity, dequantize, quantize_tensor

Floats = npt.NDArray[np.floating]
Float64 = npt.NDArray[np.float64]

_MARGIN = 0.5
"""Share of a channel's spread by which less is absorbed than its smallest value: other samples go lower."""


def output_extents(weight: Floats) -> Floats:
    """The largest magnitude of the weights that write each channel.

    Args:
        weight: [groups, outputs, inputs, kernel].

    Returns:
        [groups x outputs].
    """
    extents: Floats = np.abs(weight).max((2, 3), initial=0.0).ravel()
    return extents


def input_extents(weight: Floats, spread: int = 1) -> Floats:
    """The largest magnitude of the weights that read each channel.

    Args:
        weight: [groups, outputs, inputs, kernel].
        spread: Inputs that stand for one channel.

    Returns:
        [groups x inputs / spread].
    """
    extents: Floats = np.abs(weight).max((1, 3), initial=0.0).reshape(-1, spread).max(1)
    return extents


def equalizing_scales(written: Floats, read: Floats) -> Float64:
    """Scales that give the weights before and behind each channel the same extent (Nagel et al. 2019, arXiv 1906.04721).

    With the channel divided by sqrt(written / read), both become sqrt(written x read). Channels that nothing writes or
    nothing reads stay.

    Args:
        written: Extents of the weights that write each channel, [channels].
        read: Extents of the weights that read it, [channels].
    """
    alive = (written > 0) & (read > 0)
    scales = np.ones(written.shape)
    scales[alive] = np.sqrt(written[alive].astype(np.float64) / read[alive])
    return scales


def absorbable(low: Floats, high: Floats) -> Float64:
    """What can be taken off each channel before its activation and given to the biases of the next layers.

    A channel that is never 0 behind its Relu wastes the part of its range below its smallest value. Half of the spread
    is left as a margin. (Nagel et al. 2019 take the mean less three standard deviations, known from a batch norm.)

    Args:
        low: Smallest values behind the activation, [channels].
        high: Largest values, [channels].
    """
    return np.maximum(low - _MARGIN * (high - low), 0.0).astype(np.float64)


def smoothing_scales(activations: Floats, weights: Floats, alpha: float) -> Float64:
    """Scales that move outliers from activations into weights (SmoothQuant: Xiao et al. 2022, arXiv 2211.10438).

    ``max|X_j|^alpha / max|W_j|^(1 - alpha)``, over the geometric mean of all, which no rounding depends on. Channels that
    are always 0 stay.

    Args:
        activations: max|X_j| for each channel j, [channels].
        weights: max|W_j| over all weights that read it, [channels].
        alpha: Share of the spread that goes into the weights, 0 to 1.
    """
    alive = (activations > 0) & (weights > 0)
    scales = np.ones(activations.shape)
    if alive.any():
        logs = alpha * np.log(activations[alive], dtype=np.float64) - (1 - alpha) * np.log(
            weights[alive], dtype=np.float64
        )
        scales[alive] = np.exp(logs - logs.mean())
    return scales


def product_error(activations: Floats, matrices: Sequence[Floats], scales: Floats) -> float:
    """Sum of squared errors of 8-bit products after smoothing: unsigned activations, weights per output channel.

    Args:
        activations: [rows, inputs].
        matrices: Weights that read them, each [inputs, outputs].
        scales: [inputs].
    """
    rounded = dequantize(*quantize_tensor(activations / scales, ACTIVATIONS)).astype(np.float64)
    error = 0.0
    for matrix in matrices:
        channels = Granularity(1)
        weight = dequantize(*quantize_tensor(matrix * scales[:, None], WEIGHTS, channels), channels)
        error += float(np.square(rounded @ weight - activations.astype(np.float64) @ matrix).sum())
    return error
