"""One job from its claim to its stored result."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError

from accel.child import Child, answer, how_it_ended
from accel.errors import AccelError, EngineCrashed
from accel.events import Checkpoint, Failed, Progress
from accel.sandbox import Limits
from store import checkpoints, leases
from store.database import Database
from store.errors import Fenced, NoSpace, StoreError
from store.files import Files
from store.leases import Lease
from store.settings import StoreSettings
from store.specs import BenchmarkSpec
from store.values import JobProgress
from workers.host import host
from workers.prepare import WorkRequest, prepare
from workers.results import keep_files, keep_models, own_file
from workers.scratch import run_folder
from workers.settings import WorkerSettings

log = structlog.get_logger(__name__)

_LOOK_S = 0.2
"""How often the supervisor looks up from its child's events."""
_REPORT_S = 0.5
"""Progress is written at most so often; a new phase at once."""
_CANCEL_S = 1.0
"""A caller's wish to cancel is read at least so often."""
_LAST_WORD_S = 60.0
"""Time that work has to come to an end when it is cancelled and what there is of it is wanted."""


class _Stop(Exception):
    """The run ends early."""


class _Cancelled(_Stop):
    """The caller asked for it."""


class _Late(_Stop):
    """The deadline has passed."""


class _WorkerStops(_Stop):
    """The worker was told to stop."""


@dataclass(slots=True)
class _Watch:
    """Keeps the lease while the work goes on, passes on progress, and says when to stop."""

    database: Database
    lease: Lease
    settings: StoreSettings
    stopping: Callable[[], bool]
    grace_s: float
    progress: Progress = field(default_factory=lambda: Progress(phase="starting"))
    written: Progress | None = None
    renewed_at: float = field(default_factory=time.monotonic)
    stop_at: float | None = None
    come_to_end: Callable[[], None] | None = None
    """Asks the work to end with what it has; None where a cancelled job keeps nothing."""
    cancelled_at: float | None = None

    def look(self) -> None:
        """Renew and report where it is time to.

        Raises:
            _Stop: The run shall end.
            Fenced: The lease was lost.
        """
        now = time.monotonic()
        if self.stopping():
            self.stop_at = self.stop_at or now + self.grace_s
            if now >= self.stop_at:
                raise _WorkerStops
        since = now - self.renewed_at
        new_phase = self.written is None or self.progress.phase != self.written.phase
        news = self.progress != self.written and (new_phase or since >= _REPORT_S)
        if news or since >= min(_CANCEL_S, self.settings.lease_seconds / 6):
            self._renew(now, report=news)

    def _renew(self, now: float, *, report: bool) -> None:
        said = self.progress if report else None
        progress = None if said is None else JobProgress(said.done, said.total, said.message)
        try:
            with self.database.write() as session:
                renewal = leases.renew(
                    session,
                    self.lease,
                    lease_s=self.settings.lease_seconds,
                    phase=None if said is None else said.phase,
                    progress=progress,
                )
        except DBAPIError as error:
            # A database that is away for a moment is no reason to give up, one that outlasts the lease is.
            if now - self.renewed_at > self.settings.lease_seconds:
                raise Fenced(f"The lease on the job {self.lease.job_id} lapsed: the database is away.") from error
            log.warning("renewal_failed", error=str(error)[:200])
            return
        self.renewed_at = now
        self.written = said or self.written
        if renewal.cancel_requested:
            self._cancel(now)
        if renewal.late:
            raise _Late

    def _cancel(self, now: float) -> None:
        if self.come_to_end is None:
            raise _Cancelled
        if self.cancelled_at is None:
            self.cancelled_at = now
            self.come_to_end()
        elif now - self.cancelled_at > _LAST_WORD_S:
            raise _Cancelled


