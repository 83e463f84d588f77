"""Divide a dataset between what is trained on and what progress is judged by."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from accel.data.bind import Bound
from accel.data.dataset import Dataset
from accel.errors import BadDataset
from accel.training.settings import TrainingSettings

Ints = npt.NDArray[np.int64]

_SHARE = 0.1
"""Of the rows, where nothing is asked for and there is no split for it."""
_SPLIT = "validation"


@dataclass(frozen=True, slots=True)
class Parts:
    """Rows to train on, and rows to judge by."""

    train: Bound
    validation: Bound | None
    validated_on: str | None
    """Name of the split that the rows to judge by are of."""
    notes: tuple[str, ...] = ()


def divide(
    dataset: Dataset, bind_split: Callable[[str], Bound], split: str, settings: TrainingSettings, workspace: Path
) -> Parts:
    """Divide a dataset; no row serves both purposes.

    Args:
        dataset: The dataset.
        bind_split: Binds a split, by its name, to the model.
        split: What is trained on.
        settings: Say what is judged by.
        workspace: Folder that the rows' numbers are kept in, so that they take no memory.

    Raises:
        BadDataset: There is no such split, or it has too few rows.
        BindingMismatch: A split does not fit the model.
    """
    if split not in dataset.splits:
        raise BadDataset(
            f"The dataset has no split {split!r} to train on; it has {', '.join(dataset.splits)}.",
            hint='Cut it by the spec, such as {"splits": {"fractions": {"train": 0.8, "test": 0.2}}}, or name another split.',
        )
    bound = bind_split(split)
    if not len(bound):
        raise BadDataset(f"The split {split!r} has no rows to train on.", hint="Name another split.")
    wanted = settings.validation
    if wanted is None:
        wanted = _SPLIT if split != _SPLIT and _SPLIT in dataset.splits else _SHARE
    if isinstance(wanted, str):
        return _by_split(dataset, bind_split, bound, split, wanted)
    if wanted == 0:
        return Parts(bound, None, None)
    held = held_out(bound, wanted, settings.seed, stratified=dataset.summary.task == "classification")
    kept = np.setdiff1d(np.arange(len(bound)), held, assume_unique=True)
    if not len(held) or not len(kept):
        raise BadDataset(
            f"The split {split!r} has {len(bound):,} rows, too few to hold out {wanted:.0%} of them.",
            hint="Name a split in `validation`, or set it to 0 to judge by nothing.",
        )
    kind = "groups" if bound.group is not None else "rows"
    note = f"{len(held):,} of the {len(bound):,} rows of `{split}` were held out to judge by, drawn by {kind}."
    return Parts(bound.select(paged(kept, workspace)), bound.select(paged(held, workspace)), split, (note,))


def _by_split(dataset: Dataset, bind_split: Callable[[str], Bound], bound: Bound, split: str, wanted: str) -> Parts:
    if wanted == split:
        raise BadDataset(
            f"The split {split!r} cannot both be trained on and judged by.",
            hint="Name another split in `validation`, or a share of this one, such as 0.1.",
        )
    if wanted not in dataset.splits:
        raise BadDataset(
            f"The dataset has no split {wanted!r} to judge by; it has {', '.join(dataset.splits)}.",
            hint="Name another split in `validation`, or a share of the rows, such as 0.1.",
        )
    judged = bind_split(wanted)
    if not len(judged):
        raise BadDataset(f"The split {wanted!r} has no rows to judge by.", hint="Name another split.")
    notes: tuple[str, ...] = ()
    if wanted == "test":
        notes = ("The best weights were chosen by `test`: figures of this model on that split may be too good.",)
    return Parts(bound, judged, wanted, notes)


def held_out(bound: Bound, share: float, seed: int, *, stratified: bool) -> Ints:
    """Numbers of the rows that are held out, ascending: of each class alike, and whole groups where there are some.

    Raises:
        BindingMismatch: A row belongs to no group.
    """
    labels = _classes(bound) if stratified else np.zeros(len(bound), np.int64)
    groups = bound.groups()
    generator = np.random.default_rng(seed)
    if groups is None:
        return _of_each_class(labels, share, generator)
    return np.flatnonzero(np.isin(groups, _chosen_groups(labels, groups, share, generator)))


def _classes(bound: Bound) -> Ints:
    """The number of each row's class, from 0; all alike where rows have more than one label."""
    if bound.target is None or bound.target.dtype.kind not in "iub" or any(size != 1 for size in bound.target.shape):
        return np.zeros(len(bound), np.int64)
    return np.unique(bound.labels().reshape(-1), return_inverse=True)[1].astype(np.int64)


def _of_each_class(labels: Ints, share: float, generator: np.random.Generator) -> Ints:
    order = generator.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    # Rows by class, and within a class at random: every so many-th of them are the same share of each class.
    wanted = round(share * len(labels))
    if not wanted:
        return np.empty(0, np.int64)
    places = ((np.arange(wanted) + generator.random()) * len(labels) / wanted).astype(np.int64)
    return np.sort(order[places])


def _chosen_groups(labels: Ints, groups: Ints, share: float, generator: np.random.Generator) -> Ints:
    """Groups, drawn at random, that together have about the share of each class; the smallest where each is too large."""
    counts = np.zeros((int(groups.max()) + 1, int(labels.max()) + 1))
    np.add.at(counts, (groups, labels), 1)
    lacking = share * counts.sum(0)
    chosen = []
    for group in generator.permutation(len(counts)).tolist():
        left = lacking - counts[group]
        if np.abs(left).sum() < np.abs(lacking).sum():
            lacking = left
            chosen.append(group)
    if not chosen and len(counts) > 1:
        chosen = [int(counts.sum(1).argmin())]
    return np.array(chosen, np.int64)


def paged(index: Ints, workspace: Path) -> Ints:
    """Numbers of rows, mapped from a file without a name instead of held in memory."""
    if not len(index):
        return index
    with tempfile.TemporaryFile(dir=workspace) as file:
        index.tofile(file)
        file.flush()
        return np.memmap(file, np.int64, "r", shape=index.shape)
