"""Divide a dataset between what is calibrated on, what is chosen by, and what results are judged on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from accel.data.bind import Bound
from accel.data.dataset import Dataset
from accel.errors import BadDataset
from accel.report import SplitsUsed

_CALIBRATION_SPLITS = ("train", "validation", "test")
_JUDGED_SPLITS = ("test", "validation", "train")
_SELECTION = 512
"""Rows that a technique chooses by, at most."""
_FEWEST = 4
"""A split with fewer rows is not divided."""


@dataclass(frozen=True, slots=True)
class Division:
    """Rows for each purpose; no row serves two, except where ``notes`` say so."""

    judged: Bound
    calibration: Bound
    selection: Bound | None
    splits: SplitsUsed
    notes: tuple[str, ...]


def divide(
    dataset: Dataset, bind_split: Callable[[str], Bound], *, samples: int, choosing: bool, seed: int
) -> Division:
    """Results are judged on ``test``, calibration uses ``train``; of a split that must serve both, each gets a part.

    Args:
        dataset: The dataset.
        bind_split: Binds a split, by its name, to the model.
        samples: Rows that calibration wants; 0 where nothing is calibrated.
        choosing: Whether rows are wanted by which a technique chooses between results.
        seed: Seed of the draw.

    Raises:
        BadDataset: No split has rows.
        BindingMismatch: A split does not fit the model.
    """
    judged_name, calibration_name = _first(dataset, _JUDGED_SPLITS), _first(dataset, _CALIBRATION_SPLITS)
    judged, calibration = bind_split(judged_name), bind_split(calibration_name)
    random, notes = np.random.default_rng(seed), []
    if calibration_name != judged_name:
        rows = len(calibration)
        order = random.permutation(rows)
        kept = min(samples, rows)
        selection, chosen_by = None, None
        if choosing:
            chosen_by = _third(dataset, {judged_name, calibration_name})
            if chosen_by is not None:
                selection = bind_split(chosen_by)
                selection = selection.draw(_SELECTION, seed)
            else:
                chosen_by = calibration_name
                others = order[kept : kept + _SELECTION]
                if not len(others):
                    notes.append(f"All rows of `{calibration_name}` were calibrated on, and chosen by as well.")
                    others = order[:_SELECTION]
                selection = calibration.select(np.sort(others))
        splits = SplitsUsed(
            calibrated_on=calibration_name if samples else None, chosen_by=chosen_by, judged_on=judged_name
        )
        return Division(judged, calibration.select(np.sort(order[:kept])), selection, splits, tuple(notes))
    splits = SplitsUsed(
        calibrated_on=judged_name if samples else None,
        chosen_by=judged_name if choosing else None,
        judged_on=judged_name,
    )
    if not samples and not choosing:
        return Division(judged, judged.select(np.empty(0, np.int64)), None, splits, ())
    rows = len(judged)
    if rows < _FEWEST:
        notes.append(
            f"The dataset has {rows} row{'s' if rows != 1 else ''}, too few to divide: results are judged on rows that "
            "they were made with."
        )
        return Division(judged, judged, judged if choosing else None, splits, tuple(notes))
    order = random.permutation(rows)
    kept = min(samples, rows // 4 if choosing else rows // 2)
    chosen = min(_SELECTION, rows // 4) if choosing else 0
    notes.append(
        f"The dataset has one split, `{judged_name}`: {kept} of its {rows:,} rows are calibrated on, "
        + (f"{chosen} chosen by, " if choosing else "")
        + f"and the other {rows - kept - chosen:,} judged on."
    )
    return Division(
        judged.select(np.sort(order[kept + chosen :])),
        judged.select(np.sort(order[:kept])),
        judged.select(np.sort(order[kept : kept + chosen])) if choosing else None,
        splits,
        tuple(notes),
    )


def _first(dataset: Dataset, names: tuple[str, ...]) -> str:
    for name in names:
        if name in dataset.splits and any(len(rows) for rows in dataset.splits[name].values()):
            return name
    raise BadDataset(
        f"The dataset has no rows in {', '.join(names)}; it has {dataset.summary.splits}.",
        hint="Name the splits train, validation and test.",
    )


def _third(dataset: Dataset, taken: set[str]) -> str | None:
    """A split that serves neither purpose yet."""
    for name in ("validation", "test", "train"):
        if name not in taken and name in dataset.splits and any(len(rows) for rows in dataset.splits[name].values()):
            return name
    return None