@dataclass(frozen=True, slots=True)
class Supervisor:
    """Runs jobs, one after the other, each in an engine process of its own."""

    database: Database
    files: Files
    settings: StoreSettings
    worker: WorkerSettings
    worker_id: UUID
    stopping: Callable[[], bool]

    def run(self, job_id: UUID) -> None:
        """Run a job, if it is still there to be run. Whatever happens, its row tells."""
        with self.database.write() as session:
            lease = leases.claim(session, job_id, worker_id=self.worker_id, lease_s=self.settings.lease_seconds)
        if lease is None:
            log.info("nothing_to_claim", job_id=str(job_id))
            return
        bound = {"job_id": str(job_id), "attempt": lease.attempt}
        log.info("claimed", **bound)
        try:
            self._attempt(lease)
        except Fenced:
            log.warning("fenced", **bound)
        log.info("left", **bound)

    def _attempt(self, lease: Lease) -> None:
        watch = _Watch(self.database, lease, self.settings, self.stopping, self.worker.shutdown_grace_seconds)
        try:
            self._work(lease, watch)
        except _Cancelled:
            with self.database.write() as session:
                leases.cancelled(session, lease)
        except _Late:
            seconds = lease.spec.deadline_seconds
            self._fail(
                lease,
                "deadline_exceeded",
                f"The job was not done within its deadline of {seconds} s.",
                "Give more deadline_seconds, or ask for less.",
            )
        except _WorkerStops:
            self._give_back(lease, "worker_stopped", "The worker was stopped", count_attempt=False)
        except EngineCrashed as error:
            self._give_back(lease, error.code, error.message.rstrip("."), count_attempt=True)
        except (AccelError, StoreError) as error:
            if isinstance(error, Fenced):
                raise
            self._fail(lease, error.code, error.message, error.hint)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                self._fail(
                    lease, NoSpace.code, "The worker's disk is full.", "Free some space on it, then retry the job."
                )
                return
            self._fail(lease, "worker_failed", f"The worker met an error: {error.strerror or error}", "See its log.")
            log.exception("worker_failed", job_id=str(lease.job_id))
        except Exception as error:
            self._fail(lease, "internal", f"The worker met an unforeseen {type(error).__name__}.", "See its log.")
            log.exception("internal", job_id=str(lease.job_id))

    def _work(self, lease: Lease, watch: _Watch) -> None:
        self.worker.scratch_dir.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.worker.scratch_dir).free
        if free < self.worker.min_free_bytes:
            raise NoSpace(
                f"The worker's disk has {free >> 20} MiB left, and {self.worker.min_free_bytes >> 20} are needed to begin.",
                hint="Free some space on the worker, then retry the job.",
            )
        # A preflight times nothing; but it works, so that it too waits for a benchmark to end.
        alone = isinstance(lease.spec, BenchmarkSpec) and not lease.spec.preflight
        with (
            run_folder(self.worker.scratch_dir) as folder,
            host(self.worker.host_lock, alone=alone, waiting=lambda: self._wait(watch, alone=alone)),
        ):
            self._run_engine(lease, watch, folder)

    def _wait(self, watch: _Watch, *, alone: bool) -> None:
        why = "waiting until no other job runs here" if alone else "waiting for a benchmark to end"
        watch.progress = Progress(phase="waiting_for_host", message=why)
        watch.look()

    def _run_engine(self, lease: Lease, watch: _Watch, folder: Path) -> None:
        limits = Limits(memory_bytes=self.worker.engine_memory_bytes, file_bytes=self.worker.engine_file_bytes)
        with self.database.read() as session:
            request = prepare(lease, session, self.files, folder, limits)
        child = Child.start(request)
        if lease.spec.keeps_on_cancel:
            watch.come_to_end = child.ask_to_stop
        try:
            while not child.ended:
                event = child.next_event(_LOOK_S)
                if isinstance(event, Progress):
                    watch.progress = event
                elif isinstance(event, Checkpoint):
                    self._keep_checkpoint(lease, event, request)
                watch.look()
        except BaseException:
            child.kill()
            raise
        outcome = child.outcome()
        if outcome.stderr:
            log.info(
                "engine_said",
                job_id=str(lease.job_id),
                ended=how_it_ended(outcome.returncode),
                text=outcome.stderr[-4000:],
            )
        if isinstance(outcome.answer, Failed) and outcome.answer.files:
            self._fail_with(lease, outcome.answer, request, watch)
            return
        done = answer(outcome, lease.spec.kind)
        watch.progress = Progress(phase="storing")
        watch.look()
        with self.database.read() as session:
            results = keep_files(done, request, lease.spec, self.files, session, before_each=watch.look)
        with self.database.write() as session:
            if watch.cancelled_at is None:
                leases.finish(session, lease, results)
            else:
                leases.cancelled(session, lease, results)

    def _keep_checkpoint(self, lease: Lease, event: Checkpoint, request: WorkRequest) -> None:
        sha256, _ = self.files.keep(own_file(event.path, request.workspace))
        with self.database.write() as session:
            checkpoints.keep(session, lease.job_id, lease.token, sha256)

    def _fail_with(self, lease: Lease, failed: Failed, request: WorkRequest, watch: _Watch) -> None:
        """Mark a job failed that made something of use before."""
        with self.database.read() as session:
            made = keep_models(failed.files, request, lease.spec, self.files, session, before_each=watch.look)
        with self.database.write() as session:
            leases.fail(session, lease, code=failed.code, message=failed.message, hint=failed.hint, models=made)

    def _fail(self, lease: Lease, code: str, message: str, hint: str) -> None:
        with self.database.write() as session:
            leases.fail(session, lease, code=code, message=message, hint=hint)

    def _give_back(self, lease: Lease, code: str, reason: str, *, count_attempt: bool) -> None:
        with self.database.write() as session:
            leases.give_back(session, lease, count_attempt=count_attempt, code=code, reason=reason)
