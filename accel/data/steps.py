"""The arithmetic of a binding's steps. An array here is a batch: its first axis is the rows."""

from __future__ import annotations

from typing import assert_never

import numpy as np
import numpy.typing as npt

from accel.data.binding import AddAxis, BindingStep, Cast, Normalize, Pad, Reshape, Resize, Scale, Transpose

Array = npt.NDArray[np.generic]


def apply_step(step: BindingStep, batch: Array) -> Array:
    """Do one step.

    Raises:
        ValueError: The step does not fit the batch's shape.
    """
    match step:
        case Cast(dtype=dtype):
            return batch.astype(dtype, copy=False)
        case Scale(multiply=multiply, add=add):
            return batch.astype(np.float32) * np.float32(multiply) + np.float32(add)
        case Normalize():
            return _normalize(step, batch)
        case Transpose(axes=axes):
            return np.transpose(batch, (0, *(axis + 1 for axis in axes)))
        case Reshape(shape=shape):
            return batch.reshape(len(batch), *shape)
        case AddAxis(axis=axis):
            return np.expand_dims(batch, axis)
        case Pad(widths=widths, value=value):
            return np.pad(batch, ((0, 0), *widths), constant_values=batch.dtype.type(value))
        case Resize(height=height, width=width):
            return resize(batch, height, width)
        case _:
            assert_never(step)


def _normalize(step: Normalize, batch: Array) -> Array:
    mean, std = np.asarray(step.mean, np.float32), np.asarray(step.std, np.float32)
    if not (std != 0).all():
        raise ValueError("std must not be 0")
    along = [1] * batch.ndim
    if mean.size > 1 or std.size > 1:
        along[step.axis] = batch.shape[step.axis]
    return (batch.astype(np.float32) - _spread(mean, along)) / _spread(std, along)


def _spread(values: npt.NDArray[np.float32], along: list[int]) -> npt.NDArray[np.float32]:
    return values if values.size == 1 else values.reshape(along)


def resize(batch: Array, height: int, width: int) -> npt.NDArray[np.float32]:
    """Resize bilinearly; the last two axes are the image, and pixels are areas (half-pixel centres)."""
    images = batch.astype(np.float32)
    for axis, size in ((-2, height), (-1, width)):
        length = images.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, length - 1)
        share = (place - below).astype(np.float32)
        if axis == -2:  # noqa: PLR2004  (rows of the image)
            share = share[:, None]
        images = np.take(images, below, axis) * (1 - share) + np.take(images, above, axis) * share
    return images
