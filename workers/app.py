"""The Celery application: ``celery -A workers.app worker``. No result back end: a job's row is its result."""

from __future__ import annotations

import mmap
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from celery import Celery, signals
from sqlalchemy.orm import Session

import accel  # noqa: F401  (sets ORT_DISABLE_TELEMETRY before anything can import onnxruntime)
from accel.child import call
from accel.report import HostSummary
from accel.request import DescribeHostRequest
from accel.sandbox import die_with_parent
from store import logs, workers
from store.broker import TRANSPORT
from store.database import Database
from store.ids import new_id
from store.settings import StoreSettings
from workers.scratch import run_folder, sweep
from workers.settings import WorkerSettings

logs.configure()
log = structlog.get_logger(__name__)

BEAT_S = 5.0
_DESCRIBE_S = 120.0

worker_id = new_id()
"""Who this worker is; its pool processes are forked and share it."""
# A shared byte, not an Event: an Event has a lock, and a pool process that is killed while it looks would keep it for ever.
_stopping = mmap.mmap(-1, 1)
_main_pid = os.getpid()
_beating = threading.Event()

# A pool process that replaces a dead one is forked from here. If that happened while the beat has the database open, it
# would inherit SQLite's belief that this process holds a lock, and find the database locked for the rest of its life.
_no_fork = threading.Lock()
os.register_at_fork(before=_no_fork.acquire, after_in_parent=_no_fork.release, after_in_child=_no_fork.release)

app = Celery("accel", broker=StoreSettings().broker_url, include=["workers.tasks"])
app.conf.update(
    # A message is a doorbell: it is acknowledged at once, and the dispatcher rings again when it is lost. Late
    # acknowledgement would run long jobs again at the visibility timeout, and bring back the job that killed a worker.
    task_acks_late=False,
    worker_disable_prefetch=True,
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
    task_serializer="json",
    accept_content=["json"],
    worker_enable_remote_control=False,
    worker_hijack_root_logger=False,
    worker_concurrency=WorkerSettings().worker_concurrency,
    broker_connection_max_retries=None,
    broker_connection_retry_on_startup=True,
    broker_transport_options=TRANSPORT,
)


def stopping() -> bool:
    """Whether the worker was told to stop; its pool processes see it too."""
    return _stopping[0] == 1


@signals.worker_process_init.connect
def _begin_pool_process(**_: object) -> None:
    """A pool process dies with the worker: nobody would renew its leases' worker, and nobody could stop it."""
    die_with_parent(_main_pid)


@signals.worker_ready.connect
def _announce(sender: object, **_: object) -> None:
    """Say which queues this worker serves and what its host has, and go on saying that it is there."""
    queues = sorted(sender.app.amqp.queues.consume_from)  # type: ignore[attr-defined]  # the consumer, untyped
    threading.Thread(target=_beat, args=(queues,), daemon=True, name="beat").start()


def _beat(queues: list[str]) -> None:
    scratch_dir = WorkerSettings().scratch_dir
    summary: HostSummary | None = None
    announced = False
    wait_s = 0.0
    while not _beating.wait(wait_s):
        wait_s = BEAT_S
        try:
            if swept := sweep(scratch_dir):
                log.info("scratch_swept", folders=swept)
            summary = summary or describe_host(scratch_dir)
            with _writing() as session:
                if announced:
                    workers.beat(session, worker_id)
                else:
                    host, pid = socket.gethostname(), os.getpid()
                    workers.announce(session, worker_id, host=host, pid=pid, queues=queues, summary=summary)
            announced = True
        except Exception as error:  # noqa: BLE001  (the database may be away for a while; the next beat tells)
            log.warning("beat_failed", error=str(error)[:200])
    try:
        with _writing() as session:
            workers.retire(session, worker_id)
    except Exception as error:  # noqa: BLE001  (it will be forgotten when it is not seen for a while)
        log.warning("retire_failed", error=str(error)[:200])


@contextmanager
def _writing() -> Iterator[Session]:
    """A transaction during which nobody is forked, and of which nothing stays open."""
    with _no_fork:
        database = Database(StoreSettings().database_url)
        try:
            with database.write() as session:
                yield session
        finally:
            database.dispose()


def describe_host(scratch_dir: Path) -> HostSummary:
    """What this host has, found out by the engine."""
    with run_folder(scratch_dir) as folder:
        work = folder / "work"
        work.mkdir()
        report = call(DescribeHostRequest(workspace=work), timeout_s=_DESCRIBE_S).report
    if not isinstance(report, HostSummary):
        raise TypeError(f"the engine described its host by a report of {report.kind}")
    return report


@signals.worker_shutting_down.connect
def _stop(**_: object) -> None:
    """Let running jobs end within their grace; their supervisors give back what does not."""
    _stopping[0] = 1


@signals.worker_shutdown.connect
def _retire(**_: object) -> None:
    _beating.set()
    for thread in threading.enumerate():
        if thread.name == "beat":
            thread.join(timeout=5)
