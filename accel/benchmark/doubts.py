"""What makes a figure less than certain, in words. Pure functions on what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accel.benchmark.measure import Measured
from accel.benchmark.setting import Candidate
from accel.benchmark.starts import LEAST, centre_of
from accel.benchmark.system_times import is_busy
from accel.report import Environment, Estimate, LatencySummary
from accel.report.benchmarking import ServerResult

UNSTABLE = 0.05
_APART = 0.05
"""Two clusters are worth a word when they differ by so much."""
_MINORITY = 0.2
_FEWEST_STARTS = 8
_PLACES = 200
_DRIFT = 0.05
_TAKEN = 0.02
"""Share of time that others may take before it is worth a word."""
_FEW_SAMPLES = 100
_SURE = 2.6
"""Kendall's statistic in standard deviations: one trend in a hundred by chance."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """Two groups that values fall into."""

    low: float
    high: float
    share_high: float


def two_clusters(values: Sequence[float] | npt.NDArray[np.float64]) -> Clusters | None:
    """Whether positive values fall into two groups that differ by 5 % or more, each with a fifth of them or more.

    The best cut explains so much of the variance that one group, be it normal, uniform or exponential, gets there in one or two
    of a hundred samples (by simulation: 0.82 + 1.3 / n; a normal distribution tends to 2 / pi, a uniform one to 3 / 4).
    """
    ordered = np.sort(np.log(np.asarray(values, np.float64)))
    if len(ordered) > _PLACES:
        ordered = np.quantile(ordered, np.linspace(0.005, 0.995, _PLACES))
    count = len(ordered)
    if count < _FEWEST_STARTS or ordered[0] == ordered[-1]:
        return None
    below = np.arange(1, count)
    sums = ordered.cumsum()
    left, right = sums[:-1] / below, (sums[-1] - sums[:-1]) / (count - below)
    between = below * (count - below) / count**2 * (right - left) ** 2
    between[np.minimum(below, count - below) < max(2.0, _MINORITY * count)] = 0
    cut = int(between.argmax())
    if between[cut] / ordered.var() < 0.82 + 1.3 / count or right[cut] - left[cut] < math.log1p(_APART):
        return None
    return Clusters(math.exp(left[cut]), math.exp(right[cut]), float((count - below[cut]) / count))


def falls(measured: Measured) -> float | None:
    """By which share candidates became slower, all together, from the first start to the last; None if they did not.

    The trend is Kendall's, so that no single start makes it.
    """
    alive = [c for c in measured.candidates if c.error is None and all(take.cost_ms for take in c.takes)]
    if not alive or len(alive[0].takes) < _FEWEST_STARTS:
        return None
    costs = np.mean([[math.log(take.cost_ms or 1) for take in c.takes] for c in alive], axis=0)
    count = len(costs)
    later, earlier = np.tril_indices(count, -1)
    gaps = costs[later] - costs[earlier]
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    rise = math.expm1(float(np.median(gaps / (later - earlier))) * (count - 1))
    return rise if np.sign(gaps).sum() / deviation > _SURE and rise > _DRIFT else None


def of_the_host(
    where: Environment,
    *,
    busy_before: float | None,
    busy_meanwhile: float | None,
    drift: float | None,
    fall: float | None,
) -> tuple[str, ...]:
    """What casts doubt on all figures.

    Args:
        where: The host, and what it took from the benchmark.
        busy_before: Cores' worth of time that others took just before.
        busy_meanwhile: The same while it ran.
        drift: Time of the reference model after the benchmark over that before it, minus one.
        fall: What :func:`falls` said.
    """
    found = []
    for busy, when in ((busy_before, "just before the benchmark"), (busy_meanwhile, "while the benchmark ran")):
        if busy is not None and is_busy(busy):
            found.append(f"The host was busy: others took {busy:.1f} of {where.cores} cores {when}.")
    if where.steal_share is not None and where.steal_share > _TAKEN:
        found.append(
            f"Other guests of this machine took {where.steal_share:.0%} of the processor time meanwhile (steal)."
        )
    if where.throttled_share:
        found.append(f"The control group held the benchmark back in {where.throttled_share:.0%} of its periods.")
    if drift is not None and abs(drift) > _DRIFT:
        word = "slower" if drift > 0 else "faster"
        found.append(
            f"The host drifted: a fixed reference model was {abs(drift):.0%} {word} after the benchmark than before."
        )
    if fall is not None:
        found.append(
            f"All models became slower from start to start, by {fall:.0%} in all: the processor may be throttled by heat or by a quota."
        )
    return tuple(found)


