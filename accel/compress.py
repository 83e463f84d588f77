"""Apply a recipe to a model, and prove each result."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from accel.benchmark.environment import environment
from accel.benchmark.inputs import random_inputs
from accel.context import Context, Tell
from accel.data.bind import Bound, bind
from accel.data.dataset import Dataset, open_dataset
from accel.errors import AccelError, BadDataset, BindingMismatch, DataRequired, ResultBroken, RuntimeFailed
from accel.evaluation import metrics
from accel.evaluation.contract import Contract, Metric, Verdict
from accel.evaluation.evaluate import Truth
from accel.evaluation.metrics import Array, Predictions
from accel.evaluation.verdict import judge
from accel.events import Done, ResultFile
from accel.graph.inspect import summarize
from accel.graph.load import load, load_proto, save
from accel.report import Comparison, CompressReport, Estimate, StepReport
from accel.request import CompressRequest
from accel.runtimes.onnxruntime import Session, open_session

_SAMPLES = 2_000
"""Rows that a result is compared with its parent on; a contract is judged on the whole split."""
_BATCH = 16
_KEPT_BYTES = 128 << 20
"""Outputs of one model that are kept to be compared number by number; of the rest only the predictions are."""
_CALIBRATION_SPLITS = ("train", "validation", "test")
_JUDGED_SPLITS = ("test", "validation", "train")


def compress(request: CompressRequest, tell: Tell) -> Done:
    """Apply each step, save its result, load it again in its runtime, and compare it with its parent there.

    Raises:
        TechniqueFailed: A technique does not fit the model.
        ResultBroken: A result does not load or run, or gives something else than the parent's kind of output.
    """
    workspace = request.workspace.resolve()
    tell("loading", 0, None, "")
    model = load(request.model.path)
    dataset = (
        open_dataset(request.dataset.path, request.dataset.spec, workspace) if request.dataset is not None else None
    )
    trial = _Trial.make(request, dataset, tell)
    first = _first_run(trial, request.model.path)
    path, parent_id, watched = request.model.path, request.model.model_id, first
    steps, files = [], []
    for number, (step, result_id) in enumerate(zip(request.steps, request.result_ids, strict=True), 1):
        label = f"step {number} of {len(request.steps)}: {step.tag()}"
        tell("compressing", number - 1, len(request.steps), label)
        started = time.monotonic()
        context = Context(workspace, request.seed, _labelled(tell, label), _calibration(request, dataset, trial))
        if step.needs_data and trial.calibration_split not in {None, "train"}:
            context.note(f"There is no split `train`; calibrated on `{trial.calibration_split}`.")
        model = step.apply(model, context)
        result = workspace / f"{result_id}.onnx"
        save(model, result)
        seconds = time.monotonic() - started
        tell("comparing", number - 1, len(request.steps), label)
        found = _proved(trial, result, step.tag(), watched)
        steps.append(
            StepReport(
                technique=step.tag(),
                parameters=step.model_dump(mode="json", exclude={"technique"}),
                model_id=result_id,
                parent_id=parent_id,
                size_bytes=result.stat().st_size,
                seconds=seconds,
                peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                comparison=trial.compare(path, watched, result, found),
                notes=tuple(context.notes),
            )
        )
        files.append(
            ResultFile(model_id=result_id, path=result, parent_id=parent_id, summary=summarize(load_proto(result)))
        )
        path, parent_id, watched = result, result_id, found
    report = CompressReport(
        steps=tuple(steps),
        comparison=trial.compare(request.model.path, first, path, watched),
        verdict=trial.verdict(request.contract, first, watched),
        environment=environment(),
    )
    return Done(report=report, files=tuple(files))


@dataclass(frozen=True, slots=True)
class _Watched:
    """What a model gave on the trial's inputs: outputs of the first rows, and all predictions where there are labels."""

    outputs: dict[str, Array]
    predictions: Predictions | None


