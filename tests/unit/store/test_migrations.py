from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import Uuid, bindparam, inspect, select, text

from store import migrate, workers
from store.clock import db_now
from store.database import Database
from store.ids import new_id
from store.tables import EvaluationRow, MeasurementRow, Table
from tests.databases import KINDS, fresh_url
from tests.rows import a_job, a_model, compress

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("kind", KINDS)
def test_up_down_and_up_again(kind: str, tmp_path: Path) -> None:
    database = Database(fresh_url(kind, tmp_path))
    migrate.upgrade(database)
    migrate.check(database)
    assert set(Table.metadata.tables) < set(inspect(database.engine).get_table_names())
    migrate.downgrade(database, "-1")
    migrate.upgrade(database)
    migrate.upgrade(database)
    a_model(database)
    database.dispose()


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_measured_stays_when_the_tables_change(kind: str, tmp_path: Path) -> None:
    database = Database(fresh_url(kind, tmp_path))
    migrate.upgrade(database, "0001")
    model_id = a_model(database)
    job_id = a_job(database, compress(model_id))
    told = {"job": job_id, "model": model_id, "id": new_id()}
    common = "id, job_id, model_id, baseline_id, runtime, result, created_at"
    places = [bindparam(name, type_=Uuid()) for name in told]
    with database.write() as session:
        for table, columns, values in (
            ("measurements", "batch_size, threads, samples", "1, 2, '{}'"),
            ("evaluations", "dataset_id, split", ":model, 'test'"),
        ):
            insertion = (
                f"INSERT INTO {table} ({common}, {columns}) VALUES (:id, :job, :model, :model, 'r', 'x', 1, {values})"  # noqa: S608
            )
            session.execute(text(insertion).bindparams(*places), told)
    migrate.upgrade(database)
    with database.read() as session:
        measured = session.scalars(select(MeasurementRow)).one()
        evaluated = session.scalars(select(EvaluationRow)).one()
    assert (measured.scenario, measured.instances, measured.threads, measured.result) == ("single_stream", 1, 2, "x")
    assert (evaluated.question, evaluated.predictions_sha256, evaluated.split) == ("", None, "test")
    migrate.downgrade(database, "0001")
    with database.read() as session:
        assert session.execute(text("SELECT samples, threads FROM measurements")).one()[1] == 2
        assert session.execute(text("SELECT split FROM evaluations")).scalar() == "test"
    migrate.upgrade(database)
    migrate.check(database)
    database.dispose()


@pytest.mark.parametrize("kind", KINDS)
def test_several_may_migrate_at_once(kind: str, tmp_path: Path) -> None:
    environment = {**os.environ, "ACCEL_DATABASE_URL": fresh_url(kind, tmp_path)}
    command = [sys.executable, "-m", "store.migrate"]
    started = [subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(3)]
    ends = [(process.communicate()[1], process.returncode) for process in started]
    assert [code for _, code in ends] == [0, 0, 0], ends


def test_database_time_is_the_time(database: Database) -> None:
    with database.read() as session:
        assert abs((session.scalar(select(db_now())) or 0) - time.time()) < 5
        assert workers.live(session) == []
