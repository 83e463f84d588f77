"""Measure the ranges of activations on samples, in memory that does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accel.context import Tell, rows_in
from accel.errors import BadDataset
from accel.graph.layers import constant
from accel.graph.observe import Probe, observe
from accel.numerics.histogram import Histogram
from accel.numerics.ranges import Method, Range, choose
from accel.numerics.scales import Scheme
from accel.report.quantization import Settling

if TYPE_CHECKING:
    import onnx_ir as ir

Array = npt.NDArray[np.generic]

_MOMENTUM = 0.9
_FIRST_CHECK = 16
_NOTHING = np.empty(0, np.float32)
_PRIME = 1_000_003
"""Distance between the places where samples of successive batches begin."""


@dataclass(slots=True)
class TensorStatistics:
    """What was seen of one activation."""

    histogram: Histogram = field(default_factory=Histogram)
    average: Range | None = None
    """Extremes of the batches, smoothed with a momentum of 0.9."""
    finite: bool = True

    def add(self, low: float, high: float, values: npt.NDArray[np.floating]) -> None:
        """Take in a batch: its exact extremes, and some of its values."""
        if not (np.isfinite(low) and np.isfinite(high) and np.isfinite(values).all()):
            self.finite = False
            return
        self.histogram.extend(low, high)
        self.histogram.add(values)
        before = self.average
        self.average = (
            (low, high)
            if before is None
            else (
                _MOMENTUM * before[0] + (1 - _MOMENTUM) * low,
                _MOMENTUM * before[1] + (1 - _MOMENTUM) * high,
            )
        )

    def merge(self, other: TensorStatistics) -> None:
        """Take in what another worker saw; smoothed extremes are averaged."""
        self.histogram.merge(other.histogram)
        self.finite &= other.finite
        if self.average is not None and other.average is not None:
            self.average = ((self.average[0] + other.average[0]) / 2, (self.average[1] + other.average[1]) / 2)
        elif other.average is not None:
            self.average = other.average


@dataclass(slots=True)
class Statistics:
    """What was seen of all activations."""

    tensors: dict[str, TensorStatistics]
    samples: int = 0

    def merge(self, other: Statistics) -> None:
        """Take in what another worker saw on other samples of the same model."""
        for name, theirs in other.tensors.items():
            self.tensors.setdefault(name, TensorStatistics()).merge(theirs)
        self.samples += other.samples


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The ranges of activations, and how they came about."""

    statistics: Statistics
    choice: Callable[[TensorStatistics], Range]
    """How the range of an activation is chosen."""
    curve: tuple[Settling, ...]
    settled: bool
    """Whether it stopped because the scales no longer moved, before all samples were used."""

    @property
    def ranges(self) -> dict[str, Range]:
        """The range of each value."""
        return {name: self.choice(seen) for name, seen in self.statistics.tensors.items()}


def calibrate(
    model: ir.Model,
    values: Sequence[str],
    batches: Iterable[Mapping[str, Array]],
    *,
    method: Method,
    scheme: Scheme,
    workspace: Path,
    percentile: float = 99.999,
    tolerance: float = 0.0,
    sampled: bool = True,
    total: int | None = None,
    tell: Tell = lambda *_: None,
) -> Calibrated:
    """Run a float graph on samples and choose a range for each value.

    Each batch is reduced at once: the extremes in the graph, and a histogram of a part of the values, about 8,192 of each
    row, taken at even distances that begin elsewhere each time.

    Args:
        model: A float graph.
        values: Names of the activations.
        batches: Inputs of the model, read as they are needed.
        method: How a range is chosen (see :func:`accel.numerics.ranges.choose`).
        scheme: The integers that activations are mapped to.
        workspace: Folder for the instrumented graph.
        percentile: Share of values in percent that ``percentile`` keeps.
        sampled: Whether values are counted, which ``minmax`` and ``moving_average`` can do without.
        tolerance: Stop when the number of samples doubled and no scale moved by more than this share; 0 never stops early.
        total: Samples that will come, for the progress.
        tell: Told of the progress.

    Raises:
        BadDataset: There is no sample, or an input is not finite.
    """
    rectified = _rectified(model)
    bounds = {value: Probe(value, "maximum" if value in rectified else "extremes") for value in values}
    probes = [*bounds.values(), *(Probe(value, "sample") for value in values if sampled)]
    statistics = Statistics({value: TensorStatistics() for value in values})
    curve: list[Settling] = []
    check, before, observed, settled = _FIRST_CHECK, None, None, False

    def choice(seen: TensorStatistics) -> Range:
        return choose(seen.histogram, method, scheme, percentile=percentile, average=seen.average)

    for number, batch in enumerate(batches):
        _check(batch, statistics.samples)
        observed = observed or observe(model, probes, batch, workspace)
        found = observed.run(batch, start=number * _PRIME)
        for value, seen in statistics.tensors.items():
            extremes = found[bounds[value]]
            low, high = (0.0, float(extremes[-1])) if value in rectified else map(float, extremes)
            (sample,) = found[Probe(value, "sample")] if sampled else (_NOTHING,)
            seen.add(low, high, sample.astype(np.float32, copy=False))
        statistics.samples += rows_in(batch)
        tell("calibrating", statistics.samples, total, "")
        if tolerance > 0 and statistics.samples >= check:
            now = {name: choice(seen) for name, seen in statistics.tensors.items()}
            if before is not None:
                curve.append(_moved(before, now, statistics.samples))
                settled = curve[-1].largest_change <= tolerance
            if settled:
                break
            before, check = now, 2 * statistics.samples
    if not statistics.samples:
        raise BadDataset("There is no sample to calibrate on.", hint="Give a dataset with rows in the split `train`.")
    return Calibrated(statistics, choice, tuple(curve), settled)


def _rectified(model: ir.Model) -> set[str]:
    """The values that are never below 0, whose minimum needs no looking for: ranges hold 0 in any case."""
    found = set()
    for node in model.graph:
        lowest = constant(node.inputs[1]) if node.op_type == "Clip" and len(node.inputs) > 1 else None
        if node.op_type in {"Relu", "Sigmoid", "Softmax"} or (lowest is not None and float(lowest.min(initial=0)) >= 0):
            found.add(str(node.outputs[0].name))
    return found


def _check(batch: Mapping[str, Array], row: int) -> None:
    for name, array in batch.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            wrong = np.argwhere(~np.isfinite(array))[0]
            raise BadDataset(
                f"The calibration samples hold {array[tuple(wrong)]} in what is fed to {name!r} (row {row + int(wrong[0] if wrong.size else 0)}"
                " of the samples).",
                hint="Remove or fill rows with NaN and infinity, or bind a column without them.",
            )


def _moved(before: Mapping[str, Range], now: Mapping[str, Range], samples: int) -> Settling:
    changes = []
    for name, (low, high) in now.items():
        old_low, old_high = before[name]
        width = max(high - low, old_high - old_low)
        changes.append(0.0 if width == 0 else (abs(low - old_low) + abs(high - old_high)) / width)
    return Settling(samples=samples, median_change=float(np.median(changes)), largest_change=float(max(changes)))
