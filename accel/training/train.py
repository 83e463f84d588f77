"""One training job, from the request to the model's file and the report."""

from __future__ import annotations

import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from accel.benchmark.environment import environment
from accel.context import Tell
from accel.data.bind import Bound
from accel.errors import AccelError, ResultBroken
from accel.evaluation import metrics
from accel.evaluation.trial import Trial, Watched
from accel.evaluation.undefined import undefined
from accel.events import ResultFile
from accel.graph.inspect import summarize
from accel.graph.load import load_proto, save
from accel.report import Estimate
from accel.report.training import EpochPoint, TrainReport
from accel.request.training import TrainRequest
from accel.training import checkpoint
from accel.training.assemble import Assembled, assemble
from accel.training.compare_runs import time_to
from accel.training.fit import Diverged, Fitted, Hooks
from accel.training.judging import as_array
from accel.training.loop import fit
from accel.training.objective import as_tensors
from accel.training.trained import Trained

_RUNTIME = "onnxruntime:cpu"
_COMPARED = 32
"""Rows that a result's outputs are compared on, number by number."""
_FAR = 1e-3
"""Difference between two runtimes, as a share of the largest output, from which it is worth a remark."""
_UNJUDGED = 256
"""Rows that a result is run on where nothing was held out."""


def train(
    request: TrainRequest,
    tell: Tell,
    *,
    on_epoch: Callable[[EpochPoint], None] = lambda _: None,
    on_checkpoint: Callable[[Path], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Trained:
    """Train a model, and prove the result in ONNX Runtime.

    Args:
        request: What is asked.
        tell: Called with the steps that are done.
        on_epoch: Called at the end of each epoch.
        on_checkpoint: Called when the state is whole in a file of the workspace, which is replaced by renaming alone.
        cancelled: Asked between steps; what was best until then becomes the model.

    Raises:
        Diverged: The loss became no finite number; its ``files`` have the best model of before.
        EngineFailed: One of several processes answered that it cannot be done.
        AccelError: It cannot be done; the class says why.
    """
    hooks = Hooks(tell=tell, on_epoch=on_epoch, on_checkpoint=on_checkpoint, cancelled=cancelled)
    if request.together:
        from accel.training.processes import launch

        return launch(request, hooks)
    return train_here(request, hooks)


def train_here(request: TrainRequest, hooks: Hooks) -> Trained:
    """Train in this process, which may be one of several that torchrun started."""
    workspace = request.workspace.resolve()
    hooks.tell("loading", 0, None, "")
    resumed = None if request.checkpoint is None else checkpoint.read(request.checkpoint)
    assembled = assemble(request, workspace, hooks, resumed)
    try:
        fitted = fit(assembled.fit, resumed, finish=request.finish)
    except Diverged as error:
        if error.best:
            error.files = (_written(request, assembled, workspace),)
        raise
    hooks.tell("proving", 0, None, "")
    file = _written(request, assembled, workspace)
    return Trained(report=_report(request, assembled, fitted, file.path, hooks), files=(file,))


def _written(request: TrainRequest, assembled: Assembled, workspace: Path) -> ResultFile:
    """Write the learner's weights into the graph, and the graph into a file."""
    made = assembled.fit
    made.learner.graph.write_back()
    # Other processes of this host write the same, each to a file of its own.
    own = "" if made.devices.tells else f".{made.devices.local.rank}"
    path = workspace / f"{request.result_id}{own}.onnx"
    save(assembled.start.model, path)
    parent = None if request.model is None else request.model.model_id
    return ResultFile(model_id=request.result_id, path=path, parent_id=parent, summary=summarize(load_proto(path)))


def _report(request: TrainRequest, assembled: Assembled, fitted: Fitted, result: Path, hooks: Hooks) -> TrainReport:
    made, begun, head = assembled.fit, assembled.start, fitted.header
    judge, layout = made.judge, made.stream.layout
    value, difference, notes = _proved(assembled, result, request.settings.seed, hooks)
    epochs = max(head.epoch + head.rows / layout.rows, head.curve[-1].epochs if head.curve else 0.0)
    if fitted.stopped_because == "budget":
        notes = (
            *notes,
            f"The time was up after {epochs:.3g} of {request.settings.epochs} epochs, and the schedule was made for all of them.",
        )
    validation = begun.parts.validation
    return TrainReport(
        model_id=request.result_id,
        parent_id=None if request.model is None else request.model.model_id,
        task=begun.task,
        binding=begun.binding,
        trained_on=request.split,
        validated_on=begun.parts.validated_on,
        train_rows=len(begun.parts.train),
        validation_rows=0 if validation is None else len(validation),
        parameters_trained=made.learner.count(),
        curve=head.curve,
        best_epochs=None if judge is None or head.best is None else head.best.epochs,
        stopped_because=fitted.stopped_because,
        epochs=epochs,
        steps=head.epoch * layout.steps + head.step,
        seconds=head.seconds,
        samples_per_second=head.rows_total / head.training_seconds if head.training_seconds > 0 else None,
        metric=None if judge is None else judge.metric,
        value=value,
        started_from=head.curve[0].metric if head.curve and judge is not None else None,
        target=None if judge is None or made.target is None else time_to(head.curve, made.target),
        distilled=assembled.distilled,
        max_abs_difference=difference,
        size_bytes=result.stat().st_size,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        processes=made.devices.part.of,
        attempts=head.attempts,
        settings=request.model_dump(
            mode="json",
            include={
                "split",
                "architecture",
                "settings",
                "optimizer",
                "schedule",
                "loss",
                "augmentation",
                "distillation",
                "frozen",
            },
        ),
        environment=environment(),
        notes=(*assembled.notes, *notes),
    )


def _proved(
    assembled: Assembled, result: Path, seed: int, hooks: Hooks
) -> tuple[Estimate | None, float | None, tuple[str, ...]]:
    """Load the result again and run it: its metric, how far it is from what was trained, and remarks.

    Raises:
        ResultBroken: It does not run, or gives what is not finite.
    """
    judge = assembled.fit.judge
    bound = assembled.start.parts.train.draw(_UNJUDGED, seed) if judge is None else judge.bound
    trial = Trial(_RUNTIME, seed, hooks.tell, bound, truth=None if judge is None else judge.truth)
    try:
        quantized = summarize(load_proto(result)).quantized
        found = trial.watch(result)
        # Where this processor lets sums of 8 bits saturate, that is no fault of what was trained.
        few = replace(trial, bound=bound.select(np.arange(min(_COMPARED, len(bound)))), truth=None)
        exact = few.watch(result, exact=True) if quantized else found
    except AccelError as error:
        raise ResultBroken(
            f"What training made does not run in {_RUNTIME}: {error.message}",
            hint="The original is untouched, and the checkpoint has the weights.",
        ) from error
    difference, scale = _difference(assembled, bound, exact)
    notes: tuple[str, ...] = ()
    if difference is not None and difference > _FAR * scale:
        notes = (f"The result in {_RUNTIME} differs by up to {difference:.3g} from what was trained.",)
    if judge is None or found.predictions is None or judge.truth.labels is None:
        return None, difference, notes
    said, labels = found.predictions, judge.truth.labels
    if undefined(judge.metric, said, labels):
        return None, difference, notes
    return metrics.estimate(judge.metric, said, labels, seed=seed, groups=judge.truth.groups), difference, notes


def _difference(assembled: Assembled, bound: Bound, found: Watched) -> tuple[float | None, float]:
    """Largest difference of the output between PyTorch and the runtime, and its largest number.

    Raises:
        ResultBroken: The output is not finite.
    """
    made = assembled.fit
    theirs = found.outputs.get(bound.output)
    if theirs is None or theirs.dtype.kind != "f":
        return None, 1.0
    rows = min(_COMPARED, len(bound), bound.fixed_batch or _COMPARED)
    with torch.no_grad():
        values = made.learner.graph(as_tensors(bound.feed(0, rows), made.devices.device))
    ours = bound.answer({bound.output: as_array(values[bound.output])}, rows)
    theirs = theirs[:rows]
    if (~np.isfinite(theirs) & np.isfinite(ours)).any():
        raise ResultBroken(f"What training made gives values at {bound.output!r} that are not finite.")
    both = np.isfinite(theirs) & np.isfinite(ours)
    difference = np.abs(ours[both].astype(np.float64) - theirs[both].astype(np.float64))
    return float(difference.max(initial=0)), max(1.0, float(np.abs(theirs[both]).max(initial=0)))
