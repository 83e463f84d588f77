"""Join a dataset's split with a model: what each input is fed, and what the outputs are compared with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from accel.data.binding import Binding, BindingStep, ColumnInput, ConstantInput, Decoder, Embedding
from accel.data.dataset import Dataset, Rows
from accel.data.steps import apply_step
from accel.errors import BindingMismatch, RuntimeFailed
from accel.runtimes.sessions import Port

Array = npt.NDArray[np.generic]
Ints = npt.NDArray[np.int64]

_BATCH_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Feed:
    """Where one input comes from: rows of a column after some steps, or a constant."""

    port: Port
    rows: Rows | None
    column: str = ""
    steps: tuple[BindingStep, ...] = ()
    constant: Array | None = None

    def batch(self, start: int, stop: int) -> Array:
        """The input for some rows."""
        if self.rows is None:
            if self.constant is None:
                raise ValueError("an input is fed by rows or by a constant")
            return self.constant
        batch = self.rows.take(start, stop)
        for step in self.steps:
            batch = apply_step(step, batch)
        return np.ascontiguousarray(batch if self.port.dtype is None else batch.astype(self.port.dtype, copy=False))


@dataclass(frozen=True, slots=True)
class Bound:
    """A split that can be fed to a model row by row."""

    feeds: tuple[Feed, ...]
    target: Rows | None
    output: str
    fixed_batch: int | None
    """Batch size that the model insists on; None where any goes."""
    decoder: Decoder | None = None
    """How the output is read, where it is no class and no value a sample."""
    group: Rows | None = None
    """Which rows belong together; None where each is for itself."""
    second: tuple[Feed, ...] | None = None
    """Inputs of the second of each pair; None where rows are no pairs."""

    def __len__(self) -> int:
        return min((len(feed.rows) for feed in self.feeds if feed.rows is not None), default=0)

    def groups(self) -> Ints | None:
        """The number of each row's group [rows], from 0; None where each row is for itself.

        Raises:
            BindingMismatch: A row belongs to no group.
        """
        if self.group is None:
            return None
        values = self.group.take(0, len(self)).reshape(len(self))
        nameless = np.flatnonzero(values != values)  # noqa: PLR0124  (NaN is not itself, and texts have none)
        if len(nameless):
            raise BindingMismatch(
                f"The group is no number in {len(nameless):,} of {len(values):,} rows, the first of them {nameless[0]:,}.",
                hint="Give every row the name of its group.",
            )
        return np.unique(values, return_inverse=True)[1].astype(np.int64)

    def labels(self, start: int = 0, stop: int | None = None) -> Array:
        """The target of some rows, or of every row."""
        if self.target is None:
            raise ValueError("there is no target")
        return self.target.take(start, len(self) if stop is None else min(stop, len(self)))

    def batches(self, samples: int, batch_size: int) -> Iterator[dict[str, Array]]:
        """Yield the model's inputs by name for the first ``samples`` rows, whole batches where the model insists."""
        for start, stop in self.spans(samples, batch_size):
            yield self.feed(start, stop)

    def batch_size(self, largest: int) -> int:
        """Rows at a time: as many as fill a mebibyte, so that what a model makes of them stays small too."""
        row = sum(feed.batch(0, 1).nbytes for feed in self.feeds if feed.rows is not None) if len(self) else 1
        return max(1, min(largest, _BATCH_BYTES // max(row, 1)))

    def spans(self, samples: int, batch_size: int) -> Iterator[tuple[int, int]]:
        """Yield the bounds of the batches."""
        size = self.fixed_batch or batch_size
        rows = min(samples, len(self))
        for start in range(0, rows, size):
            yield start, min(start + size, rows)

    def feed(self, start: int, stop: int) -> dict[str, Array]:
        """The model's inputs for some rows; the last row is repeated where the model wants a fuller batch."""
        return self._filled(self.feeds, start, stop)

    def runs(self, start: int, stop: int) -> tuple[dict[str, Array], ...]:
        """What the model is run on for some rows: :meth:`feed`, and for pairs the inputs of the second of each too."""
        first = self.feed(start, stop)
        return (first,) if self.second is None else (first, self._filled(self.second, start, stop))

    def _filled(self, feeds: tuple[Feed, ...], start: int, stop: int) -> dict[str, Array]:
        batch = {feed.port.name: feed.batch(start, stop) for feed in feeds}
        lacking = (self.fixed_batch or 0) - (stop - start)
        if lacking <= 0:
            return batch
        fed = {feed.port.name for feed in feeds if feed.rows is not None}
        return {n: np.concatenate([a, np.repeat(a[-1:], lacking, 0)]) if n in fed else a for n, a in batch.items()}

    def unfilled(self, output: Array, rows: int) -> Array:
        """An output of a batch without the rows that only filled the batch up; whole where its first axis is no batch."""
        filled = self.fixed_batch is not None and rows < self.fixed_batch
        return output[:rows] if filled and output.ndim and len(output) == self.fixed_batch else output

    def answer(self, outputs: Mapping[str, Array], rows: int) -> Array:
        """The output that is compared with the target, without what filled up the batch.

        Args:
            outputs: What the model gave for a batch.
            rows: Rows of the dataset in it.

        Raises:
            RuntimeFailed: It does not hold one row of numbers for each row of the batch.
        """
        found = outputs.get(self.output)
        if found is None or found.dtype.kind not in "fiub" or found.ndim == 0:
            raise RuntimeFailed(f"The output {self.output!r} does not hold numbers.", hint="Name another output.")
        if len(found) != max(rows, self.fixed_batch or 0):
            raise RuntimeFailed(
                f"The output {self.output!r} does not have one row for each sample: it has the shape {list(found.shape)} for a "
                f"batch of {max(rows, self.fixed_batch or 0)}.",
                hint="Name another output, or export the model so that the first axis of this one is the batch.",
            )
        return self.unfilled(found, rows)

    def draw(self, samples: int, seed: int) -> Bound:
        """At most ``samples`` rows drawn without repetition, in order of place."""
        if samples >= len(self):
            return self
        return self.select(np.sort(np.random.default_rng(seed).choice(len(self), samples, replace=False)))

    def select(self, index: Ints) -> Bound:
        """Some of these rows, by their numbers."""
        return replace(
            self,
            feeds=_selected(self.feeds, index),
            target=None if self.target is None else self.target.select(index),
            group=None if self.group is None else self.group.select(index),
            second=None if self.second is None else _selected(self.second, index),
        )


def _selected(feeds: tuple[Feed, ...], index: Ints) -> tuple[Feed, ...]:
    return tuple(feed if feed.rows is None else replace(feed, rows=feed.rows.select(index)) for feed in feeds)


def bind(
    inputs: Sequence[Port], outputs: Sequence[Port], dataset: Dataset, split: str, binding: Binding | None
) -> Bound:
    """Find what each input of a model is fed from.

    Args:
        inputs: The model's inputs.
        outputs: The model's outputs.
        dataset: The dataset.
        split: Name of the split.
        binding: What cannot be matched by name and shape.

    Raises:
        BindingMismatch: Something does not fit; the message has both sides, the hint a binding that would help.
    """
    binding = binding or Binding()
    columns = dataset.split(split)
    target = binding.target or dataset.summary.target
    if binding.target is not None and binding.target not in columns:
        raise BindingMismatch(
            f"The target {binding.target!r} is no column of {split!r}; there is {', '.join(columns)}."
        )
    group = None if binding.group is None else _group(binding.group, columns, split)
    others = binding.decoder.second if isinstance(binding.decoder, Embedding) else None
    unknown = {*binding.inputs, *(others or {})} - {port.name for port in inputs}
    if unknown:
        names = ", ".join(port.name for port in inputs)
        raise BindingMismatch(f"The model has no input {min(unknown)!r}; it has {names}.")
    sources = {port.name: _source(port, inputs, columns, target, binding) for port in inputs}
    feeds = tuple(_feed(port, sources[port.name], columns) for port in inputs)
    second = None if others is None else tuple(_feed(port, (sources | others)[port.name], columns) for port in inputs)
    for feed in (*feeds, *(second or ())):
        _check(feed)
    sizes = {
        p.port.shape[0]
        for p in (*feeds, *(second or ()))
        if p.rows is not None and p.port.shape and isinstance(p.port.shape[0], int)
    }
    if len(sizes) > 1:
        raise BindingMismatch(f"The model's inputs insist on different batch sizes: {sorted(map(str, sizes))}.")
    output = binding.output or outputs[0].name
    if output not in {port.name for port in outputs}:
        names = ", ".join(port.name for port in outputs)
        raise BindingMismatch(f"The model has no output {output!r}; it has {names}.")
    fixed = next((size for size in sizes if isinstance(size, int)), None)
    return Bound(feeds, columns.get(target) if target else None, output, fixed, binding.decoder, group, second)


def _group(name: str, columns: dict[str, Rows], split: str) -> Rows:
    rows = columns.get(name)
    if rows is None:
        raise BindingMismatch(f"The group {name!r} is no column of {split!r}; there is {', '.join(columns)}.")
    if any(size != 1 for size in rows.shape):
        raise BindingMismatch(
            f"Rows of the group {name!r} have the shape {list(rows.shape)}; one value that names the group is needed.",
            hint="Name a column with one number or word a row.",
        )
    return rows


def _source(
    port: Port, inputs: Sequence[Port], columns: dict[str, Rows], target: str | None, binding: Binding
) -> ColumnInput | ConstantInput:
    if port.name in binding.inputs:
        return binding.inputs[port.name]
    no_inputs = {target, binding.group}
    if port.name in columns and port.name not in no_inputs:
        return ColumnInput(column=port.name)
    open_inputs = [p.name for p in inputs if p.name not in binding.inputs and p.name not in columns]
    others = (isinstance(binding.decoder, Embedding) and binding.decoder.second) or {}
    bound = (*binding.inputs.values(), *others.values())
    used = {source.column for source in bound if isinstance(source, ColumnInput)}
    used |= {p.name for p in inputs if p.name not in binding.inputs}
    free = [name for name in columns if name not in no_inputs and name not in used]
    if open_inputs == [port.name] and len(free) == 1:
        return ColumnInput(column=free[0])
    example = {"binding": {"inputs": {port.name: {"column": free[0] if free else "x"}}}}
    raise BindingMismatch(
        f"The input {port.name!r} of the model matches no column: there is {', '.join(columns)}.",
        hint=f"Say where it comes from: {json.dumps(example)}.",
    )


def _feed(port: Port, source: ColumnInput | ConstantInput, columns: dict[str, Rows]) -> Feed:
    if isinstance(source, ConstantInput):
        return Feed(port, None, constant=np.full(source.shape, source.constant, port.dtype))
    if source.column not in columns:
        raise BindingMismatch(
            f"The input {port.name!r} is bound to the column {source.column!r}; there is {', '.join(columns)}."
        )
    return Feed(port, columns[source.column], source.column, source.steps)


def _check(feed: Feed) -> None:
    """Try the steps on one row, and compare the outcome with the input."""
    port = feed.port
    if feed.rows is None:
        if feed.constant is not None and not _fits(port, feed.constant.shape, whole=True):
            raise BindingMismatch(
                f"The input {port.name!r} of the model takes {list(port.shape)}, but the constant has "
                f"the shape {list(feed.constant.shape)}."
            )
        return
    row = feed.rows.take(0, 1)
    given = f"rows of {row.dtype} {list(row.shape[1:])}"
    for step in feed.steps:
        try:
            row = apply_step(step, row)
        except (ValueError, IndexError, TypeError) as error:
            raise BindingMismatch(f"The step {step.step!r} for {port.name!r} does not fit {given}: {error}.") from error
    if feed.steps:
        given += f", after {len(feed.steps)} steps {row.dtype} {list(row.shape[1:])}"
    wanted = f"{port.dtype} {['*' if not isinstance(d, int) else d for d in port.shape[1:]]}"
    message = f"The input {port.name!r} of the model takes {wanted} a row, but gets {given}."
    fits = _fits(port, row.shape, whole=False)
    if fits and _safe(row.dtype, port.dtype):
        return
    if fits:
        message += " Numbers are not converted silently: raw pixels where 0 to 1 is expected ruin the accuracy."
    steps = json.dumps({"binding": {"inputs": {port.name: {"column": feed.column, "steps": _help(feed, row)}}}})
    raise BindingMismatch(message, hint=f"Bind it with steps, such as {steps}.")


def _help(feed: Feed, row: Array) -> list[dict[str, object]]:
    """Steps that would probably make the rows fit."""
    port, steps = feed.port, [step.model_dump() for step in feed.steps]
    if port.dtype is not None and not _safe(row.dtype, port.dtype):
        pixels = row.dtype == np.uint8 and port.dtype.kind == "f"
        steps.insert(
            0, {"step": "scale", "multiply": 1 / 255} if pixels else {"step": "cast", "dtype": str(port.dtype)}
        )
    if _fits(port, row.shape, whole=False):
        return steps
    if row.ndim == len(port.shape) - 1:
        return [*steps, {"step": "add_axis", "axis": 1}]
    return [*steps, {"step": "reshape", "shape": [d if isinstance(d, int) else -1 for d in port.shape[1:]]}]


def _fits(port: Port, shape: tuple[int, ...], *, whole: bool) -> bool:
    """Whether a shape is one that the input takes; the first axis counts only where there is no batch."""
    wanted, have = (port.shape, shape) if whole else (port.shape[1:], shape[1:])
    return len(shape) == len(port.shape) and all(
        not isinstance(want, int) or want == size for want, size in zip(wanted, have, strict=True)
    )


def _safe(have: np.dtype[np.generic], want: np.dtype[np.generic] | None) -> bool:
    """Whether every value keeps its meaning: wider whole numbers, and floats of any width."""
    return (
        want is None
        or have == want
        or (have.kind == want.kind == "f")
        or (have.kind in "iub" and want.kind in "iu" and np.can_cast(have, want))
    )
