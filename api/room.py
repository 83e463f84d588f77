"""What handlers work with, made once for the process."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request

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
