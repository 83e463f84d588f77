"""The application: ``python -m uvicorn --factory api.main:create_app``."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final
from uuid import UUID

import anyio.to_thread
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.staticfiles import StaticFiles

from api import inspect, openapi, problems
from api.edge import Edge
from api.metrics import Metrics
from api.room import Room
from api.routes import catalogue, compare, datasets, docs, health, jobs, models
from api.settings import ApiSettings
from api.watch import Watch
from store import jobs as kept_jobs
from store import logs
from store.broker import CeleryPublisher
from store.database import Database
from store.dispatch import Dispatcher
from store.files import Files
from store.settings import StoreSettings

_STATIC: Final = Path(__file__).parent / "static"
_STOPPING: Final = (signal.SIGINT, signal.SIGTERM)
_ROUTERS: Final = tuple(part.router for part in (models, datasets, jobs, compare, catalogue, health, docs))


def routed() -> FastAPI:
    """The routes alone, without anything behind them: enough to describe the API."""
    app = FastAPI(title=openapi.TITLE, version=openapi.VERSION, openapi_url=None, docs_url=None, redoc_url=None)
    for router in _ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=_STATIC), name="static")
    return app


def create_app(settings: ApiSettings | None = None, store: StoreSettings | None = None) -> FastAPI:
    """The whole application. Settings that are left out come from the environment."""
    settings = settings or ApiSettings()
    store = store or StoreSettings()
    logs.configure()
    app = routed()
    metrics = Metrics()
    app.state.settings = settings
    app.state.routes = tuple(route for router in _ROUTERS for route in router.routes if isinstance(route, APIRoute))
    problems.install(app)
    app.add_middleware(Edge, metrics=metrics, access_log=settings.access_log)
    app.router.lifespan_context = _lifespan(settings, store, metrics)
    return app


def _lifespan(
    settings: ApiSettings, store: StoreSettings, metrics: Metrics
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = settings.threads
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(settings.threads, thread_name_prefix="api"))
        database = Database(store.database_url)
        files = Files(store.files_url, spool_dir=store.spool_dir)
        publisher = CeleryPublisher(store.broker_url)
        dispatcher = Dispatcher(
            database, publisher, window=store.dispatch_window, retry_after_s=store.dispatch_retry_seconds
        )

        def versions(job_ids: Collection[UUID]) -> Mapping[UUID, int]:
            with database.read() as session:
                return kept_jobs.versions(session, job_ids)

        readers = ThreadPoolExecutor(settings.reader_threads, thread_name_prefix="reader")
        watch = Watch(versions, tick_s=settings.watch_tick_s)
        app.state.room = Room(
            settings=settings,
            store=store,
            database=database,
            files=files,
            publisher=publisher,
            dispatcher=dispatcher,
            watch=watch,
            metrics=metrics,
            inspecting=asyncio.Semaphore(settings.inspect_concurrency),
            readers=readers,
        )
        inspect.sweep(files.spool_dir)
        with _dispatching(dispatcher, on=settings.dispatch_in_api), _waking(watch, loop):
            yield
        await watch.stopped()
        readers.shutdown()
        publisher.close()
        database.dispose()

    return lifespan


@contextmanager
def _dispatching(dispatcher: Dispatcher, *, on: bool) -> Iterator[None]:
    if not on:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=dispatcher.run, args=(stop,), name="dispatcher", daemon=True)
    thread.start()
    dispatcher.poke()
    try:
        yield
    finally:
        stop.set()
        dispatcher.poke()
        thread.join(timeout=10)


@contextmanager
def _waking(watch: Watch, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Send waiting clients away at the signal to stop: the server waits for its connections before it tells the app."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _STOPPING}

    def stop(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(watch.close)
        following = before[signal.Signals(number)]
        if callable(following):
            following(number, frame)

    for number, following in before.items():
        if callable(following):
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, following in before.items():
            if signal.getsignal(number) is stop:
                signal.signal(number, following)
