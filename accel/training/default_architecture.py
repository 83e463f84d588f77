"""Which architecture is taken where the caller names none."""

from __future__ import annotations

from accel.training.architecture import Architecture
from accel.training.architectures.cnn import Cnn
from accel.training.architectures.conv1d import Conv1d
from accel.training.architectures.mlp import Mlp
from accel.training.architectures.recurrent import Recurrent
from accel.training.architectures.resnet import Resnet
from accel.training.architectures.transformer import Transformer
from accel.training.entering import LARGE_IMAGE
from accel.training.input_shapes import InputShape, kinds

_SMALLEST_IMAGE = 8
"""Pixels a side; what is smaller is no image, or none that convolutions gain from."""
_LONG = 64
"""Steps from which a series is convolved rather than read step by step."""
_AUDIO = 1024
"""Numbers in a row from which they are taken for a series rather than for a table."""


def default_architecture(inputs: tuple[InputShape, ...]) -> Architecture:
    """Choose by the shape of a row: mlp for tables, cnn or resnet for images, conv1d or recurrent for series, transformer for tokens.

    Whole numbers of 8 bits in a row are taken for a table, of more bits for tokens.

    Raises:
        BindingMismatch: No architecture fits.
    """
    if len(inputs) != 1 or not kinds(inputs):
        Mlp.refuse_misfit(inputs)
        return Mlp()
    (shape,) = inputs
    match shape.shape:
        case (length,):
            if shape.whole and shape.ids is not None and not shape.dtype.endswith("int8"):
                return Transformer()
            return Conv1d() if length >= _AUDIO else Mlp()
        case (first, second):
            if min(first, second) < _SMALLEST_IMAGE:
                return Conv1d() if max(first, second) >= _LONG else Recurrent()
            return _for_images(min(first, second))
        case (first, middle, last):
            side = min(first, middle) if shape.channels_last("auto") else min(middle, last)
            return _for_images(side) if side >= _SMALLEST_IMAGE else Mlp()
        case _:
            return Mlp()


def _for_images(side: int) -> Architecture:
    return Resnet() if side >= LARGE_IMAGE else Cnn()
