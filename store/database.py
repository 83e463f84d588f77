"""Connections and transactions, the same on SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    import sqlite3

_BUSY_S = 30


class Database:
    """A database by its URL. Nobody outside ``read`` and ``write`` begins or commits."""

    def __init__(self, url: str) -> None:
        self.url = url
        sqlite = make_url(url).get_backend_name() == "sqlite"
        self.engine = _sqlite(url) if sqlite else _postgresql(url)
        # SQLite has one writer at a time, and those who find it busy sleep and ask again: threads queue up instead.
        self._turn: AbstractContextManager[object] = threading.Lock() if sqlite else nullcontext()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction that only reads."""
        with self.engine.connect() as connection, Session(connection, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that may write: committed at the end, rolled back when an error passes through.

        On SQLite it takes the write lock at once: a read transaction that turns into a writing one fails when
        somebody else has written in between, whatever the busy timeout.
        """
        with (
            self._turn,
            self.engine.connect().execution_options(accel_write=True) as connection,
            connection.begin(),
            Session(connection, expire_on_commit=False) as session,
        ):
            yield session
            session.flush()

    def dispose(self) -> None:
        """Close every connection; a process that forks does so before."""
        self.engine.dispose()


def _postgresql(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    return create_engine(parsed, pool_pre_ping=True, pool_size=20, max_overflow=20)


def _sqlite(url: str) -> Engine:
    path = make_url(url).database
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"timeout": _BUSY_S, "check_same_thread": False}, pool_size=64)

    @event.listens_for(engine, "connect")
    def _open(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # transactions begin where this file says, not where the driver guesses
        # WAL lets readers go on while one writes; FULL survives a power cut: a 202 that was sent stays true.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={_BUSY_S * 1000}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("accel_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
