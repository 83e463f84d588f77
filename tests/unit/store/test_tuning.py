"""Which splits choices about a model were made by."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import update

from accel.report import SplitsUsed, StepReport
from store import leases
from store.database import Database
from store.leases import Results
from store.tables import JobRow
from store.tuning import tuned_on
from tests.rows import COMPARISON, REPORT, a_dataset, a_job, a_model, claimed, compress, results

CHOOSING = {"technique": "mixed_precision"}
FIXED = {"technique": "quantize_static", "calibration": "minmax"}


def made(
    database: Database, parent_id: UUID, steps: list[dict[str, Any]], *, split: str | None, **more: Any
) -> list[UUID]:
    """Models that a compress job made, one a step."""
    job_id = a_job(database, compress(parent_id, steps=steps, **more))
    new, lease = results(parent_id, count=len(steps)), claimed(database, job_id)
    told = tuple(
        StepReport(
            technique=step["technique"], parameters={}, model_id=str(model.id), parent_id=str(model.parent_id),
            size_bytes=1, seconds=0.1, peak_memory_bytes=1, comparison=COMPARISON,
        )
        for step, model in zip(steps, new.models, strict=True)
    )  # fmt: skip
    splits = SplitsUsed(calibrated_on="train", chosen_by=split, judged_on="test")
    report = REPORT.model_copy(update={"steps": told, "splits": splits})
    with database.write() as session:
        leases.finish(session, lease, Results(report, models=new.models))
    return [model.id for model in new.models]


def tuned(database: Database, model_id: UUID, dataset_id: UUID) -> tuple[str, ...]:
    with database.read() as session:
        return tuned_on(session, [model_id], dataset_id)[model_id]


def test_choices_are_inherited_and_nothing_else_is(database: Database) -> None:
    upload, data, other = a_model(database), a_dataset(database), a_dataset(database, "other")
    plain, chosen, after = made(
        database, upload, [{"technique": "optimize_graph"}, CHOOSING, FIXED], split="validation", dataset_id=data
    )
    assert tuned(database, upload, data) == tuned(database, plain, data) == ()
    assert tuned(database, chosen, data) == tuned(database, after, data) == ("validation",)
    assert tuned(database, after, other) == ()
    (twice,) = made(database, after, [CHOOSING], split="train", dataset_id=data)
    assert tuned(database, twice, data) == ("train", "validation")
    (unchosen,) = made(database, upload, [FIXED], split=None, dataset_id=data)
    assert tuned(database, unchosen, data) == ()


def test_a_report_that_nobody_can_read_says_nothing(database: Database) -> None:
    upload, data = a_model(database), a_dataset(database)
    (model_id,) = made(database, upload, [CHOOSING], split="train", dataset_id=data)
    with database.write() as session:
        session.execute(update(JobRow).values(report='{"steps": 3}'))
    assert tuned(database, model_id, data) == ()
