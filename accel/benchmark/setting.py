"""What is measured together: the candidates of one setting, and what each start of them found."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from accel.benchmark.orders import Answer, Load, Loaded, Order, Ran, Ready
from accel.benchmark.process import Lost, Process
from accel.report.benchmarking import ServerProbe
from accel.request import BenchmarkRequest, ModelFile

Floats = npt.NDArray[np.float64]
_Some = TypeVar("_Some", bound=Answer)

_LOADING_S = 300.0
_PATIENCE_S = 30.0
_PATIENCE = 20
_FIRST_CALL_S = (10.0, 120.0)


@dataclass(frozen=True, slots=True)
class Setting:
    """How the candidates are run."""

    batch_size: int
    threads: int
    instances: int = 1

    def label(self) -> str:
        """For people."""
        parts = [f"batch size {self.batch_size}", f"{self.threads} thread{'s' if self.threads > 1 else ''}"]
        return ", ".join(parts + ([f"{self.instances} instances"] if self.instances > 1 else []))


@dataclass(frozen=True, slots=True)
class Round:
    """One turn of a candidate."""

    samples_ms: Floats
    queries_per_second: float
    queries: int
    cpu_seconds: float | None
    joules: float | None = None
    lead_ms: float | None = None


@dataclass(slots=True)
class Take:
    """One start of a candidate: what its processes said."""

    load_ms: float
    first_ms: float
    query_size: int
    calls_per_query: int
    queries_per_sample: int
    warmup_ms: Floats
    rounds: list[Round] = field(default_factory=list)
    probes: list[ServerProbe] = field(default_factory=list)
    is_cut_short: bool = False
    """Whether the time was not enough to find the rate that holds."""
    peak_memory_bytes: int | None = None
    cost_ms: float | None = None
    """What a sample costs, as the scenario counts it: speed-ups are ratios of it. None where nothing held."""

    @property
    def query_ms(self) -> float:
        """Of a warm query, about."""
        return float(np.median(self.warmup_ms))


@dataclass(slots=True)
class Candidate:
    """A model on a runtime."""

    model: ModelFile
    runtime: str
    takes: list[Take] = field(default_factory=list)
    error: str | None = None
    lost_s: float = 0.0
    """Time that was waited for it in vain."""


@dataclass(slots=True)
class Team:
    """The processes of one candidate in one start: several where instances work at the same time."""

    candidate: Candidate
    processes: Sequence[Process]

    @property
    def is_alive(self) -> bool:
        """Whether it can still be measured."""
        return self.candidate.error is None

    @property
    def take(self) -> Take:
        """The start that is under way."""
        return self.candidate.takes[-1]

    def ask(self, order: Order, expected: type[_Some], timeout_s: float) -> list[_Some]:
        """Give an order to every process, and wait for all; none is returned where one is lost, and the candidate is out."""
        begun = time.monotonic()
        try:
            for process in self.processes:
                process.send(order)
            return [process.hear(expected, timeout_s) for process in self.processes]
        except Lost as lost:
            self.lose(lost, time.monotonic() - begun)
            return []

    def load(self, order: Load, budget_s: float) -> None:
        """Load and warm up, and begin a take."""
        begun = time.monotonic()
        first_call_s = min(max(budget_s, _FIRST_CALL_S[0]), _FIRST_CALL_S[1])
        try:
            for process in self.processes:
                process.send(order)
            loaded = [process.hear(Loaded, _LOADING_S) for process in self.processes]
            ran = [process.hear(Ran, first_call_s) for process in self.processes]
            warm_s = patience(0.2 + 6 * max(one.first_ms for one in ran) / 1e3, budget_s)
            ready = [process.hear(Ready, warm_s) for process in self.processes]
        except Lost as lost:
            self.lose(lost, time.monotonic() - begun)
            return
        self.candidate.takes.append(
            Take(
                load_ms=float(np.median([one.load_ms for one in loaded])),
                first_ms=float(np.median([one.first_ms for one in ran])),
                query_size=ran[0].query_size,
                calls_per_query=ran[0].calls_per_query,
                queries_per_sample=ready[0].queries_per_sample,
                warmup_ms=np.concatenate([one.warmup_ms for one in ready]),
            )
        )

    def lose(self, lost: Lost, waited_s: float) -> None:
        """Leave it out from now on, and end it: what hangs may be burning a core that the others are measured on."""
        for process in self.processes:
            process.end()
        self.candidate.error = str(lost)
        self.candidate.lost_s += waited_s


def patience(expected_s: float, budget_s: float) -> float:
    """How long to wait for what should take ``expected_s``: what takes longer hangs."""
    return max(_PATIENCE * expected_s, min(_PATIENCE_S, budget_s))


@contextmanager
def teams(candidates: Sequence[Candidate], setting: Setting, request: BenchmarkRequest) -> Iterator[list[Team]]:
    """Fresh processes for all candidates that are not broken, loaded and warmed up in turn; ended at the end."""
    with ExitStack() as ended:
        started = []
        for candidate in candidates:
            if candidate.error is None:
                processes = []
                for _ in range(setting.instances):
                    processes.append(Process())
                    ended.callback(processes[-1].end)
                started.append(Team(candidate, processes))
        for team in started:
            order = Load(
                path=team.candidate.model.path.resolve(),
                runtime=team.candidate.runtime,
                threads=setting.threads,
                batch_size=setting.batch_size,
                shapes=request.shapes,
                seed=request.seed,
            )
            team.load(order, request.budget_seconds)
        yield [team for team in started if team.is_alive]
