"""Rows to work with."""

from __future__ import annotations

import hashlib
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.orm import Session

from accel.data.spec import DatasetSpec
from accel.report import (
    ColumnSummary,
    Comparison,
    CompressReport,
    DatasetSummary,
    Environment,
    EvaluatedModel,
    EvaluateReport,
    ModelSummary,
)
from store import datasets, jobs, models
from store.clock import db_now
from store.database import Database
from store.ids import new_id
from store.job_files import JobFile
from store.leases import Lease, NewModel, Results, claim, finish
from store.specs import JobSpec, adapter
from store.tables import JobRow

SUMMARY = ModelSummary(
    inputs=(), outputs=(), opset={"ai.onnx": 17}, operators={"Relu": 1}, parameters=10, macs=5, quantized=False
)
DATASET = DatasetSummary(
    columns=(ColumnSummary(name="x", dtype="float32", shape=(2,)),),
    splits={"test": 3},
    task=None,
    target=None,
    classes=None,
)
ENVIRONMENT = Environment(
    cpu="c", cpu_features=(), cores=2, memory_bytes=1, platform="p", python="3", libraries={}, load_before=None
)
COMPARISON = Comparison(
    runtime="onnxruntime:cpu",
    inputs="random",
    samples=1,
    size_ratio=1.0,
    max_abs_difference=0.0,
    snr_db=None,
)
REPORT = CompressReport(steps=(), comparison=COMPARISON, environment=ENVIRONMENT)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def a_model(database: Database, name: str = "m") -> UUID:
    with database.write() as session:
        model, _ = models.register(session, name=name, sha256=sha(name), size_bytes=100, summary=SUMMARY)
    return model.id


def a_dataset(database: Database, name: str = "d", summary: DatasetSummary = DATASET) -> UUID:
    with database.write() as session:
        kept, _ = datasets.register(
            session, name=name, sha256=sha(name), size_bytes=7, spec=DatasetSpec(), summary=summary
        )
    return kept.id


def compress(model_id: UUID, **more: object) -> JobSpec:
    steps = [{"technique": "optimize_graph"}]
    return adapter.validate_python({"kind": "compress", "model_id": model_id, "steps": steps, **more})


def a_job(database: Database, spec: JobSpec | None = None, *, max_attempts: int = 3) -> UUID:
    with database.write() as session:
        job, _ = jobs.submit(session, spec or compress(_some_model(session)), max_attempts=max_attempts)
    return job.id


def _some_model(session: Session) -> UUID:
    model, _ = models.register(session, name="m", sha256=sha("m"), size_bytes=100, summary=SUMMARY)
    return model.id


def claimed(database: Database, job_id: UUID, lease_s: float = 60) -> Lease:
    with database.write() as session:
        lease = claim(session, job_id, worker_id=new_id(), lease_s=lease_s)
    assert lease is not None
    return lease


def results(parent_id: UUID, *, count: int = 1) -> Results:
    made, parent = [], parent_id
    for number in range(count):
        identity = new_id()
        made.append(
            NewModel(
                id=identity,
                parent_id=parent,
                name=f"r{number}",
                sha256=sha(str(identity)),
                size_bytes=9,
                summary=SUMMARY,
            )
        )
        parent = identity
    return Results(report=REPORT, models=tuple(made))


def evaluated(database: Database, spec: JobSpec, *, failed: tuple[UUID, ...] = ()) -> UUID:
    """A finished evaluation whose predictions are kept; some of its models may have failed.

    The content of each file is told by its job and model: ``sha(f"{job_id} {model_id}")``.
    """
    assert spec.kind == "evaluate"
    job_id = a_job(database, spec)
    model_ids = spec.model_ids if spec.baseline_id in (None, *spec.model_ids) else (spec.baseline_id, *spec.model_ids)
    models_, files = [], []
    for model_id in model_ids:
        name = None if model_id in failed else f"predictions-{model_id}.npz"
        models_.append(
            EvaluatedModel(model_id=str(model_id), runtime=spec.runtime, samples=3, metrics={}, predictions=name)
        )
        if name is not None:
            files.append(JobFile(name, "application/x-npz", sha(f"{job_id} {model_id}"), 5))
    base = str(spec.baseline_id or model_ids[0])
    report = EvaluateReport(split=spec.split, baseline_id=base, models=tuple(models_), environment=ENVIRONMENT)
    lease = claimed(database, job_id)
    with database.write() as session:
        finish(session, lease, Results(report, files=tuple(files)))
    return job_id


def lapse(database: Database, job_id: UUID) -> None:
    """Let a lease end now."""
    with database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(lease_until=db_now() - 1))
