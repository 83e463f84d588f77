"""Puts right what dead processes left: ``python -m workers.reaper``. One is enough, several do no harm."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import dataclass

import structlog

from store import idempotency, leases, logs, workers
from store.broker import CeleryPublisher
from store.database import Database
from store.dispatch import Dispatcher
from store.files import Files
from store.references import is_referenced
from store.settings import StoreSettings

log = structlog.get_logger(__name__)

_TURN_S = 1.0
_HOUSEKEEPING_S = 600.0
_UNREFERENCED_S = 24 * 3600.0
_UNSEEN_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Reaper:
    """Ends lapsed leases, announces what nobody has claimed, and removes what nobody needs."""

    database: Database
    files: Files
    dispatcher: Dispatcher

    def reap(self) -> None:
        """End lapsed leases and announce waiting jobs."""
        with self.database.write() as session:
            lapsed = leases.reap(session)
        for job_id in lapsed:
            log.warning("lease_lapsed", job_id=str(job_id))
        self.dispatcher.step()

    def keep_house(self) -> None:
        """Remove old keys, lost workers, and files that nothing refers to."""
        with self.database.write() as session:
            idempotency.forget_keys(session)
            workers.forget(session, unseen_for_s=_UNSEEN_S)
        removed = self.files.collect(self._referenced, older_than_s=_UNREFERENCED_S)
        if removed:
            log.info("files_removed", count=removed)

    def _referenced(self, sha256: str) -> bool:
        with self.database.read() as session:
            return is_referenced(session, sha256)

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop; a database or broker that is away is tried again."""
        cleaned_at = time.monotonic() - _HOUSEKEEPING_S
        while not stop.wait(_TURN_S):
            try:
                self.reap()
                if time.monotonic() - cleaned_at >= _HOUSEKEEPING_S:
                    cleaned_at = time.monotonic()
                    self.keep_house()
            except Exception as error:  # noqa: BLE001  (whatever its libraries raise, the next turn tries again)
                log.warning("turn_failed", error=f"{type(error).__name__}: {str(error)[:300]}")


def main() -> None:
    """Reap until SIGTERM or SIGINT."""
    logs.configure()
    settings = StoreSettings()
    database = Database(settings.database_url)
    dispatcher = Dispatcher(
        database,
        CeleryPublisher(settings.broker_url),
        window=settings.dispatch_window,
        retry_after_s=settings.dispatch_retry_seconds,
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    Reaper(database, Files(settings.files_url, spool_dir=settings.spool_dir), dispatcher).run(stop)
    database.dispose()


if __name__ == "__main__":
    main()
