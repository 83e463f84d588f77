"""Figures for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from store.states import JobState

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The figures of one process, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "accel_http_requests", "Requests answered.", ("method", "route", "status"), registry=self._registry
        )
        self._seconds = Histogram(
            "accel_http_request_seconds", "Time to answer.", ("route",), registry=self._registry, buckets=_SECONDS
        )
        self._uploaded = Counter("accel_uploaded_bytes", "Bytes of files taken in.", registry=self._registry)
        self._jobs = Gauge("accel_jobs", "Jobs by state.", ("state",), registry=self._registry)
        self._oldest = Gauge(
            "accel_oldest_queued_seconds", "How long the oldest queued job waits; 0 for none.", registry=self._registry
        )
        self._workers = Gauge("accel_live_workers", "Workers seen of late.", registry=self._registry)
        self._waiting = Gauge("accel_waiting_clients", "Long polls and event streams.", registry=self._registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request. ``route`` is the template, never the path: figures must not grow with the ids."""
        known = method if method in {"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"} else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def uploaded(self, size_bytes: int) -> None:
        """Count the bytes of a file that was taken in."""
        self._uploaded.inc(size_bytes)

    def observe(self, *, jobs: Mapping[str, int], oldest_queued_s: float, workers: int, waiting: int) -> None:
        """Note how things stand at the time of a scrape."""
        for state in JobState:
            self._jobs.labels(state.value).set(jobs.get(state, 0))
        self._oldest.set(oldest_queued_s)
        self._workers.set(workers)
        self._waiting.set(waiting)

    def text(self) -> bytes:
        """The figures in Prometheus' text format."""
        return generate_latest(self._registry)
