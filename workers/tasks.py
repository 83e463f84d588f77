"""The one task: run a job."""

from __future__ import annotations

import functools
from uuid import UUID

import structlog

from store.broker import TASK, CeleryPublisher
from store.database import Database
from store.dispatch import Dispatcher
from store.files import Files
from store.settings import StoreSettings
from workers.app import app, stopping, worker_id
from workers.settings import WorkerSettings
from workers.supervise import Supervisor

log = structlog.get_logger(__name__)


@app.task(name=TASK)
def run_job(job_id: str) -> None:
    """Run a job, then announce the next. Nothing may reach Celery: a MemoryError there would end the whole worker."""
    try:
        _supervisor().run(UUID(job_id))
        _dispatcher().step()
    except BaseException as error:
        log.exception("run_failed", job_id=job_id, error=type(error).__name__)


@functools.cache
def _supervisor() -> Supervisor:
    """This pool process's own: connections are never shared across a fork."""
    settings = StoreSettings()
    return Supervisor(
        database=Database(settings.database_url),
        files=Files(settings.files_url, spool_dir=settings.spool_dir),
        settings=settings,
        worker=WorkerSettings(),
        worker_id=worker_id,
        stopping=stopping,
    )


@functools.cache
def _dispatcher() -> Dispatcher:
    settings = StoreSettings()
    return Dispatcher(
        _supervisor().database,
        CeleryPublisher(settings.broker_url),
        window=settings.dispatch_window,
        retry_after_s=settings.dispatch_retry_seconds,
    )