@dataclass(frozen=True, slots=True)
class _Trial:
    """The inputs that every model of a recipe is tried on."""

    runtime: str
    seed: int
    feeds: tuple[dict[str, Array], ...]
    sizes: tuple[int, ...]
    bound: Bound | None
    calibration: Bound | None
    calibration_split: str | None
    truth: Truth | None
    tell: Tell

    @classmethod
    def make(cls, request: CompressRequest, dataset: Dataset | None, tell: Tell) -> _Trial:
        session = open_session(request.model.path, request.runtime)
        if dataset is None:
            if request.contract is not None:
                raise DataRequired(
                    "A contract is judged on data, and the job has no dataset.", hint="Give dataset_id, or no contract."
                )
            feeds = random_inputs(session.inputs, seed=request.seed, count=4)
            return cls(request.runtime, request.seed, feeds, (0,) * len(feeds), None, None, None, None, tell)
        judged, calibrated = _first_split(dataset, _JUDGED_SPLITS), _first_split(dataset, _CALIBRATION_SPLITS)
        bound = bind(session.inputs, session.outputs, dataset, judged, request.binding)
        if request.contract is None:
            bound = bound.draw(_SAMPLES, request.seed)
        spans = list(bound.spans(len(bound), _BATCH))
        return cls(
            request.runtime,
            request.seed,
            (),
            tuple(stop - start for start, stop in spans),
            bound,
            bind(session.inputs, session.outputs, dataset, calibrated, request.binding),
            calibrated,
            _truth(dataset, bound, request.contract, session),
            tell,
        )

    def watch(self, path: Path) -> _Watched:
        """Run a model on the trial's inputs.

        Raises:
            RuntimeFailed: The runtime refuses it.
        """
        session = open_session(path, self.runtime)
        kept: dict[str, list[Array]] = {}
        kept_bytes = done = 0
        collector = None
        if self.truth is not None and self.bound is not None:
            collector = metrics.Collector(classes=self.truth.classes, name=self.bound.output)
        total = len(self.feeds) if self.bound is None else len(self.bound)
        for feed, size in self._feeds():
            found = session.run(_as_taken(feed, session))
            outputs = {name: array[:size] if size else array for name, array in found.items()}
            if kept_bytes < _KEPT_BYTES:
                for name, array in outputs.items():
                    kept.setdefault(name, []).append(array)
                    kept_bytes += array.nbytes
            if collector is not None and self.bound is not None:
                collector.add(outputs[self.bound.output])
            done += size or 1
            self.tell("comparing", done, total, "")
        joined = {name: _joined(arrays) for name, arrays in kept.items()}
        return _Watched(joined, collector.predictions() if collector is not None else None)

    def _feeds(self) -> Iterator[tuple[dict[str, Array], int]]:
        if self.bound is None:
            yield from zip(self.feeds, self.sizes, strict=True)
            return
        for start, stop in self.bound.spans(len(self.bound), _BATCH):
            yield self.bound.feed(start, stop), stop - start

    def compare(self, parent: Path, before: _Watched, result: Path, after: _Watched) -> Comparison:
        """Two models beside each other."""
        worst, signal, noise = 0.0, 0.0, 0.0
        for name, array in before.outputs.items():
            if array.dtype.kind not in "fiub":
                continue
            other = after.outputs[name]
            rows = min(len(array), len(other))  # of a narrower type more rows are kept
            both = np.isfinite(array[:rows]) & np.isfinite(other[:rows])  # a mask's infinity stays what it is
            reference = array[:rows][both].astype(np.float64)
            difference = other[:rows][both].astype(np.float64) - reference
            worst = max(worst, float(np.abs(difference).max(initial=0)))
            signal += float((reference**2).sum())
            noise += float((difference**2).sum())
        said, theirs = after.predictions, before.predictions
        agreement = _agreement(before, after, self.bound)
        warnings = []
        ratio = result.stat().st_size / parent.stat().st_size
        if ratio > 1.01:  # noqa: PLR2004  (a name more or less is no growth)
            warnings.append(f"The file grew to {ratio:.2f} times its size.")
        if agreement is not None and agreement < 0.9:  # noqa: PLR2004  (a warning's threshold)
            warnings.append(f"Only {agreement:.1%} of the samples keep their top class: the model may be broken.")
        drop = metric = None
        if said is not None and theirs is not None and self.truth is not None:
            metric = self.truth.metrics[0]
            drop = metrics.drop(metric, theirs, said, self.truth.labels, seed=self.seed)
        return Comparison(
            runtime=self.runtime,
            inputs="random" if self.bound is None else "dataset",
            samples=len(self.feeds) if self.bound is None else len(self.bound),
            size_ratio=ratio,
            max_abs_difference=worst,
            snr_db=10 * float(np.log10(signal / noise)) if noise > 0 and signal > 0 else None,
            agreement=agreement,
            metric=metric,
            parent_metric=self._estimate(theirs, theirs),
            result_metric=self._estimate(said, theirs),
            drop=drop,
            warnings=tuple(warnings),
        )

    def _estimate(self, said: Predictions | None, baseline: Predictions | None) -> Estimate | None:
        if said is None or baseline is None or self.truth is None:
            return None
        metric = self.truth.metrics[0]
        return metrics.estimate(metric, said, metrics.reference(metric, baseline, self.truth.labels), seed=self.seed)

    def verdict(self, contract: Contract | None, first: _Watched, last: _Watched) -> Verdict | None:
        """Judge the last result against the model that the recipe began with."""
        if contract is None or self.truth is None or first.predictions is None or last.predictions is None:
            return None
        return judge(contract, first.predictions, last.predictions, self.truth.labels, seed=self.seed)


