"""From what a caller asked for to what the engine is asked: ids become files."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never
from uuid import UUID

from sqlalchemy.orm import Session

from accel.request import BenchmarkRequest, CompressRequest, DatasetFile, EvaluateRequest, ModelFile, TrainRequest
from accel.sandbox import Limits
from accel.training.distillation import Distillation
from store import checkpoints, datasets, models
from store.errors import DigestMismatch, NotFound
from store.evaluations import kept_predictions, question
from store.files import Files
from store.ids import new_id
from store.leases import Lease
from store.specs import BenchmarkSpec, CompressSpec, EvaluateSpec, TrainSpec
from store.tuning import tuned_on

WorkRequest = CompressRequest | EvaluateRequest | BenchmarkRequest | TrainRequest


def prepare(lease: Lease, session: Session, files: Files, folder: Path, limits: Limits) -> WorkRequest:
    """Make the engine's request.

    Args:
        lease: What was asked for, and at which attempt this is.
        session: A reading transaction.
        files: Where the files are.
        folder: The run's own folder; files that are not on this host are copied to it, the engine gets ``work`` in it.
        limits: What the engine may take.

    Raises:
        NotFound: A model or dataset, or its file, is gone.
    """
    workspace, inputs = folder / "work", folder / "inputs"
    workspace.mkdir()
    inputs.mkdir()

    def model(model_id: UUID) -> ModelFile:
        return _model(model_id, session, files, inputs)

    def dataset(dataset_id: UUID) -> DatasetFile:
        kept = datasets.get(session, dataset_id)
        return DatasetFile(path=files.fetch(kept.sha256, inputs / f"{dataset_id}.data"), spec=kept.spec)

    match spec := lease.spec:
        case CompressSpec():
            return CompressRequest(
                workspace=workspace,
                limits=limits,
                seed=spec.seed,
                model=model(spec.model_id),
                dataset=dataset(spec.dataset_id) if spec.dataset_id else None,
                binding=spec.binding,
                steps=spec.steps,
                result_ids=tuple(str(new_id()) for _ in spec.steps),
                contract=spec.contract,
                runtime=spec.runtime,
            )
        case EvaluateSpec():
            return EvaluateRequest(
                workspace=workspace,
                limits=limits,
                seed=spec.seed,
                models=_evaluated(spec, session, files, inputs),
                baseline_id=str(spec.baseline_id or spec.model_ids[0]),
                dataset=dataset(spec.dataset_id),
                split=spec.split,
                binding=spec.binding,
                metrics=spec.metrics,
                runtime=spec.runtime,
                batch_size=spec.batch_size,
                contract=spec.contract,
                corruptions=spec.corruptions,
            )
        case BenchmarkSpec():
            return BenchmarkRequest(
                workspace=workspace,
                limits=limits,
                seed=spec.seed,
                models=tuple(map(model, spec.model_ids)),
                baseline_id=str(spec.baseline_id or spec.model_ids[0]),
                runtimes=spec.runtimes,
                batch_sizes=spec.batch_sizes,
                threads=spec.threads,
                scenario=spec.scenario,
                instances=spec.instances,
                streams=spec.streams,
                bound_ms=spec.bound_ms,
                precision=spec.precision,
                budget_seconds=spec.budget_seconds,
                starts=spec.starts,
                rounds=spec.rounds,
                seconds_per_round=spec.seconds_per_round,
                shapes=spec.shapes,
                profile=spec.profile,
                preflight=spec.preflight,
            )
        case TrainSpec():
            kept = checkpoints.latest(session, lease.job_id)
            return TrainRequest(
                workspace=workspace,
                limits=limits,
                seed=spec.seed,
                model=model(spec.model_id) if spec.model_id else None,
                architecture=spec.architecture,
                dataset=dataset(spec.dataset_id),
                split=spec.split,
                binding=spec.binding,
                task=spec.task,
                settings=spec.settings,
                optimizer=spec.optimizer,
                schedule=spec.schedule,
                loss=spec.loss,
                augmentation=spec.augmentation,
                teacher=model(spec.teacher_id) if spec.teacher_id else None,
                distillation=spec.distillation or (Distillation() if spec.teacher_id else None),
                metric=spec.metric,
                target=spec.target,
                frozen=spec.frozen,
                result_id=str(new_id()),
                checkpoint=None if kept is None else files.fetch(kept, inputs / "checkpoint"),
            )
        case _:
            assert_never(spec)


def _model(model_id: UUID, session: Session, files: Files, inputs: Path) -> ModelFile:
    sha256 = models.get(session, model_id).sha256
    return ModelFile(model_id=str(model_id), path=files.fetch(sha256, inputs / f"{model_id}.onnx"))


def _evaluated(spec: EvaluateSpec, session: Session, files: Files, inputs: Path) -> tuple[ModelFile, ...]:
    """The models of an evaluation, the baseline among them, with what is known of each from earlier jobs."""
    model_ids = spec.model_ids
    if spec.baseline_id is not None and spec.baseline_id not in model_ids:
        model_ids = (spec.baseline_id, *model_ids)
    kept = kept_predictions(session, question(session, spec), model_ids) if spec.reuse else {}
    tuned = tuned_on(session, model_ids, spec.dataset_id)
    found = []
    for model_id in model_ids:
        predictions = None
        if model_id in kept:
            try:
                predictions = files.fetch(kept[model_id], inputs / f"{model_id}.predictions")
            except (NotFound, DigestMismatch):  # then the model is run again
                predictions = None
        known = {"predictions": predictions, "tuned_on": tuned[model_id]}
        found.append(_model(model_id, session, files, inputs).model_copy(update=known))
    return tuple(found)
