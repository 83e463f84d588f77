"""Alembic's way in: ``store.migrate`` hands over a connection; by hand, the environment's database is used."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from store.database import Database
from store.settings import StoreSettings
from store.tables import Table


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Table.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    with Database(StoreSettings().database_url).engine.begin() as opened:
        _run(opened)
