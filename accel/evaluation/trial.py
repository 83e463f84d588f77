"""Samples that models are run on to be compared: those that results are judged on, or those that a technique chooses by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from accel.context import Tell
from accel.data.bind import Bound
from accel.data.binding import CtcGreedy, Embedding, Threshold
from accel.errors import BindingMismatch
from accel.evaluation import metrics
from accel.evaluation.collecting import collector
from accel.evaluation.contract import Contract, Verdict
from accel.evaluation.predictions import NAME_A_DECODER, Predictions
from accel.evaluation.truth import Truth
from accel.evaluation.undefined import undefined
from accel.evaluation.verdict import judge
from accel.report import Comparison, Estimate
from accel.runtimes.sessions import Session, open_session

Array = npt.NDArray[np.generic]

_BATCH = 16
_KEPT_BYTES = 128 << 20
"""Outputs of one model that are kept to be compared number by number; of the rest only the predictions are."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What a model gave on a trial's inputs: outputs of the first rows, and all predictions where there are labels."""

    outputs: dict[str, Array]
    predictions: Predictions | None


@dataclass(frozen=True, slots=True)
class Trial:
    """The inputs that models are tried on, and what is true of them."""

    runtime: str
    seed: int
    tell: Tell
    bound: Bound | None = None
    """Rows of a dataset; None where ``feeds`` are tried."""
    feeds: tuple[dict[str, Array], ...] = ()
    """Random inputs."""
    truth: Truth | None = None

    def __len__(self) -> int:
        return len(self.feeds) if self.bound is None else len(self.bound)

    def batch_size(self, largest: int) -> int:
        """Rows that are best taken at a time, ``largest`` at most."""
        return 1 if self.bound is None else self.bound.batch_size(largest)

    def part(self, rows: int) -> Trial:
        """So many of the rows, spread over all of them."""
        if self.bound is None or rows >= len(self.bound):
            return self
        index = spread(len(self.bound), rows)
        return replace(self, bound=self.bound.select(index), truth=self.truth and self.truth.select(index))

    def watch(self, path: Path, *, exact: bool = False) -> Watched:
        """Run a model on the trial's inputs.

        Args:
            path: An ONNX file.
            exact: Whether it is computed as it is written, so that nothing saturates whatever this processor does.

        Raises:
            RuntimeFailed: The runtime refuses it.
            BindingMismatch: The output is not of the shape that its decoder or the labels need.
        """
        session = open_session(path, self.runtime, exact=exact)
        kept: dict[str, list[Array]] = {}
        kept_bytes = done = 0
        collected = (
            collector(self.truth.reading, self.bound.output, scores=self.truth.scored)
            if self.truth and self.bound
            else None
        )
        for (feed, *others), size in self._inputs():
            found = session.run(_as_taken(feed, session))
            outputs = found if self.bound is None else {n: self.bound.unfilled(a, size) for n, a in found.items()}
            if kept_bytes < _KEPT_BYTES:
                for name, array in outputs.items():
                    kept.setdefault(name, []).append(array)
                    kept_bytes += array.nbytes
            if collected is not None and self.bound is not None:
                seconds = (session.run(_as_taken(other, session), [self.bound.output]) for other in others)
                collected.add(*(self.bound.answer(outputs, size) for outputs in (found, *seconds)))
            done += size or 1
            self.tell("comparing", done, len(self), "")
        joined = {name: _joined(arrays) for name, arrays in kept.items()}
        said = collected.predictions() if collected is not None else None
        if said is not None and self.truth is not None:
            self.truth.check(said)
        return Watched(joined, said)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the inputs for one sample."""
        feed = self.feeds[0] if self.bound is None else self.bound.feed(0, 1)
        return {name: array.shape for name, array in feed.items()}

    def _inputs(self) -> Iterator[tuple[tuple[dict[str, Array], ...], int]]:
        if self.bound is None:
            yield from (((feed,), 0) for feed in self.feeds)
            return
        for start, stop in self.bound.spans(len(self.bound), self.bound.batch_size(_BATCH)):
            yield self.bound.runs(start, stop), stop - start

    def compare(self, parent: Path, before: Watched, result: Path, after: Watched) -> Comparison:
        """Two models beside each other."""
        difference = differ(before, after)
        said, theirs = after.predictions, before.predictions
        agreement = self.agreement(before, after)
        warnings = []
        ratio = result.stat().st_size / parent.stat().st_size
        if ratio > 1.01:  # noqa: PLR2004  (a name more or less is no growth)
            warnings.append(f"The file grew to {ratio:.2f} times its size.")
        if agreement is not None and agreement < 0.9:  # noqa: PLR2004  (a warning's threshold)
            warnings.append(f"Only {agreement:.1%} of the {self._kept()}: the model may be broken.")
        if said is not None and len(said.not_finite):
            warnings.append(f"The output is not finite for {len(said.not_finite):,} of {len(said):,} samples.")
        drop = metric = None
        if said is not None and theirs is not None and self.truth is not None:
            metric = self.truth.metrics[0]
            truth = self.truth.against(metric, theirs)
            if not any(undefined(metric, predictions, truth) for predictions in (theirs, said)):
                drop = metrics.drop(metric, theirs, said, truth, seed=self.seed, groups=self.truth.groups)
        return Comparison(
            runtime=self.runtime,
            inputs="random" if self.bound is None else "dataset",
            samples=len(self),
            size_ratio=ratio,
            max_abs_difference=difference.largest,
            snr_db=difference.snr_db,
            agreement=agreement,
            metric=metric,
            parent_metric=self._estimate(theirs, theirs),
            result_metric=self._estimate(said, theirs),
            drop=drop,
            warnings=tuple(warnings),
        )

    def agreement(self, before: Watched, after: Watched) -> float | None:
        """Share of rows with the same top class or sequence, or of the same decisions; None where the output is none of these."""
        if self.truth is not None and isinstance(self.truth.reading, Embedding):
            return None
        if self._decoded and before.predictions is not None and after.predictions is not None:
            return metrics.value("agreement", after.predictions, before.predictions)
        name = self.bound.output if self.bound is not None else next(iter(before.outputs))
        first, second = before.outputs.get(name), after.outputs.get(name)
        if first is None or second is None or first.ndim < 2 or first.shape[-1] < 2 or first.dtype.kind != "f":  # noqa: PLR2004
            return None
        rows = min(len(first), len(second))
        return float((first[:rows].argmax(-1) == second[:rows].argmax(-1)).mean())

    @property
    def _decoded(self) -> bool:
        return self.truth is not None and isinstance(self.truth.reading, CtcGreedy | Threshold)

    def _kept(self) -> str:
        """What the agreement is a share of."""
        match self.truth.reading if self.truth is not None else "classes":
            case CtcGreedy():
                return "samples keep their sequence"
            case Threshold():
                return "decisions stay the same"
            case _:
                return "samples keep their top class"

    def _estimate(self, said: Predictions | None, baseline: Predictions | None) -> Estimate | None:
        if said is None or baseline is None or self.truth is None:
            return None
        metric = self.truth.metrics[0]
        truth = self.truth.against(metric, baseline)
        if undefined(metric, said, truth):
            return None
        return metrics.estimate(metric, said, truth, seed=self.seed, groups=self.truth.groups)

    def loss(self, contract: Contract, first: Watched, last: Watched) -> float:
        """How much worse a candidate may be by a contract's metric: the drop and its standard error."""
        if self.truth is None or first.predictions is None or last.predictions is None:
            raise BindingMismatch(
                f"{contract.metric} cannot be computed: it is not said what the outputs are compared with.",
                hint=NAME_A_DECODER,
            )
        truth = self.truth.against(contract.metric, first.predictions)
        return metrics.cautious_drop(
            contract.metric, first.predictions, last.predictions, truth, seed=self.seed, groups=self.truth.groups
        )

    def verdict(self, contract: Contract | None, first: Watched, last: Watched) -> Verdict | None:
        """Judge a result against the model that the recipe began with."""
        if contract is None or self.truth is None or first.predictions is None or last.predictions is None:
            return None
        truth = self.truth.against(contract.metric, first.predictions)
        return judge(contract, first.predictions, last.predictions, truth, seed=self.seed, groups=self.truth.groups)


