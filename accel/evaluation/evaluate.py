"""Evaluate models on one split of a dataset."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from accel.benchmark.environment import environment
from accel.context import Tell
from accel.data.bind import Bound, bind
from accel.data.binding import CtcGreedy
from accel.data.dataset import Dataset, open_dataset
from accel.errors import AccelError, BadDataset, RuntimeFailed
from accel.evaluation import metrics
from accel.evaluation.contract import Contract
from accel.evaluation.predictions import Array, Classes, Predictions, Reading, Values, collector
from accel.evaluation.statistics import mcnemar
from accel.evaluation.truth import Truth, check_metrics, labels_of, standard_metrics
from accel.evaluation.verdict import judge
from accel.events import Done
from accel.report import AgainstBaseline, EvaluatedModel, EvaluateReport
from accel.request import EvaluateRequest, ModelFile
from accel.runtimes.onnxruntime import Session, open_session


def evaluate(request: EvaluateRequest, tell: Tell) -> Done:
    """Measure the quality of each model, and compare each with the baseline on the same samples.

    Raises:
        AccelError: The baseline cannot be evaluated; another model that cannot is reported, and the rest go on.
    """
    dataset = open_dataset(request.dataset.path, request.dataset.spec, request.workspace)
    baseline = next(model for model in request.models if model.model_id == request.baseline_id)
    others = [model for model in request.models if model.model_id != request.baseline_id]
    steps = len(request.models)
    said, truth = predict_baseline(baseline, dataset, request, tell, f"model 1 of {steps}")
    found = {baseline.model_id: _evaluated(baseline, request, said, said, truth)}
    for number, model in enumerate(others, 2):
        try:
            theirs = predict(model, dataset, request, truth, tell, f"model {number} of {steps}")
            found[model.model_id] = _evaluated(model, request, theirs, said, truth)
        except AccelError as error:
            found[model.model_id] = EvaluatedModel(
                model_id=model.model_id, runtime=request.runtime, samples=0, metrics={}, error=error.message
            )
    return Done(
        report=EvaluateReport(
            split=request.split,
            baseline_id=request.baseline_id,
            models=tuple(found[model.model_id] for model in request.models),
            notes=dataset.summary.notes if truth.labels is not None else (*dataset.summary.notes, _NO_LABELS),
            environment=environment(),
        )
    )


_NO_LABELS = "The split has no labels: models are compared with the baseline's own predictions."


def predict_baseline(
    model: ModelFile, dataset: Dataset, request: EvaluateRequest, tell: Tell, message: str
) -> tuple[Predictions, Truth]:
    """Run the baseline, and settle what everything is compared with.

    Raises:
        BindingMismatch: A metric or the labels do not go with the output.
        LabelsOutOfRange: The labels are not the model's classes.
    """
    session, bound = _open(model.path, dataset, request)
    batches = run(session, bound, request.batch_size, tell, message)
    first = next(batches)
    reading = _reading(bound, dataset, first)
    labelled = bound.target is not None
    begun = _collected([first], bound, reading)
    labels = labels_of(bound, reading, _classes_in(reading, first)) if labelled else None
    asked = (request.metrics or ()) if labelled else ()
    check_metrics((*asked, *((request.contract.metric,) if request.contract else ())), reading, labels)
    truth = Truth(labels, asked, reading)
    truth.check(begun)
    said = _collected(itertools.chain([first], batches), bound, reading)
    if not asked:
        # Without labels, classes and what decoders read are compared by the agreement, values by their distance.
        top = isinstance(said, Classes) and said.top is not None
        standard = standard_metrics(labels if labels is not None else said, top=top)
        truth = replace(truth, metrics=standard if labelled or isinstance(said, Values) else ("agreement",))
    return said, truth


def _reading(bound: Bound, dataset: Dataset, first: Array) -> Reading:
    """How an output is read: as the binding says, else by the task, else by its shape."""
    if bound.decoder is not None:
        return bound.decoder
    task, width = dataset.summary.task, int(np.prod(first.shape[1:]))
    classes = task == "classification" or (task is None and width > 1 and first.dtype.kind == "f")
    return "classes" if classes else "values"


def _classes_in(reading: Reading, first: Array) -> int | None:
    """Number of classes of an output; None where it is not one of classes."""
    if isinstance(reading, CtcGreedy):
        return int(first.shape[2])
    return max(2, int(np.prod(first.shape[1:]))) if reading == "classes" else None  # one score tells two apart


def predict(
    model: ModelFile, dataset: Dataset, request: EvaluateRequest, truth: Truth, tell: Tell, message: str
) -> Predictions:
    """Run another model on the same rows."""
    session, bound = _open(model.path, dataset, request)
    said = _collected(run(session, bound, request.batch_size, tell, message), bound, truth.reading)
    truth.check(said)
    return said


def _collected(batches: Iterable[Array], bound: Bound, reading: Reading) -> Predictions:
    collected = collector(reading, bound.output)
    for batch in batches:
        collected.add(batch)
    return collected.predictions()


def compared(
    contract: Contract | None, said: Predictions, baseline: Predictions, truth: Truth, *, seed: int
) -> AgainstBaseline:
    """Compare a model with the baseline, pair by pair."""
    metric = contract.metric if contract else truth.metrics[0]
    against = truth.against(metric, baseline)
    p_value = flips = None
    if "agreement" in said.metrics:
        same = metrics.marks("agreement", said, baseline)
        flips = int((~same).sum()) if metrics.right_or_wrong(same) else None
    if metric in {"accuracy", "top5_accuracy"}:
        before, after = (metrics.marks(metric, predictions, against) for predictions in (baseline, said))
        if metrics.right_or_wrong(before) and metrics.right_or_wrong(after):
            p_value = mcnemar(before, after)
    return AgainstBaseline(
        metric=metric,
        drop=metrics.drop(metric, baseline, said, against, seed=seed),
        flips=flips,
        p_value=p_value,
        verdict=judge(contract, baseline, said, against, seed=seed) if contract else None,
    )


def _evaluated(
    model: ModelFile, request: EvaluateRequest, said: Predictions, baseline: Predictions, truth: Truth
) -> EvaluatedModel:
    return EvaluatedModel(
        model_id=model.model_id,
        runtime=request.runtime,
        samples=len(said),
        metrics={
            metric: metrics.estimate(metric, said, truth.against(metric, baseline), seed=request.seed)
            for metric in truth.metrics
        },
        against_baseline=None
        if said is baseline
        else compared(request.contract, said, baseline, truth, seed=request.seed),
    )


def _open(path: Path, dataset: Dataset, request: EvaluateRequest) -> tuple[Session, Bound]:
    session = open_session(path, request.runtime)
    bound = bind(session.inputs, session.outputs, dataset, request.split, request.binding)
    if not len(bound):
        raise BadDataset(f"The split {request.split!r} has no rows.", hint="Name another split.")
    return session, bound


def run(session: Session, bound: Bound, batch_size: int, tell: Tell, message: str) -> Iterator[Array]:
    """Yield the bound output of every batch, in order.

    Raises:
        RuntimeFailed: The runtime refused, or the output is not a number.
    """
    for start, stop in bound.spans(len(bound), batch_size):
        batch = bound.answer(session.run(bound.feed(start, stop), [bound.output]), stop - start)
        if batch.dtype.kind == "f" and np.isnan(batch).any():
            raise RuntimeFailed(f"The output {bound.output!r} is not a number (NaN) in rows {start} to {stop}.")
        tell("evaluating", stop, len(bound), message)
        yield batch
