"""``server``: requests arrive at random, and the highest rate is looked for that a candidate answers in time.

Arrivals are a Poisson process, served in their order by one process; a request's latency is from its arrival to its answer, the
wait in the queue included (MLPerf Inference, arXiv:1911.02549, section III). What holds is judged by the 99th percentile.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from accel.benchmark.orders import LATE_SHARE, Serve, Served
from accel.benchmark.setting import Floats, Round, Team, patience
from accel.benchmark.statistics import BEYOND, percentile
from accel.report.benchmarking import ServerProbe

REQUESTS = math.ceil(BEYOND / LATE_SHARE)
"""Fewest requests that tell a 99th percentile."""
_MOST_REQUESTS = 100_000
_PROBE_S = 1.0
"""A probe lasts so long at least: one hiccup of the host must not decide."""
_LAST = 20
_BEHIND = 0.05
_CLOSE = 1.05
"""The search ends when the rate that held and the one that did not are so close."""
_BUSY_AT_FIRST = 0.5
_BUSY_AT_LEAST = 0.05
"""Of the time: with less the queue is empty, and a lower rate would change nothing."""
_STEP = 2.0
_STEP_LATER = 1.1
"""From the rate that an earlier start found."""


@dataclass(slots=True)
class Search:
    """Looks for the highest rate that holds: doubles or halves until it is between two rates, then bisects."""

    rate_hz: float
    floor_hz: float
    step: float = _STEP
    held: float | None = field(default=None, init=False)
    failed: float | None = field(default=None, init=False)
    is_over: bool = field(default=False, init=False)

    def note(self, *, held: bool) -> None:
        """Take in whether ``rate_hz`` held, and choose the next."""
        if held:
            self.held = self.rate_hz
        else:
            self.failed = self.rate_hz
        if self.failed is None:
            self.rate_hz *= self.step
        elif self.held is None:
            self.is_over = self.rate_hz <= self.floor_hz
            self.rate_hz = max(self.rate_hz / self.step, self.floor_hz)
            self.step = _STEP  # what an earlier start found is of no use here
        else:
            self.is_over = self.failed / self.held <= _CLOSE
            self.rate_hz = math.sqrt(self.failed * self.held)


def find_rates(
    teams: Sequence[Team],
    *,
    bound_ms: float,
    left_s: float,
    budget_s: float,
    seed: int,
    earlier_hz: Mapping[int, float],
) -> None:
    """Look for every team's highest rate; probes of different teams take turns, in an order that is drawn anew each time.

    Args:
        teams: Loaded and warm.
        bound_ms: What the 99th percentile must keep.
        left_s: Time for all of them. A probe that does not fit any more is left out, or, where nothing held yet, cut short: then
            its percentile is unknown and it counts as not held.
        budget_s: Of the whole setting: what a hang is measured by.
        seed: Seed of arrivals and turns.
        earlier_hz: What an earlier start found, by the team's place.
    """
    until = time.monotonic() + left_s
    chance = random.Random(seed)  # noqa: S311  (arrivals and turns, no secret)
    searches = [_search(team, earlier_hz.get(place)) for place, team in enumerate(teams)]
    while going := [place for place, team in enumerate(teams) if team.is_alive and not searches[place].is_over]:
        chance.shuffle(going)
        for turn, place in enumerate(going):
            share_s = max(0.0, until - time.monotonic()) / (len(going) - turn)
            _probe(teams[place], searches[place], bound_ms, share_s, budget_s, chance.getrandbits(32))
    for team, search in zip(teams, searches, strict=True):
        if team.is_alive:
            team.take.cost_ms = 1e3 / search.held / team.take.query_size if search.held else None


def _search(team: Team, earlier_hz: float | None) -> Search:
    capacity = 1e3 / team.take.query_ms
    if earlier_hz is not None:
        return Search(earlier_hz, capacity * _BUSY_AT_LEAST, _STEP_LATER)
    return Search(capacity * _BUSY_AT_FIRST, capacity * _BUSY_AT_LEAST)


def _probe(team: Team, search: Search, bound_ms: float, share_s: float, budget_s: float, seed: int) -> None:
    rate = search.rate_hz
    requests = max(REQUESTS, min(_MOST_REQUESTS, round(rate * _PROBE_S)))
    if requests / rate > share_s and search.held is not None:
        search.is_over = team.take.is_cut_short = True
        return
    # Where nothing held yet it is tried all the same: a rate that does not hold shows soon.
    order = Serve(rate_hz=rate, requests=requests, bound_ms=bound_ms, seconds=share_s, seed=seed)
    expected_s = min(requests / rate, share_s) + 30 * team.take.query_ms / 1e3
    said = team.ask(order, Served, expected_s + patience(0, budget_s))
    if not said:
        return
    latencies = np.asarray(said[0].latencies_ms)
    p99 = percentile(np.sort(latencies), 0.99)
    is_whole = len(latencies) == requests
    held = is_whole and (latencies > bound_ms).sum() <= LATE_SHARE * requests and not _diverges(latencies, team, rate)
    if is_whole or (latencies > bound_ms).sum() > LATE_SHARE * requests:
        search.note(held=bool(held))
    else:
        search.is_over = team.take.is_cut_short = True
    team.take.probes.append(ServerProbe(rate_hz=rate, requests=len(latencies), p99_ms=p99, held=bool(held)))
    team.take.rounds.append(Round(latencies, rate, len(latencies), None))
    team.take.peak_memory_bytes = said[0].peak_memory_bytes


def _diverges(latencies_ms: Floats, team: Team, rate_hz: float) -> bool:
    """Whether the queue grows without end, so that only the length of the probe kept the bound.

    The last answers are then late by a share of the whole time in which requests arrived.
    """
    arrivals_ms = len(latencies_ms) / rate_hz * 1e3
    return float(np.median(latencies_ms[-_LAST:])) > max(_BEHIND * arrivals_ms, 3 * team.take.query_ms)