def of_a_measurement(
    measured: Measured,
    candidate: Candidate,
    latency: LatencySummary | None,
    speedup: Estimate | None,
    *,
    cores: int,
) -> tuple[str, ...]:
    """What casts doubt on one candidate's figures, or should be known of them."""
    take, setting = candidate.takes[-1], measured.setting
    found = [*_steadiness(candidate, latency), *_length(measured, candidate)]
    if (
        speedup is not None
        and speedup.low is not None
        and speedup.high is not None
        and speedup.low <= 1 <= speedup.high
    ):
        found.append("No measurable difference from the baseline.")
    if setting.threads * setting.instances > cores:
        found.append(
            f"Oversubscribed: {setting.threads * setting.instances} threads on {cores} cores wait for each other."
        )
    if take.calls_per_query > 1:
        fixed = take.query_size // take.calls_per_query
        found.append(
            f"The model's batch is fixed at {fixed}: a query of {take.query_size} is {take.calls_per_query} calls."
        )
    elif take.query_size != setting.batch_size:
        found.append(f"The model's batch is fixed: a query has {take.query_size} samples, not {setting.batch_size}.")
    if take.queries_per_sample > 1:
        found.append(
            f"A call is so short that {take.queries_per_sample} are timed together: percentiles are those of their means."
        )
    return tuple(found)


def _steadiness(candidate: Candidate, latency: LatencySummary | None) -> list[str]:
    found = []
    if latency is not None and latency.mad > UNSTABLE * latency.median:
        found.append(f"Unstable: samples differ from their median by {latency.mad / latency.median:.0%} (MAD).")
    costs = [take.cost_ms for take in candidate.takes if take.cost_ms]
    if apart := two_clusters(costs):
        found.append(
            f"Bimodal from start to start: {apart.share_high:.0%} of {len(costs)} processes ran at "
            f"{apart.high / apart.low:.2f} times the time of the others, from their start to their end."
        )
    elif latency is not None:
        samples = np.concatenate([one.samples_ms for take in candidate.takes for one in take.rounds])
        if apart := two_clusters(samples):
            found.append(
                f"Bimodal: {apart.share_high:.0%} of the samples are about {apart.high:.4g} ms, the others {apart.low:.4g} ms."
            )
    if latency is not None and latency.count < _FEW_SAMPLES:
        found.append(f"Only {latency.count} samples: too few for the percentiles that are null.")
    return found


def _length(measured: Measured, candidate: Candidate) -> list[str]:
    judged = measured.judged(candidate)
    if judged is None:
        return []
    starts = f"{len(candidate.takes)} start{'s' if len(candidate.takes) > 1 else ''}"
    half = centre_of(judged)[1] if judged else math.inf
    if measured.stopped == "budget" and half > measured.length.precision:
        reached = f"an interval of plus or minus {math.expm1(half):.1%}" if math.isfinite(half) else "no interval yet"
        wanted = f"{measured.length.precision:.1%} was wanted"
        return [f"The budget of {measured.length.budget_s:g} s was spent after {starts} with {reached}; {wanted}."]
    if len(candidate.takes) < LEAST:
        return [f"Only {starts}: what differs from start to start is not in the interval."]
    return []


def of_a_server(result: ServerResult, candidate: Candidate) -> tuple[str, ...]:
    """Why no rate held, or not the last word on it."""
    idle_ms = min(take.query_ms for take in candidate.takes)
    short = any(take.is_cut_short for take in candidate.takes)
    if result.rate_hz is None and short:
        return ("The budget was too short for enough requests to tell a 99th percentile: give it more seconds.",)
    if result.rate_hz is None:
        rarely = f"even {min(probe.rate_hz for probe in result.probes):,.0f} a second did not, which hardly ever wait"
        none = f"No rate keeps 99 % of requests within {result.bound_ms:g} ms"
        return (f"{none}: {rarely}; a call takes {idle_ms:.3g} ms on an idle host.",)
    if short:
        return ("The budget ended the search: a higher rate may hold.",)
    return ()
