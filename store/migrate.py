"""Bring the database to the present layout: ``python -m store.migrate``. Safe when several start at once."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, make_url, text

import migrations
from store.database import Database
from store.settings import StoreSettings

_LOCK = 0x61636365  # any number that nobody else locks by


def upgrade(database: Database, revision: str = "head") -> None:
    """Apply what is missing."""
    with _alone(database) as connection:
        command.upgrade(_config(connection), revision)


def downgrade(database: Database, revision: str) -> None:
    """Undo down to a revision."""
    with _alone(database) as connection:
        command.downgrade(_config(connection), revision)


def check(database: Database) -> None:
    """Raise when the tables in the code differ from what the migrations make."""
    with _alone(database) as connection:
        command.check(_config(connection))


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["connection"] = connection
    return config


@contextmanager
def _alone(database: Database) -> Iterator[Connection]:
    """A connection in a transaction, while nobody else migrates."""
    url = make_url(database.url)
    if url.get_backend_name() == "sqlite":
        with Path(f"{url.database}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with database.engine.connect().execution_options(accel_write=True) as connection, connection.begin():
                yield connection
        return
    with database.engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        yield connection


def main() -> None:
    """Migrate the database of the environment."""
    database = Database(StoreSettings().database_url)
    upgrade(database)
    database.dispose()


if __name__ == "__main__":
    main()
