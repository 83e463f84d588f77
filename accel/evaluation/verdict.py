"""Judge a contract."""

from __future__ import annotations

import math

from accel.evaluation.contract import ERRORS, SHARES, Contract, Metric, Verdict
from accel.evaluation.decoding import Ints
from accel.evaluation.metrics import drop
from accel.evaluation.predictions import Predictions
from accel.evaluation.undefined import undefined

_MANY = 10**9
"""Nobody has more samples."""


def judge(
    contract: Contract,
    baseline: Predictions,
    model: Predictions,
    truth: Predictions,
    *,
    seed: int,
    groups: Ints | None = None,
) -> Verdict:
    """Say whether the loss stays within the contract's bound, as surely as the contract asks.

    ``met`` when the whole interval lies within the bound, ``not_met`` when it lies beyond, else ``inconclusive``. A model whose
    output is not finite somewhere does not meet any contract.

    Args:
        contract: The bound.
        baseline: What the baseline says.
        model: What the model says of the same samples.
        truth: What both are held against: the labels, or for the agreement what the baseline says.
        seed: Seed of the bootstrap.
        groups: Number of each sample's group [samples]; whole groups are drawn then.
    """
    metric, broken = contract.metric, len(model.not_finite)
    if broken:
        return Verdict(
            outcome="not_met",
            contract=contract,
            explanation=f"The output is not finite (NaN or infinite) for {broken:,} of {len(model):,} samples.",
        )
    for what, said in (("baseline", baseline), ("model", model)):
        reason = undefined(metric, said, truth)
        if reason is not None:
            return Verdict(
                outcome="inconclusive" if what == "baseline" else "not_met",
                contract=contract,
                explanation=f"{metric} of the {what} is no number on these samples: {reason}.",
            )
    # One-sided: the question is only whether the loss exceeds the bound, so the two-sided level is wider.
    level = 2 * contract.confidence - 1
    found = drop(metric, baseline, model, truth, seed=seed, confidence=level, groups=groups)
    sure = f"{contract.confidence:.0%} sure"
    bound = f"the allowed {_amount(metric, contract.max_drop)}"
    loss = _change(metric, found.value)
    of_groups = None if groups is None else int(groups.max(initial=-1)) + 1
    counted = f"{len(truth):,} samples" + ("" if of_groups is None else f" in {of_groups:,} groups")
    if found.low is None or found.high is None:
        return Verdict(
            outcome="inconclusive", contract=contract, explanation=f"{loss}; {counted} are too few to be sure."
        )
    low, high = found.low, found.high
    if high <= contract.max_drop:
        return Verdict(
            outcome="met",
            contract=contract,
            explanation=f"{loss}; {sure} that it {_at_most(metric, high)}, within {bound}.{_doubt(baseline)}",
        )
    if low > contract.max_drop:
        return Verdict(
            outcome="not_met",
            contract=contract,
            explanation=f"{loss}; {sure} that it loses at least {_amount(metric, low)}, beyond {bound}.{_doubt(baseline)}",
        )
    times = _times_as_many(contract.max_drop, found.value, low, high)
    needed = None if times is None or times * len(truth) > _MANY else math.ceil(times * len(truth))
    more = "" if needed is None or times is None else f"; about {needed:,} samples"
    if more and times is not None and of_groups is not None:
        more += f", in {math.ceil(times * of_groups):,} groups of such a size,"
    return Verdict(
        outcome="inconclusive",
        contract=contract,
        explanation=f"{loss}; the loss is between {_amount(metric, low)} and {_amount(metric, high)} on {counted}, around {bound}{more and more + ' would tell'}.",
        samples_needed=needed,
    )


def _change(metric: Metric, lost: float) -> str:
    """A loss as people say it: accuracy drops, an error rises, and either may go the other way."""
    if lost == 0:
        return f"{metric} stays the same"
    return f"{metric} {'rises' if (lost > 0) == (metric in ERRORS) else 'drops'} by {_amount(metric, abs(lost))}"


def _at_most(metric: Metric, high: float) -> str:
    return f"loses at most {_amount(metric, high)}" if high >= 0 else f"gains at least {_amount(metric, -high)}"


def _doubt(baseline: Predictions) -> str:
    """What must be said of a baseline that is broken itself."""
    broken = len(baseline.not_finite)
    return f" But the baseline's output is not finite for {broken:,} of {len(baseline):,} samples." if broken else ""


def _amount(metric: Metric, value: float) -> str:
    if metric not in SHARES:
        return f"{value:.4g}"
    points = f"{100 * value:.3g}"
    return f"{points} point" if points == "1" else f"{points} points"


def _times_as_many(bound: float, value: float, low: float, high: float) -> float | None:
    """How many times the samples bring an interval to one side of the bound: its width shrinks with the root of their number."""
    margin = abs(bound - value)
    half = high - value if value <= bound else value - low
    return (half / margin) ** 2 if margin > 0 else None
