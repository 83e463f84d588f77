"""Which integers stand for the weights of a layer: to the nearest, half-quadratic, GPTQ, and a search from there.

All work on a matrix [rows, columns]: a row is what one output sums over, and blocks of its columns share a scale.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accel.numerics.scales import (
    Float32,
    Floats,
    Granularity,
    Integers,
    Parameters,
    Scheme,
    dequantize,
    extremes,
    noise_db,
    parameters,
    quantize,
    spread,
)

Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_PANEL = 128
"""Columns that are decided before what that means for all later ones is computed in one product."""
_CHUNK = 1 << 20
"""Weights that half-quadratic rounding works on at once."""
_EXPONENT = 0.7
"""The norm whose shrinkage tells outliers from rounding errors; below 1, large errors are cheap."""
_STRENGTH, _GROWTH = 3.0, 1.01
"""How much of an error counts as an outlier at first, and how that grows; 3 left the least of 0.3 to 30 that were tried."""
_SMALL = 1e-12
DAMPING = 0.05
"""Share of the mean diagonal that Gram matrices get, so that a rounding also fits inputs that were not seen: on inputs kept
apart, 0.05 left less error than 0.001 and 0.01."""
_EXACT_DB = 35.0
"""Signal-to-noise ratio of a table that does not show beside what the layers behind it make."""
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Rounded:
    """A matrix as integers."""

    integers: Integers
    """[rows, columns]."""
    parameters: Parameters
    """[rows, blocks]."""
    scheme: Scheme
    block: int
    """Columns that share a scale; the last block of a row may have fewer."""

    def floats(self) -> Float32:
        """The floats that the integers stand for."""
        return dequantize(self.integers, self.parameters, Granularity(1, self.block))

    def spread(self) -> tuple[Float32, npt.NDArray[np.int32]]:
        """Scale and zero point of each weight, [rows, columns]."""
        shape, granularity = self.integers.shape, Granularity(1, self.block)
        scale = spread(self.parameters.scale, shape, granularity).astype(np.float32, copy=False)
        return scale, spread(self.parameters.zero_point, shape, granularity).astype(np.int32, copy=False)


def nearest(matrix: Floats, scheme: Scheme, block: int | None = None) -> Rounded:
    """Round each weight to the nearest integer; scales by the extremes of each block.

    Args:
        matrix: [rows, columns].
        scheme: The integers.
        block: Columns that share a scale; None for whole rows.
    """
    size = _block(matrix, block)
    granularity = Granularity(1, size)
    found = parameters(*extremes(matrix, granularity), scheme)
    return Rounded(quantize(matrix, found, scheme, granularity), found, scheme, size)


def table(matrix: Floats, scheme: Scheme) -> Rounded:
    """Round a table that rows are looked up in: with one scale where that is exact enough, else with one for each row.

    Rows are short, so that scales of their own would take up some percent of the file.

    Args:
        matrix: [rows, columns].
        scheme: The integers.
    """
    low, high = (np.full((len(matrix), 1), part) for part in extremes(matrix))
    whole = parameters(low, high, scheme)
    columns = _block(matrix, None)
    one = Rounded(quantize(matrix, whole, scheme, Granularity(1, columns)), whole, scheme, columns)
    noise = noise_db(matrix, one.floats())
    return one if noise is None or noise >= _EXACT_DB else nearest(matrix, scheme)


def half_quadratic(matrix: Floats, scheme: Scheme, block: int | None = None, *, iterations: int = 8) -> Rounded:
    """Choose the scales and zero points that leave the weights the smallest squared error. Needs no data.

    Alternates between the integers, the errors that are left to outliers (by the shrinkage of the 0.7-norm), and scale and
    zero point by least squares for the rest; each block keeps the best that it met, so that none is worse than rounded to
    the nearest. Badri and Shaji 2023, "Half-Quadratic Quantization of Large Machine Learning Models". Theirs differs in two
    points: only a zero point that need not be whole is optimised, which ONNX does not have, and the last is kept.

    Args:
        matrix: [rows, columns].
        scheme: The integers.
        block: Columns that share a scale; None for whole rows.
        iterations: Rounds of alternation.
    """
    start = nearest(matrix, scheme, block)
    scale, zero_point = start.parameters.scale.copy(), start.parameters.zero_point.copy()
    rows = max(1, _CHUNK // max(1, matrix.shape[1]))
    for first in range(0, len(matrix) if matrix.size else 0, rows):
        part = slice(first, first + rows)
        weights, there = _blocks(matrix[part], start.block)
        scale[part], zero_point[part] = _half_quadratic(
            weights, there, scale[part].astype(np.float64), zero_point[part].astype(np.float64), scheme, iterations
        )
    found = Parameters(scale, zero_point)
    return Rounded(quantize(matrix, found, scheme, Granularity(1, start.block)), found, scheme, start.block)


def gptq(
    matrix: Floats,
    scale: Floats,
    zero_point: npt.NDArray[np.integer],
    gram: Floats,
    *,
    limits: tuple[int, int],
    damping: float = DAMPING,
) -> npt.NDArray[np.int32]:
    """Round column by column, and let the columns that are left make up for the error of each.

    Frantar et al. 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"
    (arXiv 2210.17323), in the order of falling diagonals; scales and zero points stay as they are given.

    Args:
        matrix: [rows, columns] as float.
        scale: Scales, [rows, columns] or what broadcasts to it.
        zero_point: Zero points, alike.
        gram: [groups, columns, columns], X^T X of the inputs; each group has an equal share of the rows, in order.
        limits: Smallest and largest integer that may be chosen.
        damping: Share of the mean diagonal that is added to it.

    Returns:
        Integers [rows, columns].
    """
    if not matrix.size:
        return np.zeros(matrix.shape, np.int32)
    groups, columns = len(gram), matrix.shape[1]
    regular = _regular(gram, damping)
    order = np.argsort(-np.diagonal(regular, axis1=1, axis2=2), axis=1, kind="stable")
    regular = np.take_along_axis(np.take_along_axis(regular, order[:, :, None], 1), order[:, None, :], 2)
    # The upper factor of the inverse: its row j says how the error of column j is best spread over later columns.
    factor = np.swapaxes(np.linalg.cholesky(np.linalg.inv(regular)), 1, 2)

    def ordered(part: npt.NDArray[np.generic]) -> Float64:
        wide = np.broadcast_to(part, matrix.shape).astype(np.float64)
        return np.take_along_axis(wide.reshape(groups, -1, columns), order[:, None, :], 2)

    steps, zeros, left = ordered(scale), ordered(zero_point), ordered(matrix)
    chosen = np.empty_like(left)
    for first in range(0, columns, _PANEL):
        last = min(first + _PANEL, columns)
        errors = np.empty((*left.shape[:2], last - first))
        for column in range(first, last):
            at = np.s_[:, :, column]
            chosen[at] = np.clip(np.rint(left[at] / steps[at]) + zeros[at], *limits)
            error = (left[at] - (chosen[at] - zeros[at]) * steps[at]) / factor[:, column, column, None]
            errors[:, :, column - first] = error
            left[:, :, column:last] -= error[:, :, None] * factor[:, None, column, column:last]
        left[:, :, last:] -= errors @ factor[:, first:last, last:]
    back = np.argsort(order, axis=1)[:, None, :]
    return np.take_along_axis(chosen, back, 2).reshape(matrix.shape).astype(np.int32)


def search(
    matrix: Floats,
    integers: Integers,
    scale: Floats,
    zero_point: npt.NDArray[np.integer],
    gram: Floats,
    *,
    limits: tuple[int, int],
    iterations: int = 10,
    damping: float = DAMPING,
) -> Integers:
    """Round weights up or down so that the layer's output error is smallest, one column at a time until none moves.

    The objective is that of Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization"
    (arXiv 2004.10568): (w - q) X^T X (w - q)^T. With the other columns given, the best choice in a column is known in
    closed form, so that no gradients are needed and the error never grows.

    Args:
        matrix: [rows, columns] as float.
        integers: [rows, columns] to start from.
        scale: Scales, [rows, columns] or what broadcasts to it; they stay.
        zero_point: Zero points, alike.
        gram: [groups, columns, columns], X^T X of the inputs; each group has an equal share of the rows, in order.
        limits: Smallest and largest integer that may be chosen.
        iterations: Rounds over all columns, at most.
        damping: Share of the mean diagonal that is added to it.
    """
    if not matrix.size:
        return integers
    regular = _regular(gram, damping)
    shape = (len(gram), -1, matrix.shape[1])
    steps = np.broadcast_to(scale.astype(np.float64), matrix.shape).reshape(shape)
    exact = matrix.reshape(shape) / steps + np.broadcast_to(zero_point, matrix.shape).reshape(shape)
    chosen = integers.astype(np.float64).reshape(shape)
    lowest = np.minimum(np.clip(np.floor(exact), *limits), chosen)
    highest = np.maximum(np.clip(np.ceil(exact), *limits), chosen)
    slope = ((exact - chosen) * steps) @ regular
    curvature = steps * np.diagonal(regular, axis1=1, axis2=2)[:, None, :]
    for _ in range(iterations):
        moved = False
        for first in range(0, matrix.shape[1], _PANEL):
            panel = slice(first, first + _PANEL)
            before = chosen[:, :, panel].copy()
            for column in range(first, min(first + _PANEL, matrix.shape[1])):
                at = np.s_[:, :, column]
                better = np.clip(np.rint(chosen[at] + slope[at] / curvature[at]), lowest[at], highest[at])
                change = (better - chosen[at]) * steps[at]
                if change.any():
                    chosen[at] = better
                    slope[:, :, panel] -= change[:, :, None] * regular[:, None, column, panel]
            change = (chosen[:, :, panel] - before) * steps[:, :, panel]
            if change.any():
                moved = True
                update = change @ regular[:, panel]
                update[:, :, panel] = 0  # these have it already
                slope -= update
        if not moved:
            break
    return chosen.reshape(matrix.shape).astype(integers.dtype)


def output_error(difference: Floats, gram: Floats) -> float:
    """The squared error of a layer's output over all inputs.

    Args:
        difference: What the weights are off by, [rows, columns].
        gram: [groups, columns, columns], as for :func:`search`.
    """
    wide = difference.astype(np.float64).reshape(len(gram), -1, difference.shape[1])
    return float(((wide @ gram.astype(np.float64)) * wide).sum())


def _block(matrix: Floats, block: int | None) -> int:
    columns = int(matrix.shape[1])
    return max(1, columns if block is None else min(block, columns))


def _regular(gram: Floats, damping: float) -> Float64:
    """A copy that can be inverted; inputs that never occur count like an average one."""
    regular = gram.astype(np.float64)
    diagonal = np.diagonal(regular, axis1=1, axis2=2)
    mean = diagonal.mean(1, keepdims=True)
    mean = np.where(mean > 0, mean, 1.0)
    added = np.where(diagonal <= 0, mean, damping * mean)
    places = np.arange(regular.shape[1])
    regular[:, places, places] += added
    return regular


def _blocks(matrix: Floats, size: int) -> tuple[Float64, Mask]:
    """The matrix as [rows, blocks, size], and which places of [blocks, size] are within it."""
    rows, columns = matrix.shape
    count = -(-columns // size)
    padded = np.zeros((rows, count * size))
    padded[:, :columns] = matrix
    return padded.reshape(rows, count, size), (np.arange(count * size) < columns).reshape(count, size)


def _whole(weights: Float64, scale: Float64, zero: Float64, scheme: Scheme) -> Float64:
    """The integers of blocks, less the zero point."""
    return np.clip(np.rint(weights / scale[..., None]) + zero[..., None], scheme.low, scheme.high) - zero[..., None]


def _half_quadratic(
    weights: Float64, there: Mask, scale: Float64, zero: Float64, scheme: Scheme, iterations: int
) -> tuple[Float64, Float64]:
    best_scale, best_zero = scale, zero
    least = _squared(weights, _whole(weights, scale, zero, scheme), scale, there)
    strength = _STRENGTH
    for _ in range(iterations):
        scale, zero = _least_squares(weights, there, scale, zero, scheme, strength)
        error = _squared(weights, _whole(weights, scale, zero, scheme), scale, there)
        wins = error < least
        least = np.where(wins, error, least)
        best_scale, best_zero = np.where(wins, scale, best_scale), np.where(wins, zero, best_zero)
        strength *= _GROWTH
    return best_scale, best_zero


def _squared(weights: Float64, whole: Float64, scale: Float64, there: Mask) -> Float64:
    error = (weights - whole * scale[..., None]) * there
    result: Float64 = np.square(error).sum(-1)
    return result


def _least_squares(
    weights: Float64, there: Mask, scale: Float64, zero: Float64, scheme: Scheme, strength: float
) -> tuple[Float64, Float64]:
    """One alternation: integers, then errors left to outliers, then zero point and scale. Errors count in steps."""
    exact = weights / scale[..., None]
    whole = _whole(weights, scale, zero, scheme)
    error = exact - whole
    size = np.abs(error)
    threshold = np.maximum(size, _SMALL) ** (_EXPONENT - 1) / strength
    target = (exact - np.sign(error) * np.maximum(size - threshold, 0)) * there
    if not scheme.symmetric:
        shift = np.rint(((whole - target) * there).sum(-1) / there.sum(-1))
        moved = np.clip(zero + shift, scheme.low, scheme.high)
        whole += (zero - moved)[..., None]
        zero = moved
    power = (np.square(whole) * there).sum(-1)
    ratio = (whole * target).sum(-1) / np.where(power == 0, 1.0, power)
    return np.where((power > 0) & (ratio > 0), np.maximum(scale * ratio, _TINY), scale), zero
