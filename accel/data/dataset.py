"""A dataset: named splits of named columns, mapped from its file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from accel.data.arrays import StoredArray, give_back, read_arrays
from accel.data.spec import DatasetSpec, Splits
from accel.errors import BadDataset
from accel.report import ColumnSummary, DatasetSummary

Array = npt.NDArray[np.generic]

SPLITS = ("train", "validation", "test")
_HELD_BYTES = 4 << 20
"""Rows that may stay in memory before their pages are given back."""
_CLASS_NAMES = "class_names"
_TARGETS = ("y", "target", "label", "labels")


@dataclass(frozen=True)
class Rows:
    """Some rows of a column: all of an array, or those of an index. The file is opened when the first row is read."""

    stored: StoredArray
    workspace: Path
    index: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self.stored.header.shape[0] if self.index is None else len(self.index)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Element type."""
        return self.stored.header.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.stored.header.shape[1:]

    @cached_property
    def array(self) -> Array:
        """The whole column, of these rows and others."""
        return self.stored.open(self.workspace)

    def select(self, index: npt.NDArray[np.int64]) -> Rows:
        """Some of these rows."""
        return Rows(self.stored, self.workspace, index if self.index is None else self.index[index])

    def take(self, start: int, stop: int) -> Array:
        """Rows from ``start`` to ``stop``, in memory; pages of rows that were taken before are given back, some megabytes at a time."""
        row_bytes = math.prod(self.shape) * self.dtype.itemsize
        if start == 0 or start * row_bytes // _HELD_BYTES != stop * row_bytes // _HELD_BYTES:
            give_back(self.array)
        return np.asarray(self.array[start:stop] if self.index is None else self.array[self.index[start:stop]])


@dataclass(frozen=True, slots=True)
class Dataset:
    """Columns by split, and what the file says about them."""

    splits: dict[str, dict[str, Rows]]
    summary: DatasetSummary

    def split(self, name: str) -> dict[str, Rows]:
        """The columns of a split.

        Raises:
            BadDataset: There is no such split.
        """
        if name not in self.splits:
            raise BadDataset(
                f"The dataset has no split {name!r}.", hint=f"It has {', '.join(self.splits)}; name one of these."
            )
        return self.splits[name]


def open_dataset(path: Path, spec: DatasetSpec, workspace: Path) -> Dataset:
    """Open a dataset.

    Args:
        path: An npz file whose arrays are named ``<column>_<split>``, or without a split for one table; or an npy file,
            whose array is the column ``x``.
        spec: What cannot be inferred.
        workspace: Folder to unpack compressed arrays into.

    Raises:
        BadDataset: Columns of a split differ in length, or the spec names what is not there.
    """
    stored = {array.name: array for array in read_arrays(path)}
    notes: list[str] = []
    split_of = {name: _split_name(name) for name in stored}
    names = (
        _given_splits(stored, split_of, notes)
        if any(split is not None for _, split in split_of.values())
        else {"": _one_table(stored, notes)}
    )
    opened = {
        split: {column: Rows(array, workspace) for column, array in columns.items()} for split, columns in names.items()
    }
    for split, columns in opened.items():
        lengths = {column: len(rows) for column, rows in columns.items()}
        if len(set(lengths.values())) > 1:
            where = f"the split {split!r}" if split else "the table"
            raise BadDataset(
                f"The columns of {where} differ in length: {lengths}.", hint="Each column needs one entry for each row."
            )
    if "" in opened:
        splits = _cut(opened[""], spec.splits, notes)
    else:
        splits = opened
        if spec.splits is not None:
            raise BadDataset("The arrays are split by their names already.", hint="Leave out `splits` in the spec.")
    return Dataset(splits, _summarize(splits, spec, _class_names(stored, workspace), notes))


def _split_name(name: str) -> tuple[str, str | None]:
    column, _, split = name.rpartition("_")
    return (column, split) if column and split in SPLITS else (name, None)


def _given_splits(
    stored: dict[str, StoredArray], split_of: dict[str, tuple[str, str | None]], notes: list[str]
) -> dict[str, dict[str, StoredArray]]:
    names: dict[str, dict[str, StoredArray]] = {split: {} for split in SPLITS}
    for name, (column, split) in split_of.items():
        if name == _CLASS_NAMES:
            continue
        if split is None:
            notes.append(f"{name!r} belongs to no split; it is kept as a note, not as a column.")
        elif not stored[name].header.shape:
            raise BadDataset(f"The array {name!r} is a single value, not a column of rows.")
        else:
            names[split][column] = stored[name]
    return {split: columns for split, columns in names.items() if columns}


