"""How good a model is while it is trained: its loss and its metric on rows that it is not trained on."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from accel.data.bind import Bound
from accel.errors import TrainingFailed
from accel.evaluation import metrics
from accel.evaluation.collecting import collector
from accel.evaluation.contract import ERRORS, Metric
from accel.evaluation.predictions import Predictions
from accel.evaluation.truth import Truth
from accel.evaluation.undefined import undefined
from accel.graph.torch_graph.node import Value
from accel.report import Estimate
from accel.training.batches import Array, Layout, Part
from accel.training.objective import Objective, as_tensor, as_tensors
from accel.training.prefetch import prefetched

Run = Callable[[dict[str, Tensor]], dict[str, Value]]
Gather = Callable[[Tensor], list[Tensor]]
"""Tensors of all processes, in order of their rank."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """How good a model is."""

    loss: float
    value: float | None
    """Of the metric; None where it is no number."""


@dataclass(frozen=True, slots=True)
class Judge:
    """The rows that a model is judged by, and what is true of them."""

    bound: Bound
    truth: Truth
    labels: Array | None
    """What a teacher says [rows, ...], where the dataset says nothing."""
    objective: Objective
    batch_size: int
    workspace: Path
    part: Part

    @property
    def metric(self) -> Metric:
        """What models are compared by."""
        return self.truth.metrics[0]

    def judge(self, run: Run, device: torch.device, gather: Gather) -> Judgement:
        """Run a model on all rows; each process takes its part of every batch, and all come to the same judgement."""
        with tempfile.TemporaryDirectory(dir=self.workspace) as spool:
            said, loss = self._collected(run, device, gather, Path(spool))
            truth = self._labels()
            value = None if undefined(self.metric, said, truth) else metrics.value(self.metric, said, truth)
            return Judgement(loss, value)

    def estimate(self, run: Run, device: torch.device, gather: Gather, seed: int) -> Estimate | None:
        """The metric with its interval; None where it is no number."""
        with tempfile.TemporaryDirectory(dir=self.workspace) as spool:
            said, _ = self._collected(run, device, gather, Path(spool))
            truth = self._labels()
            if undefined(self.metric, said, truth):
                return None
            return metrics.estimate(self.metric, said, truth, seed=seed, groups=self.truth.groups)

    def better(self, new: Judgement, old: Judgement, by: float = 0.0) -> bool:
        """Whether one is better than another by more than so much: by the metric, or by the loss where one has no metric.

        Of two that have the same metric neither is, so that the earlier one stays.
        """
        if new.value is None or old.value is None:
            return new.value is not None or (old.value is None and new.loss < old.loss - by)
        return new.value < old.value - by if self.metric in ERRORS else new.value > old.value + by

    def _labels(self) -> Predictions:
        if self.truth.labels is None:
            raise ValueError("without labels there is nothing to judge by")
        return self.truth.labels

    def _collected(self, run: Run, device: torch.device, gather: Gather, spool: Path) -> tuple[Predictions, float]:
        found = collector(self.truth.reading, self.bound.output, spool, scores=self.truth.scored)
        layout = Layout.of(len(self.bound), self._rows, per_step=None)
        # Fewer rows than processes are not worth sharing out.
        part = self.part if len(self.bound) // layout.batches >= self.part.of else Part()
        total = torch.zeros((), dtype=torch.float64)
        with prefetched(self._batches(layout, part)) as batches, torch.no_grad():
            for feeds, targets in batches:
                values = run(as_tensors(feeds, device))
                total += self.objective.each(values, as_tensor(targets, device)).double().sum().cpu()
                answer = self.bound.answer({self.bound.output: as_array(values[self.bound.output])}, len(targets))
                found.add(answer if part.of == 1 else _joined(answer, gather))
        parts = [total] if part.of == 1 else gather(total)
        return found.predictions(), float(torch.stack(parts).sum()) / len(self.bound)

    @property
    def _rows(self) -> int:
        """Rows of a batch, over all processes."""
        return self.bound.fixed_batch * self.part.of if self.bound.fixed_batch else self.batch_size

    def _batches(self, layout: Layout, part: Part) -> Iterator[tuple[dict[str, Array], Array]]:
        for batch in range(layout.batches):
            begin, end = layout.bounds(batch)
            low, high = (begin + cut for cut in part.cut(end - begin))
            targets = self.bound.labels(low, high) if self.labels is None else self.labels[low:high]
            yield self.bound.feed(low, high), targets


def as_array(value: Value) -> Array:
    """What a graph gave, as an array.

    Raises:
        TrainingFailed: It is no tensor.
    """
    if not isinstance(value, Tensor):
        raise TrainingFailed("The output is no tensor but a sequence, or nothing.", hint="Name another output.")
    found = value.detach().cpu()
    return np.asarray((found.float() if found.dtype == torch.bfloat16 else found).numpy())


def _joined(answer: Array, gather: Gather) -> Array:
    """The rows of all processes, in order; parts differ by one row at most."""
    own = torch.from_numpy(np.ascontiguousarray(answer))
    sizes = [int(size) for size in gather(torch.tensor(len(own)))]
    padded = torch.cat([own, own[-1:]]) if len(own) < max(sizes) else own
    parts = gather(padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)]).numpy()
