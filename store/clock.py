"""Database time: leases are judged by one clock, whichever host looks at it.

Instants are kept as seconds since 1970 (UTC) in double precision, which SQLite and PostgreSQL compare and add alike.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Dialect, Double, Float, TypeDecorator
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement


class Instant(TypeDecorator[datetime]):
    """A moment, as an aware datetime in Python."""

    impl = Double
    cache_ok = True

    def process_bind_param(self, value: datetime | float | None, dialect: Dialect) -> float | None:
        """Seconds since 1970."""
        return value.timestamp() if isinstance(value, datetime) else value

    def process_result_value(self, value: float | None, dialect: Dialect) -> datetime | None:
        """An aware datetime in UTC."""
        return None if value is None else datetime.fromtimestamp(value, UTC)


class db_now(FunctionElement[float]):  # noqa: N801  (it reads as the SQL function that it is)
    """The database's present time, in seconds since 1970; unlike ``now()`` it goes on within a transaction."""

    type = Float()
    inherit_cache = True


@compiles(db_now, "sqlite")
def _sqlite(_element: db_now, _compiler: SQLCompiler, **_: object) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_now, "postgresql")
def _postgresql(_element: db_now, _compiler: SQLCompiler, **_: object) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


def iso(seconds: float | None) -> str | None:
    """A moment as RFC 3339 in UTC, to the millisecond."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