def _as_taken(feed: dict[str, Array], session: Session) -> dict[str, Array]:
    """The inputs in the float types that the model takes, which a technique may have changed."""
    wanted = {port.name: port.dtype for port in session.inputs if port.dtype is not None and port.dtype.kind == "f"}
    with np.errstate(over="ignore"):  # what that does to the outputs is looked at later
        return {
            name: array.astype(wanted[name], copy=False) if name in wanted and array.dtype.kind == "f" else array
            for name, array in feed.items()
        }


def _first_run(trial: _Trial, path: Path) -> _Watched:
    try:
        return trial.watch(path)
    except RuntimeFailed as error:
        if trial.bound is not None:
            raise
        raise DataRequired(
            f"The model does not run on random inputs of the shapes that it allows: {error.message}",
            hint="Give dataset_id, and a binding where names or shapes differ, so that real inputs are compared.",
        ) from error


def _first_split(dataset: Dataset, names: tuple[str, ...]) -> str:
    """The first of these splits that has rows.

    Raises:
        BadDataset: None has.
    """
    for name in names:
        if name in dataset.splits and any(len(rows) for rows in dataset.splits[name].values()):
            return name
    raise BadDataset(
        f"The dataset has no rows in {', '.join(names)}; it has {dataset.summary.splits}.",
        hint="Name the splits train, validation and test.",
    )


def _truth(dataset: Dataset, bound: Bound, contract: Contract | None, session: Session) -> Truth | None:
    if bound.target is None:
        if contract is not None and contract.metric != "agreement":
            raise BindingMismatch(
                f"A contract on {contract.metric} needs labels, and the dataset has no target.",
                hint='Name it: {"binding": {"target": "<column>"}}, or use the metric agreement.',
            )
        if contract is not None:
            return Truth(np.empty(0, np.int64), ("agreement",), classes=True, labelled=False)
        return None
    labels, classes = bound.labels(), dataset.summary.task != "regression"
    if classes:
        labels = labels.reshape(-1) if labels.ndim > 1 and labels.shape[1:] == (1,) else labels
        shape = next(port.shape for port in session.outputs if port.name == bound.output)
        if labels.ndim != 1 or len(shape) > 2:  # noqa: PLR2004  (labels for each part of a sample: no one metric applies)
            return None
        width = shape[1] if len(shape) == 2 and isinstance(shape[1], int) else None  # noqa: PLR2004
        if width is not None:
            metrics.check_labels(labels, 2 if width == 1 else width, bound.output)
    metric: Metric = contract.metric if contract else "accuracy" if classes else "rmse"
    return Truth(labels, (metric,), classes, labelled=True)


def _proved(trial: _Trial, result: Path, technique: str, parent: _Watched) -> _Watched:
    """Load a result again and run it.

    Raises:
        ResultBroken: It cannot be, or it gives no numbers where its parent does.
    """
    try:
        load_proto(result)
        found = trial.watch(result)
    except (ResultBroken, MemoryError):
        raise
    except AccelError as error:
        raise ResultBroken(
            f"What {technique} made does not run in {trial.runtime}: {error.message}",
            hint="Choose other parameters or another technique; the original is untouched.",
        ) from error
    for name, array in found.outputs.items():
        before = parent.outputs[name]
        rows = min(len(array), len(before))
        if array.dtype.kind == "f" and (~np.isfinite(array[:rows]) & np.isfinite(before[:rows])).any():
            raise ResultBroken(
                f"What {technique} made gives values at {name!r} that are not finite.",
                hint="The ranges may overflow in this type; leave the layers in float that are affected.",
            )
    return found


def _agreement(before: _Watched, after: _Watched, bound: Bound | None) -> float | None:
    name = bound.output if bound is not None else next(iter(before.outputs))
    first, second = before.outputs.get(name), after.outputs.get(name)
    if first is None or second is None or first.ndim < 2 or first.shape[-1] < 2 or first.dtype.kind != "f":  # noqa: PLR2004
        return None
    rows = min(len(first), len(second))
    return float((first[:rows].argmax(-1) == second[:rows].argmax(-1)).mean())


def _calibration(request: CompressRequest, dataset: Dataset | None, trial: _Trial) -> Bound | None:
    if dataset is None or trial.calibration is None:
        return None
    wanted = max((getattr(step, "samples", 0) for step in request.steps), default=0)
    return trial.calibration.draw(wanted, request.seed)


def _joined(arrays: list[Array]) -> Array:
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) == 1 and arrays[0].ndim:
        return np.concatenate(arrays)
    return np.concatenate([array.reshape(-1) for array in arrays])


def _labelled(tell: Tell, label: str) -> Tell:
    return lambda phase, done, total, message: tell(phase, done, total, f"{label} {message}".strip())
