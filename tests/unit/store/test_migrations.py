from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import inspect, select

from store import migrate, workers
from store.clock import db_now
from store.database import Database
from store.tables import Table
from tests.databases import KINDS, fresh_url
from tests.rows import a_model

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
