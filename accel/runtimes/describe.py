"""Describe this host: runtimes, confinement, environment."""

from __future__ import annotations

from accel.benchmark.environment import environment
from accel.events import Done
from accel.report import HostSummary, SandboxSummary
from accel.runtimes.discover import discover


def describe_host(sandbox: SandboxSummary) -> Done:
    """Say what this host has; ``sandbox`` is what was in force when this process confined itself."""
    return Done(report=HostSummary(runtimes=discover(), sandbox=sandbox, environment=environment()))
