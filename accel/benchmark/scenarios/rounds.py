"""``single_stream``, ``multi_stream`` and ``offline``: candidates take turns, each answering one query after the other.

In the first two a query's latency counts. In ``offline`` it is the samples per second of all of a candidate's processes, which
work at the same time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

import numpy as np

from accel.benchmark.orders import Measure, Samples
from accel.benchmark.setting import Round, Take, Team, patience

_FEWEST = 2


def take_turns(
    teams: Sequence[Team],
    *,
    rounds: int,
    seconds: float,
    budget_s: float,
    chance: random.Random,
    joules: Callable[[], float] | None,
) -> None:
    """Measure every team once a round, in an order that is drawn anew each time.

    Machines drift: interleaved, all candidates see the same drift, and none always comes after the same other.

    Args:
        teams: Loaded and warm.
        rounds: How many.
        seconds: How long each team is measured in a round.
        budget_s: Of the whole setting: what a hang is measured by.
        chance: Draws the orders.
        joules: Counter of the host's energy.
    """
    turns = list(teams)
    for _ in range(rounds):
        chance.shuffle(turns)
        for team in turns:
            if team.is_alive:
                _turn(team, seconds, budget_s, joules)


def _turn(team: Team, seconds: float, budget_s: float, joules: Callable[[], float] | None) -> None:
    before = joules() if joules else None
    timeout_s = patience(_expected_s(team.take, seconds), budget_s)
    said = team.ask(Measure(seconds=seconds), Samples, timeout_s)
    if not said:
        return
    team.take.rounds.append(
        Round(
            samples_ms=np.concatenate([one.samples_ms for one in said]),
            queries_per_second=sum(one.queries / one.seconds for one in said),
            queries=sum(one.queries for one in said),
            cpu_seconds=sum(one.cpu_seconds for one in said),
            joules=joules() - before if joules and before is not None else None,
            lead_ms=float(np.median([one.lead_ms for one in said])),
        )
    )
    peak = sum(one.peak_memory_bytes for one in said)
    team.take.peak_memory_bytes = max(peak, team.take.peak_memory_bytes or 0)


def _expected_s(take: Take, seconds: float) -> float:
    return seconds + 2 * take.query_ms / 1e3


def affordable_rounds(teams: Sequence[Team], *, asked: int, seconds: float, begun: float, share_s: float) -> int:
    """Rounds that fit into one start's share of the budget: rather fewer rounds than fewer starts.

    Args:
        teams: Loaded and warm.
        asked: The most.
        seconds: How long each team is measured in a round.
        begun: When the start began, by the monotonic clock.
        share_s: How long the start may take.
    """
    left = share_s - (time.monotonic() - begun)
    round_s = sum(seconds + 1.5 * team.take.query_ms / 1e3 for team in teams)
    return max(min(asked, _FEWEST), min(asked, int(left / round_s) if round_s else asked))


def latency_cost(take: Take) -> float:
    """Milliseconds of a sample by the latency of its query: the median over rounds of their medians."""
    return float(np.median([np.median(one.samples_ms) for one in take.rounds])) / take.query_size


def throughput_cost(take: Take) -> float:
    """Milliseconds of a sample by the throughput: the median over rounds."""
    return 1e3 / float(np.median([one.queries_per_second for one in take.rounds])) / take.query_size
