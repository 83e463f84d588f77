"""Rows of models that jobs made and measured, as workers leave them."""

from __future__ import annotations

import json
from uuid import UUID

from sqlalchemy import update

from accel.report import BenchmarkReport, Environment, EvaluatedModel, EvaluateReport, Measurement
from store import leases
from store.database import Database
from store.evaluations import question
from store.ids import new_id
from store.specs import EvaluateSpec, adapter
from store.tables import EvaluationRow, JobRow, MeasurementRow
from tests import rows


def child(database: Database, parent_id: UUID, *steps: str) -> list[UUID]:
    """Models that a compress job made, one a step."""
    job_id = rows.a_job(database, rows.compress(parent_id))
    made, lease = rows.results(parent_id, count=len(steps)), rows.claimed(database, job_id)
    said = [
        {"model_id": str(model.id), "technique": step, "parameters": {"bits": 8}, "of_a_later_version": 1}
        for model, step in zip(made.models, steps, strict=True)
    ]
    with database.write() as session:
        leases.finish(session, lease, made)
        session.execute(update(JobRow).where(JobRow.id == job_id).values(report=json.dumps({"steps": said})))
    return [model.id for model in made.models]


def _job(database: Database, asked: dict[str, object], report: EvaluateReport | BenchmarkReport) -> UUID:
    job_id = rows.a_job(database, adapter.validate_python(asked))
    with database.write() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(report=report.model_dump_json()))
    return job_id


def measured(
    database: Database, found: dict[UUID, Measurement], environment: Environment, warnings: tuple[str, ...] = ()
) -> UUID:
    """A benchmark of models, the first of them the baseline."""
    ids = list(found)
    report = BenchmarkReport(
        baseline_id=str(ids[0]), reference_runtime="r", measurements=(), warnings=warnings, environment=environment
    )
    job_id = _job(database, {"kind": "benchmark", "model_ids": ids}, report)
    with database.write() as session:
        session.add_all(
            MeasurementRow(
                id=new_id(),
                job_id=job_id,
                model_id=model_id,
                baseline_id=ids[0],
                runtime=one.runtime,
                scenario=one.scenario,
                batch_size=one.batch_size,
                threads=one.threads,
                instances=one.instances,
                result=one.model_dump_json(),
            )
            for model_id, one in found.items()
        )
    return job_id


def evaluated(
    database: Database, found: dict[UUID, EvaluatedModel], environment: Environment, *, binding: object = None
) -> UUID:
    """An evaluation of models on the test split by one runtime, the first of them the baseline."""
    ids, runtime = list(found), next(iter(found.values())).runtime
    report = EvaluateReport(split="test", baseline_id=str(ids[0]), models=(), environment=environment)
    dataset_id = rows.a_dataset(database)
    asked = {"kind": "evaluate", "model_ids": ids, "dataset_id": dataset_id, "binding": binding, "runtime": runtime}
    job_id = _job(database, asked, report)
    spec = adapter.validate_python(asked)
    assert isinstance(spec, EvaluateSpec)
    with database.write() as session:
        session.add_all(
            EvaluationRow(
                id=new_id(),
                job_id=job_id,
                model_id=model_id,
                baseline_id=ids[0],
                dataset_id=dataset_id,
                split="test",
                runtime=runtime,
                question=question(session, spec),
                result=one.model_dump_json(),
            )
            for model_id, one in found.items()
        )
    return job_id
