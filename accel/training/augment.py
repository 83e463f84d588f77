"""The arithmetic of augmentations. An array here is a batch as the model takes it: its first axis is the rows.

What happens to a row depends on the seed, the epoch and its number in the dataset, not on the rows beside it or on the process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
import numpy.typing as npt

from accel.data.bind import Bound, Feed
from accel.data.damage import spatial
from accel.errors import BindingMismatch
from accel.training import chance
from accel.training.augmentation import AnyAugmentation, Crop, Cutout, Flip, Mixup, Noise, Shift

Array = npt.NDArray[np.generic]
Ints = npt.NDArray[np.int64]

_FILLS: dict[str, Literal["edge", "symmetric", "constant"]] = {
    "edge": "edge",
    "reflect": "symmetric",
    "zero": "constant",
}
_IMAGE_AXES = 3
"""Axes of a batch of images, at least: rows, height and width."""


@dataclass(frozen=True, slots=True)
class Augmenter:
    """What happens to the inputs of a model while it is trained."""

    augmentations: tuple[AnyAugmentation, ...]
    seed: int
    inputs: tuple[str, ...]
    """Inputs of floats that are fed by rows: nothing else is changed."""

    @classmethod
    def of(cls, augmentations: Sequence[AnyAugmentation], bound: Bound, seed: int) -> Augmenter:
        """Check that there is something that each augmentation can change.

        Raises:
            BindingMismatch: There is not; the message names the augmentation and the inputs.
        """
        inputs = tuple(feed.port.name for feed in bound.feeds if _floats(feed))
        row = bound.feed(0, 1) if len(bound) else {}
        for augmentation in augmentations:
            if not any(_fits(augmentation, row[name]) for name in inputs if name in row):
                shapes = ", ".join(f"{name!r} has rows of {a.dtype} {list(a.shape[1:])}" for name, a in row.items())
                raise BindingMismatch(
                    f"The augmentation {augmentation.augmentation} fits no input of the model: {shapes}.",
                    hint=f"It is of {_needs(augmentation)}. Leave it out, or choose another.",
                )
        if sum(isinstance(augmentation, Mixup) for augmentation in augmentations) > 1:
            raise BindingMismatch("mixup is asked for twice.", hint="Leave one out.")
        if bound.fixed_batch is not None and any(isinstance(augmentation, Mixup) for augmentation in augmentations):
            raise BindingMismatch(
                f"mixup does not go with a model that insists on batches of {bound.fixed_batch}.",
                hint="Export the model with an open batch size, or leave mixup out.",
            )
        return cls(tuple(augmentations), seed, inputs)

    def applied(self, feeds: Mapping[str, Array], numbers: Ints, epoch: int) -> dict[str, Array]:
        """Change some rows.

        Args:
            feeds: The inputs; there may be more rows than numbers, where they only fill up the batch.
            numbers: The number of each row in the dataset.
            epoch: The epoch.
        """
        found = dict(feeds)
        for place, augmentation in enumerate(self.augmentations):
            if isinstance(augmentation, Mixup):
                continue
            of = chance.key(self.seed, augmentation.augmentation, place, epoch)
            for name in self.inputs:
                if not _fits(augmentation, found[name]):
                    continue
                changed = _change(augmentation)(found[name][: len(numbers)], numbers, of)
                filling = found[name][len(numbers) :]
                found[name] = changed if not len(filling) else np.concatenate([changed, filling])
        return found

    def mixed(self, epoch: int, batch: int, rows: int) -> tuple[float, int] | None:
        """How a batch is blended: the share of each row itself, and how many places further its partner is; None for not."""
        mixup = next((one for one in self.augmentations if isinstance(one, Mixup)), None)
        if mixup is None or rows < 2:  # noqa: PLR2004  (a row has no partner)
            return None
        generator = np.random.default_rng(chance.key(self.seed, "mixup", epoch, batch))
        return float(generator.beta(mixup.alpha, mixup.alpha)), int(generator.integers(1, rows))

    def blended(self, feeds: Mapping[str, Array], others: Mapping[str, Array], share: float) -> dict[str, Array]:
        """Some rows with their partners."""
        return {
            name: array if name not in self.inputs else _blend(array, others[name], share)
            for name, array in feeds.items()
        }


def _blend(array: Array, other: Array, share: float) -> Array:
    blend = share * array.astype(np.float32) + (1 - share) * other.astype(np.float32)
    return np.asarray(blend.astype(array.dtype))


def _floats(feed: Feed) -> bool:
    return feed.rows is not None and feed.port.dtype is not None and feed.port.dtype.kind == "f"


def _fits(augmentation: AnyAugmentation, batch: Array) -> bool:
    if isinstance(augmentation, Flip | Crop | Cutout):
        return batch.ndim >= _IMAGE_AXES and all(batch.shape[axis] > 1 for axis in spatial(batch.shape[1:]))
    return batch.ndim > 1 and batch.shape[-1] > 1 if isinstance(augmentation, Shift) else True


def _needs(augmentation: AnyAugmentation) -> str:
    match augmentation:
        case Flip() | Crop() | Cutout():
            return "images: inputs of floats whose rows have a height and a width"
        case Shift():
            return "sequences: inputs of floats whose rows have an axis"
        case _:
            return "inputs of floats"


def _change(augmentation: AnyAugmentation) -> Callable[[Array, Ints, int], Array]:
    match augmentation:
        case Flip():
            return lambda batch, numbers, of: _flipped(augmentation, batch, numbers, of)
        case Crop():
            return lambda batch, numbers, of: _cropped(augmentation, batch, numbers, of)
        case Cutout():
            return lambda batch, numbers, of: _covered(augmentation, batch, numbers, of)
        case Noise():
            return lambda batch, numbers, of: _noisy(augmentation, batch, numbers, of)
        case Shift():
            return lambda batch, numbers, of: _shifted(augmentation, batch, numbers, of)
        case Mixup():
            raise TypeError("mixup is of batches, not of rows")
        case _:
            assert_never(augmentation)


def _flipped(flip: Flip, batch: Array, numbers: Ints, of: int) -> Array:
    down, across = spatial(batch.shape[1:])
    chosen = chance.uniform(of, numbers) < flip.probability
    found = batch.copy()
    found[chosen] = np.flip(batch[chosen], across if flip.direction == "horizontal" else down)
    return found


def _cropped(crop: Crop, batch: Array, numbers: Ints, of: int) -> Array:
    axes = spatial(batch.shape[1:])
    images = np.moveaxis(batch, axes, (-2, -1))
    height, width = images.shape[-2:]
    widths = [(0, 0)] * (images.ndim - 2) + [(crop.padding, crop.padding)] * 2
    padded = np.pad(images, widths, mode=_FILLS[crop.fill])
    places = 2 * crop.padding + 1
    found = np.empty_like(images)
    tops = chance.integers(chance.key(of, "down"), numbers, places)
    lefts = chance.integers(chance.key(of, "across"), numbers, places)
    for row, (top, left) in enumerate(zip(tops.tolist(), lefts.tolist(), strict=True)):
        found[row] = padded[row, ..., top : top + height, left : left + width]
    return np.ascontiguousarray(np.moveaxis(found, (-2, -1), axes))


def _covered(cutout: Cutout, batch: Array, numbers: Ints, of: int) -> Array:
    axes = spatial(batch.shape[1:])
    found = batch.copy()
    images = np.moveaxis(found, axes, (-2, -1))
    height, width = images.shape[-2:]
    side = max(1, round(cutout.side * min(height, width)))
    chosen = np.flatnonzero(chance.uniform(of, numbers) < cutout.probability)
    tops = chance.integers(chance.key(of, "down"), numbers, height - side + 1)
    lefts = chance.integers(chance.key(of, "across"), numbers, width - side + 1)
    for row in chosen.tolist():
        top, left = int(tops[row]), int(lefts[row])
        images[row, ..., top : top + side, left : left + side] = images[row].mean()
    return found


def _noisy(noise: Noise, batch: Array, numbers: Ints, of: int) -> Array:
    chosen = np.flatnonzero(chance.uniform(of, numbers) < noise.probability)
    low, high = noise.snr_db
    ratios = low + (high - low) * chance.uniform(chance.key(of, "loudness"), numbers)
    found = batch.copy()
    for row in chosen.tolist():
        power = float(np.mean(np.square(batch[row], dtype=np.float64)))
        loudness = (power * 10 ** (-float(ratios[row]) / 10)) ** 0.5
        drawn = chance.normal(of, int(numbers[row]), batch.shape[1:])
        found[row] = batch[row] + (drawn * np.float32(loudness)).astype(batch.dtype)
    return found


def _shifted(shift: Shift, batch: Array, numbers: Ints, of: int) -> Array:
    length = batch.shape[-1]
    furthest = max(1, round(shift.share * length))
    found = np.zeros_like(batch)
    ways = chance.integers(of, numbers, 2 * furthest + 1) - furthest
    for row, way in enumerate(ways.tolist()):
        if way >= 0:
            found[row, ..., way:] = batch[row, ..., : length - way]
        else:
            found[row, ..., :way] = batch[row, ..., -way:]
    return found
