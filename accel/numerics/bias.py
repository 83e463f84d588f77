"""Corrections of biases for what rounding does to the mean of a layer's output."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]

_LIMIT = 2**31 - 1


def expected_shift(error: Floats, means: Floats) -> Float64:
    """How far rounded weights move the mean of each output: ``E[W x] - E[Wq x] = (W - Wq) E[x]``.

    Zeros that a convolution pads with are left out of account (Nagel et al. 2019, arXiv 1906.04721, section 4.2).

    Args:
        error: W - Wq as [groups, outputs, inputs, kernel].
        means: E[x], [groups x inputs].

    Returns:
        What to add to the bias, [groups x outputs].
    """
    summed = error.sum(3, dtype=np.float64)
    shift: Float64 = (summed * means.reshape(summed.shape[0], 1, -1)).sum(2).ravel()
    return shift


def moved(bias: Int32 | None, scale: Floats, shift: Floats) -> Int32 | None:
    """An integer bias with a shift added and rounded; None where it does not fit into 32 bits.

    Args:
        bias: [outputs]; None stands for zeros.
        scale: Of the bias, [outputs] or ().
        shift: What to add, [outputs].
    """
    wanted = np.rint(shift / scale.astype(np.float64)) + (0 if bias is None else bias)
    return wanted.astype(np.int32) if np.abs(wanted).max(initial=0) <= _LIMIT else None


def mean_error(wanted: Mapping[str, Floats], found: Mapping[str, Floats]) -> float:
    """Root mean square over layers of ``|found - wanted| / |wanted|``, the means of the channels taken as vectors."""
    shares = [
        float(np.square(found[name] - mean).sum() / total)
        for name, mean in wanted.items()
        if (total := float(np.square(mean).sum())) > 0
    ]
    return float(np.sqrt(np.mean(shares))) if shares else 0.0
