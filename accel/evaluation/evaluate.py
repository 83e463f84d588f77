"""Evaluate models on one split of a dataset."""

from __future__ import annotations

import math
from dataclasses import replace

from accel.benchmark.environment import environment
from accel.context import Tell
from accel.data.bind import Bound
from accel.data.corrupted import corrupted
from accel.data.dataset import open_dataset
from accel.errors import AccelError, BadDataset, BindingMismatch
from accel.evaluation import metrics
from accel.evaluation.changes import absent_classes
from accel.evaluation.collecting import collector
from accel.evaluation.comparison import Ground, compare
from accel.evaluation.contract import Metric
from accel.evaluation.kept import MEDIA_TYPE, Form, KeptPredictions
from accel.evaluation.predict import Subject, first_answer, open_subject
from accel.evaluation.predictions import Classes, Predictions, Reading, kind_of
from accel.evaluation.robustness import Twice, robustness
from accel.evaluation.runs import Run, Work, earlier, run
from accel.evaluation.truth import Truth, check_metrics, labels_of, standard_metrics
from accel.evaluation.undefined import check_applies, undefined
from accel.events import Attachment, Done
from accel.report import Estimate, EvaluatedModel, EvaluateReport, Robustness
from accel.request import EvaluateRequest, ModelFile

_NO_LABELS = "The split has no labels: models are compared with the baseline's own predictions."


def evaluate(request: EvaluateRequest, tell: Tell) -> Done:
    """Measure the quality of each model, and compare each with the baseline on the same samples.

    What each model says is kept in a file beside the report. A model whose predictions are given is not run where they are
    what it would say here.

    Raises:
        AccelError: The baseline cannot be evaluated; another model that cannot is reported, and the rest go on.
    """
    request = request.model_copy(update={"workspace": request.workspace.resolve()})
    dataset = open_dataset(request.dataset.path, request.dataset.spec, request.workspace)
    work = Work(request, dataset, tell, environment())
    baseline = next(model for model in request.models if model.model_id == request.baseline_id)
    first, ground = _run_baseline(open_subject(baseline, dataset, request), work)
    found = {baseline.model_id: _evaluated(baseline, work, first, first, ground)}
    kept = [first.kept]
    for model in request.models:
        if model is baseline:
            continue
        try:
            subject = open_subject(model, dataset, request)
            other = run(subject, earlier(subject, work), ground.truth, work)
            found[model.model_id] = _evaluated(model, work, other, first, ground)
            kept.append(other.kept)
        except AccelError as error:
            found[model.model_id] = EvaluatedModel(
                model_id=model.model_id, runtime=request.runtime, samples=0, metrics={}, error=error.message
            )
    return Done(
        report=EvaluateReport(
            split=request.split,
            baseline_id=request.baseline_id,
            models=tuple(found[model.model_id] for model in request.models),
            notes=_notes(work, first.kept, ground.truth),
            environment=work.environment,
        ),
        attachments=tuple(Attachment(name=one.path.name, path=one.path, media_type=MEDIA_TYPE) for one in kept),
    )


def _notes(work: Work, baseline: KeptPredictions, truth: Truth) -> tuple[str, ...]:
    notes = list(work.dataset.summary.notes)
    if truth.labels is None:
        notes.append(_NO_LABELS)
    elif isinstance(truth.labels, Classes):
        classes = baseline.header.form.classes(truth.reading)
        absent = absent_classes(truth.labels, classes, work.request.split, work.dataset.summary.class_names)
        notes += [absent] if absent else []
    return tuple(notes)


def _run_baseline(subject: Subject, work: Work) -> tuple[Run, Ground]:
    """Run the baseline, and settle what everything is compared on.

    Raises:
        BindingMismatch: A metric, the labels or a corruption do not go with the model.
        LabelsOutOfRange: The labels are not the model's classes.
    """
    request, bound = work.request, subject.bound
    for corruption in request.corruptions:
        corrupted(bound, corruption, seed=request.seed)  # refused before anything is run
    before = earlier(subject, work)
    begun = () if before.kept is not None else first_answer(subject)
    form = before.kept.header.form if before.kept is not None else Form.of(begun[0])
    truth = _truth(bound, bound.decoder or _reading(work.dataset.summary.task, form), form, request)
    if begun:
        collected = collector(truth.reading, bound.output, scores=True)
        collected.add(*begun)
        truth.check(collected.predictions())
        _check_asked(request, collected.predictions())
    done = run(subject, before, truth, work)
    _check_asked(request, done.kept.said)
    # From here on the labels are those in the file, so that they take no memory.
    truth = replace(truth, labels=done.kept.labels, metrics=truth.metrics or _standard(truth, done.kept.said))
    ground = Ground(
        split=request.split,
        other_splits=tuple(name for name in work.dataset.splits if name != request.split),
        truth=truth,
        contract=request.contract,
        class_names=work.dataset.summary.class_names,
        seed=request.seed,
    )
    return done, ground