def _one_table(stored: dict[str, StoredArray], notes: list[str]) -> dict[str, StoredArray]:
    lengths = {name: array.header.shape[0] for name, array in stored.items() if array.header.shape}
    if not lengths:
        raise BadDataset("The file holds no array with rows.", hint="The first axis of a column is its rows.")
    rows = max(lengths.values())
    notes.extend(
        f"{name!r} does not have the table's {rows:,} rows; it is kept as a note, not as a column."
        for name in stored
        if lengths.get(name) != rows and name != _CLASS_NAMES
    )
    return {name: array for name, array in stored.items() if lengths.get(name) == rows}


def _cut(table: dict[str, Rows], splits: Splits | None, notes: list[str]) -> dict[str, dict[str, Rows]]:
    if splits is None:
        notes.append("The arrays name no splits, so that all rows are `test`; give `splits` to cut them.")
        return {"test": table}
    rows = len(next(iter(table.values())))
    strata = [np.arange(rows)]
    if splits.stratify is not None:
        if splits.stratify not in table:
            raise BadDataset(f"There is no column {splits.stratify!r} to stratify by; there is {', '.join(table)}.")
        values = np.asarray(table[splits.stratify].array)
        if values.size != rows:
            raise BadDataset(
                f"Rows of {splits.stratify!r} have the shape {list(values.shape[1:])}; to stratify, one value a row is needed.",
                hint="Leave `stratify` out, or name a column with one value a row.",
            )
        _, inverse = np.unique(values.reshape(rows), return_inverse=True)
        strata = [np.flatnonzero(inverse == level) for level in range(int(inverse.max(initial=-1)) + 1)]
    chance = np.random.default_rng(splits.seed)
    parts: dict[str, list[npt.NDArray[np.int64]]] = {name: [] for name in splits.fractions}
    for stratum in strata:
        shuffled = chance.permutation(stratum)
        bounds = np.rint(np.cumsum(list(splits.fractions.values())) * len(stratum)).astype(np.int64)[:-1]
        for name, part in zip(parts, np.split(shuffled, bounds), strict=True):
            parts[name].append(part)
    index = {name: np.sort(np.concatenate(part)) for name, part in parts.items()}
    return {name: {column: rows.select(chosen) for column, rows in table.items()} for name, chosen in index.items()}


def _class_names(stored: dict[str, StoredArray], workspace: Path) -> tuple[str, ...] | None:
    array = stored.get(_CLASS_NAMES)
    if array is None or array.header.dtype.kind != "U" or len(array.header.shape) != 1:
        return None
    try:
        names = tuple(str(name) for name in array.open(workspace)[:1000])
        "".join(names).encode().decode()  # numpy lets through what is no character
    except ValueError as error:
        raise BadDataset(f"{_CLASS_NAMES!r} holds what is no text: {str(error)[:200]}.") from error
    if any("\0" in name for name in names):
        raise BadDataset(f"{_CLASS_NAMES!r} holds a NUL character.")
    return names


def _summarize(
    splits: dict[str, dict[str, Rows]], spec: DatasetSpec, class_names: tuple[str, ...] | None, notes: list[str]
) -> DatasetSummary:
    first = next(iter(splits.values()))
    for split, columns in splits.items():
        for name, rows in columns.items():
            if name not in first or rows.shape != first[name].shape:
                notes.append(f"The column {name!r} of the split {split!r} differs from that of the other splits.")
    target = spec.target
    if target is not None and target not in first:
        raise BadDataset(
            f"There is no column {target!r}; there is {', '.join(first)}.", hint="Mend `target` in the spec."
        )
    if target is None:
        target = next((name for name in _TARGETS if name in first), None)
        if target is not None and len(first) > 1:
            notes.append(f"The target is taken to be {target!r}.")
        elif len(first) == 1:
            target = None
    task = spec.task
    if task is None and target is not None:
        task = "regression" if first[target].dtype.kind == "f" else "classification"
        notes.append(f"The task is taken to be {task}, by the target's type {first[target].dtype}.")
    classes = None
    if task == "classification" and target is not None and first[target].dtype.kind in "iub":
        arrays = [columns[target].array for columns in splits.values() if target in columns]
        classes = max(int(array.max()) if array.size else -1 for array in arrays) + 1
    return DatasetSummary(
        columns=tuple(
            ColumnSummary(name=name, dtype=str(rows.dtype), shape=rows.shape) for name, rows in first.items()
        ),
        splits={split: len(next(iter(columns.values()))) for split, columns in splits.items()},
        task=task,
        target=target,
        classes=classes,
        class_names=class_names,
        notes=tuple(notes),
    )
