"""The doorbell: publish a job's id to a queue. Nothing but this file speaks to the broker from outside a worker."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from celery import Celery

TASK = "run_job"

TRANSPORT = {
    # Longer than anything waits: a message is acknowledged before its job begins.
    "visibility_timeout": 3600,
    "socket_connect_timeout": 2,
    "socket_timeout": 10,
    "health_check_interval": 25,
    "socket_keepalive": True,
}


class Publisher(Protocol):
    """Whoever can announce a job."""

    def publish(self, queue: str, job_id: UUID) -> None:
        """Announce a job to the workers of a queue; raises when the broker cannot be reached."""


class CeleryPublisher:
    """Announces jobs through Celery; one attempt each, never a wait for a broker that is away."""

    def __init__(self, broker_url: str) -> None:
        self._app = Celery("accel", broker=broker_url, set_as_current=False)
        self._app.conf.update(
            # Without max_retries kombu tries to connect for 6 s, whatever the other settings say.
            broker_transport_options={**TRANSPORT, "socket_timeout": 3, "max_retries": 0},
            broker_connection_retry=False,
            task_ignore_result=True,
            task_serializer="json",
        )

    def publish(self, queue: str, job_id: UUID) -> None:
        """Announce a job; raises kombu's OperationalError when the broker cannot be reached."""
        self._app.send_task(TASK, [str(job_id)], queue=queue, retry=False, ignore_result=True)

    def ping(self) -> None:
        """Raise when the broker cannot be reached."""
        with self._app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=2)

    def close(self) -> None:
        """Close the connections."""
        self._app.close()
