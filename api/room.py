"""What handlers work with, made once for the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Header, Request
from sqlalchemy.orm import Session

from api.metrics import Metrics
from api.settings import ApiSettings
from api.watch import Watch
from store.broker import CeleryPublisher
from store.database import Database
from store.dispatch import Dispatcher
from store.files import Files
from store.settings import StoreSettings


@dataclass(frozen=True, slots=True)
class Room:
    """The store, the limits, and those who wait."""

    settings: ApiSettings
    store: StoreSettings
    database: Database
    files: Files
    publisher: CeleryPublisher
    dispatcher: Dispatcher
    watch: Watch
    metrics: Metrics
    inspecting: asyncio.Semaphore
    readers: ThreadPoolExecutor
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that may write; it is committed when the block ends, so before the caller is answered.

        SQLite has one writer at a time, and those who find it busy sleep and ask again: here they queue up instead.
        """
        turn = self._turn if self.database.engine.dialect.name == "sqlite" else nullcontext()
        with turn, self.database.write() as session:
            yield session


async def room_of(request: Request) -> Room:
    """The room that the application was started with."""
    room: Room = request.app.state.room
    return room


TheRoom = Annotated[Room, Depends(room_of)]

IdempotencyKeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Any text of your own. The same request sent again with the same key gives the same object.",
    ),
]
IfNoneMatchHeader = Annotated[
    str | None, Header(alias="If-None-Match", description="ETag that you have: 304 is answered while it is current.")
]