def _check_asked(request: EvaluateRequest, said: Predictions) -> None:
    """Refuse a metric that needs what the baseline does not give.

    Raises:
        BindingMismatch: Says what.
    """
    for metric in (*(request.metrics or ()), *((request.contract.metric,) if request.contract else ())):
        check_applies(metric, said)


def _truth(bound: Bound, reading: Reading, form: Form, request: EvaluateRequest) -> Truth:
    """The labels, and the metrics that are asked for.

    Raises:
        BadDataset: Labels are not finite, or tell nothing by a metric.
        BindingMismatch: A metric or the labels do not go with the output.
        LabelsOutOfRange: The labels are not the model's classes.
    """
    wanted = (request.contract.metric,) if request.contract else ()
    if bound.target is None:
        check_metrics(wanted, reading, None)
        if wanted and "agreement" in kind_of(reading).metrics and wanted != ("agreement",):
            raise BindingMismatch(
                f"A contract on {wanted[0]} needs labels, and the split {request.split!r} has no target.",
                hint='Name it: {"binding": {"target": "<column>"}}, or use the metric agreement.',
            )
        return Truth(None, (), reading, bound.groups())
    labels = labels_of(bound, reading, form.classes(reading))
    if len(labels.not_finite):
        raise BadDataset(
            f"The target is not finite for {len(labels.not_finite):,} of {len(labels):,} samples, the first of them in row "
            f"{labels.not_finite[0]:,} of {request.split!r}.",
            hint="Leave out rows whose target is no number.",
        )
    asked = request.metrics or ()
    check_metrics((*asked, *wanted), reading, labels)
    return Truth(labels, asked, reading, bound.groups())


def _reading(task: str | None, form: Form) -> Reading:
    """How an output is read that no decoder is named for: by the task, else by its shape."""
    classes = task == "classification" or (task is None and math.prod(form.shape) > 1 and form.floats)
    return "classes" if classes else "values"


def _standard(truth: Truth, said: Predictions) -> tuple[Metric, ...]:
    """What is measured where nothing is asked for; without labels, classes and what decoders read by the agreement."""
    if truth.labels is None and "agreement" in said.metrics:
        return ("agreement",)
    # Where what the baseline says is not finite there may be none; the first then stands for all, without a figure.
    return standard_metrics(truth.labels if truth.labels is not None else said, said) or said.metrics[:1]


def _evaluated(model: ModelFile, work: Work, done: Run, baseline: Run, ground: Ground) -> EvaluatedModel:
    said, before, warnings = done.kept.said, baseline.kept.said, list(done.warnings)
    if ground.split in model.tuned_on:
        warnings.append(
            f"This model was trained on the split {ground.split!r}, or chosen by it: its figures here may be too good."
        )
    estimates: dict[Metric, Estimate] = {}
    for metric in ground.metrics:
        against = ground.truth.against(metric, before)
        reason = undefined(metric, said, against)
        if reason is None:
            estimates[metric] = metrics.estimate(metric, said, against, seed=ground.seed, groups=ground.truth.groups)
        else:
            warnings.append(f"{metric} is no number on these samples: {reason}.")
    robust, failed = _robustness(work, done, baseline, ground)
    return EvaluatedModel(
        model_id=model.model_id,
        runtime=work.request.runtime,
        samples=len(said),
        metrics=estimates,
        not_finite=len(said.not_finite),
        against_baseline=None if done is baseline else compare(done.kept, baseline.kept, ground, model.tuned_on),
        robustness=robust,
        predictions=done.kept.path.name,
        reused=done.reused,
        warnings=(*warnings, *failed),
    )


def _robustness(work: Work, done: Run, baseline: Run, ground: Ground) -> tuple[tuple[Robustness, ...], tuple[str, ...]]:
    """One entry for each corruption that both the model and the baseline could be run on, and why others have none."""
    found, failed = [], []
    for corruption, said, before in zip(work.request.corruptions, done.corrupted, baseline.corrupted, strict=True):
        if said is None or before is None:
            continue
        theirs = Twice(baseline.kept.said, before)
        ours = theirs if done is baseline else Twice(done.kept.said, said)
        try:
            found.append(robustness(corruption, ground.metric, ours, theirs, ground.truth, seed=ground.seed))
        except (BadDataset, BindingMismatch) as error:
            failed.append(f"With {corruption.corruption} {corruption.severity}: {error.message}")
    return tuple(found), tuple(failed)
