"""Evaluate models on one split of a dataset."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from accel.benchmark.environment import environment
from accel.context import Tell
from accel.data.bind import Bound, bind
from accel.data.dataset import Dataset, open_dataset
from accel.errors import AccelError, BadDataset, BindingMismatch, RuntimeFailed
from accel.evaluation import metrics
from accel.evaluation.contract import Contract
from accel.evaluation.metrics import Array, Predictions
from accel.evaluation.statistics import mcnemar
from accel.evaluation.truth import Truth
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
            notes=dataset.summary.notes if truth.labelled else (*dataset.summary.notes, _NO_LABELS),
            environment=environment(),
        )
    )


_NO_LABELS = "The split has no labels: models are compared with the baseline's own predictions."


def predict_baseline(
    model: ModelFile, dataset: Dataset, request: EvaluateRequest, tell: Tell, message: str
) -> tuple[Predictions, Truth]:
    """Run the baseline, and settle what everything is compared with."""
    session, bound = _open(model.path, dataset, request)
    batches = run(session, bound, request.batch_size, tell, message)
    first = next(batches)
    task, width = dataset.summary.task, int(np.prod(first.shape[1:]))
    classes = task == "classification" or (task is None and width > 1 and first.dtype.kind == "f")
    said = _collected(itertools.chain([first], batches), bound, classes=classes)
    if bound.target is not None:
        labels = bound.labels()
        if classes:
            if labels.ndim > 1 and labels.shape[1:] != (1,):
                raise BindingMismatch(f"The labels have the shape {list(labels.shape)}; one a sample is needed.")
            labels = labels.reshape(-1)
            metrics.check_labels(labels, 2 if width == 1 else width, bound.output)
        standard = metrics.CLASSIFICATION if classes else metrics.REGRESSION
        if classes and said.top is None:
            standard = tuple(metric for metric in standard if metric != "top5_accuracy")
        if not classes and (labels == labels[:1]).all():
            standard = ("mae", "rmse")  # r2 compares with the target's spread, and here there is none
        return said, Truth(labels, request.metrics or standard, classes, labelled=True)
    if said.classes is not None:
        return said, Truth(said.classes, ("agreement",), classes, labelled=False)
    own = said.values if said.values is not None else np.empty(0)
    standard = ("mae", "rmse") if (own == own[:1]).all() else metrics.REGRESSION
    return said, Truth(own, standard, classes, labelled=False)


def predict(
    model: ModelFile, dataset: Dataset, request: EvaluateRequest, truth: Truth, tell: Tell, message: str
) -> Predictions:
    """Run another model on the same rows."""
    session, bound = _open(model.path, dataset, request)
    return _collected(run(session, bound, request.batch_size, tell, message), bound, classes=truth.classes)


def _collected(batches: Iterable[Array], bound: Bound, *, classes: bool) -> Predictions:
    collector = metrics.Collector(classes=classes, name=bound.output)
    for batch in batches:
        collector.add(batch)
    return collector.predictions()


def compared(
    contract: Contract | None, said: Predictions, baseline: Predictions, truth: Truth, *, seed: int
) -> AgainstBaseline:
    """Compare a model with the baseline, pair by pair."""
    metric = contract.metric if contract else truth.metrics[0]
    p_value = flips = None
    if said.classes is not None and baseline.classes is not None:
        flips = int((said.classes != baseline.classes).sum())
        if metric in {"accuracy", "top5_accuracy"}:
            right = [metrics.correct(metric, predictions, truth.labels) for predictions in (baseline, said)]
            p_value = mcnemar(right[0], right[1])
    return AgainstBaseline(
        metric=metric,
        drop=metrics.drop(metric, baseline, said, truth.labels, seed=seed),
        flips=flips,
        p_value=p_value,
        verdict=judge(contract, baseline, said, truth.labels, seed=seed) if contract else None,
    )


def _evaluated(
    model: ModelFile, request: EvaluateRequest, said: Predictions, baseline: Predictions, truth: Truth
) -> EvaluatedModel:
    return EvaluatedModel(
        model_id=model.model_id,
        runtime=request.runtime,
        samples=len(said),
        metrics={
            metric: metrics.estimate(metric, said, metrics.reference(metric, baseline, truth.labels), seed=request.seed)
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
        batch = session.run(bound.feed(start, stop), [bound.output]).get(bound.output)
        if batch is None or batch.ndim == 0 or len(batch) < stop - start:
            raise RuntimeFailed(
                f"The output {bound.output!r} does not have one row for each sample.", hint="Name another output."
            )
        batch = batch[: stop - start]
        if batch.dtype.kind == "f" and np.isnan(batch).any():
            raise RuntimeFailed(f"The output {bound.output!r} is not a number (NaN) in rows {start} to {stop}.")
        tell("evaluating", stop, len(bound), message)
        yield batch