@dataclass(frozen=True, slots=True)
class Difference:
    """How far outputs are apart."""

    largest: float
    """Of any two numbers."""
    noise: float
    """Sum of squared differences over the sum of squares, of the output where it is largest."""
    snr_db: float | None
    """Signal-to-noise ratio over all outputs; None where they are equal."""


def differ(before: Watched, after: Watched) -> Difference:
    """Compare all outputs number by number; where one is not finite it is left out."""
    largest, share, signals, noises = 0.0, 0.0, 0.0, 0.0
    for name, array in before.outputs.items():
        if array.dtype.kind not in "fiub":
            continue
        other = after.outputs[name]
        rows = min(len(array), len(other))  # of a narrower type more rows are kept
        both = np.isfinite(array[:rows]) & np.isfinite(other[:rows])  # a mask's infinity stays what it is
        reference = array[:rows][both].astype(np.float64)
        difference = other[:rows][both].astype(np.float64) - reference
        largest = max(largest, float(np.abs(difference).max(initial=0)))
        signal, noise = float((reference**2).sum()), float((difference**2).sum())
        if signal > 0:
            share = max(share, noise / signal)
        signals, noises = signals + signal, noises + noise
    snr_db = 10 * float(np.log10(signals / noises)) if noises > 0 and signals > 0 else None
    return Difference(largest, share, snr_db)


def _as_taken(feed: dict[str, Array], session: Session) -> dict[str, Array]:
    """The inputs in the float types that the model takes, which a technique may have changed."""
    wanted = {port.name: port.dtype for port in session.inputs if port.dtype is not None and port.dtype.kind == "f"}
    with np.errstate(over="ignore"):  # what that does to the outputs is looked at later
        return {
            name: array.astype(wanted[name], copy=False) if name in wanted and array.dtype.kind == "f" else array
            for name, array in feed.items()
        }


def spread(total: int, rows: int) -> npt.NDArray[np.int64]:
    """Numbers of ``rows`` rows out of ``total``, ascending: four blocks or more, at even distances.

    Files are often sorted by class, so that the first rows alone would be of one; and neighbours may be frames of one clip,
    which belong into one batch.
    """
    block = max(1, min(_BATCH, rows // 4))
    place = np.arange(rows)
    gaps = max(1, -(-rows // block) - 1)
    return np.asarray(place + place // block * (total - rows) // gaps, np.int64)


def _joined(arrays: list[Array]) -> Array:
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) == 1 and arrays[0].ndim:
        return np.concatenate(arrays)
    return np.concatenate([array.reshape(-1) for array in arrays])
