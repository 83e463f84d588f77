"""Measure the candidates of one setting: start after start, until it is precise or the time is spent."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from accel.benchmark.scenarios.rounds import affordable_rounds, latency_cost, take_turns, throughput_cost
from accel.benchmark.scenarios.server import find_rates
from accel.benchmark.setting import Candidate, Setting, Team, teams
from accel.benchmark.starts import PILOT, Length, Stopped
from accel.context import Tell
from accel.request import BenchmarkRequest

Joules = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found in one setting."""

    setting: Setting
    candidates: tuple[Candidate, ...]
    baseline_id: str
    stopped: Stopped | None
    """None where nothing was found that could be repeated."""
    length: Length

    def baseline(self, runtime: str) -> Candidate:
        """The baseline on a runtime."""
        return next(c for c in self.candidates if c.runtime == runtime and c.model.model_id == self.baseline_id)

    def judged(self, candidate: Candidate) -> list[float] | None:
        """The logarithms, one a start, whose interval decided the length; None of a baseline that others are compared with."""
        return _judged(self.candidates, self.baseline_id).get(self.candidates.index(candidate))


def measure(
    request: BenchmarkRequest, runtimes: Sequence[str], setting: Setting, tell: Tell, joules: Joules | None = None
) -> Measured:
    """Measure every model on every runtime in one setting.

    Each start has fresh processes for all. A candidate that cannot be loaded, dies or hangs is out, with the reason; the others
    go on, and the time that was waited for it is not theirs.

    Args:
        request: What is asked.
        runtimes: Where to measure.
        setting: How.
        tell: Called with starts done, starts in all as far as can be told, and a message.
        joules: Counter of the host's energy.
    """
    candidates = tuple(Candidate(model, runtime) for runtime in runtimes for model in request.models)
    length = _length(request)
    begun = time.monotonic()
    done, spent_s = 0, 0.0
    series: list[list[float]] = []
    stopped: Stopped | None = None
    while stopped is None and (series or done == 0):
        planned = length.planned(series, done, spent_s)
        tell("measuring", done, planned, f"{setting.label()}: start {done + 1} of about {planned}")
        chance = random.Random(f"{request.seed} {done}")  # noqa: S311  (orders of turns, no secret)
        left_s = request.budget_seconds - spent_s
        began = time.monotonic()
        with teams(candidates, setting, request) as started:
            _one_start(request, started, chance, began=began, left_s=left_s, joules=joules)
        done += 1
        spent_s = time.monotonic() - begun - sum(candidate.lost_s for candidate in candidates)
        series = list(_judged(candidates, request.baseline_id).values())
        stopped = length.stopped(series, done, spent_s) if series else None
    return Measured(setting, candidates, request.baseline_id, stopped, length)


def _length(request: BenchmarkRequest) -> Length:
    asked = request.starts
    if request.scenario == "server":  # one start is a whole search, and takes about as long as ten others
        return Length(request.precision, request.budget_seconds, asked, least=1, pilot=3)
    return Length(request.precision, request.budget_seconds, asked)


def _one_start(
    request: BenchmarkRequest,
    started: Sequence[Team],
    chance: random.Random,
    *,
    began: float,
    left_s: float,
    joules: Joules | None,
) -> None:
    if request.scenario == "server":
        find_rates(
            started,
            bound_ms=request.bound_ms or math.inf,
            left_s=left_s - (time.monotonic() - began),
            budget_s=request.budget_seconds,
            seed=chance.getrandbits(32),
            earlier_hz=_earlier(started),
        )
        return
    rounds = affordable_rounds(
        started,
        asked=request.rounds,
        seconds=request.seconds_per_round,
        begun=began,
        share_s=request.budget_seconds / (request.starts or PILOT),
    )
    take_turns(
        started,
        rounds=rounds,
        seconds=request.seconds_per_round,
        budget_s=request.budget_seconds,
        chance=chance,
        joules=joules,
    )
    cost = throughput_cost if request.scenario == "offline" else latency_cost
    for team in started:
        if team.is_alive:
            team.take.cost_ms = cost(team.take)


def _earlier(started: Sequence[Team]) -> dict[int, float]:
    """Rates that the start before found."""
    earlier = {}
    for place, team in enumerate(started):
        costs = [take.cost_ms for take in team.candidate.takes[:-1] if take.cost_ms]
        if costs:
            earlier[place] = 1e3 / costs[-1] / team.take.query_size
    return earlier


def _judged(candidates: Sequence[Candidate], baseline_id: str) -> dict[int, list[float]]:
    """What the length is decided by: the speed-ups of all that have one, or else the costs themselves."""
    baselines = {c.runtime: c for c in candidates if c.model.model_id == baseline_id}
    alive = {place: c for place, c in enumerate(candidates) if c.error is None}
    speedups = {
        place: found
        for place, c in alive.items()
        if c is not baselines[c.runtime] and (found := logarithms(baselines[c.runtime], c))
    }
    costs = {
        place: found for place, c in alive.items() if (found := [math.log(t.cost_ms) for t in c.takes if t.cost_ms])
    }
    return speedups or costs


def logarithms(baseline: Candidate, candidate: Candidate) -> list[float]:
    """Logarithm of the speed-up in each start that has one; none where one of the two is broken."""
    if baseline.error is not None or candidate.error is not None:
        return []
    pairs = zip(baseline.takes, candidate.takes, strict=False)
    return [math.log(b.cost_ms / c.cost_ms) for b, c in pairs if b.cost_ms and c.cost_ms]
