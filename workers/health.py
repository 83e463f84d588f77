"""Whether this host's worker is seen: ``python -m workers.health``, for a container's health check.

With ``--reaper`` it asks only that the database answers, which is all that the reaper needs.
"""

from __future__ import annotations

import socket
import sys

from store import workers
from store.database import Database
from store.settings import StoreSettings


def main() -> int:
    """0 when it is well."""
    with Database(StoreSettings().database_url).read() as session:
        live = workers.live(session)
    if "--reaper" in sys.argv:
        return 0
    here = socket.gethostname()
    if any(worker.host == here for worker in live):
        return 0
    sys.stderr.write(f"no worker of the host {here} has been seen lately\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
