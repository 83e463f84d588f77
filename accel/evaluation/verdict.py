"""Judge a contract."""

from __future__ import annotations

import math

from accel.evaluation.contract import ERRORS, Contract, Verdict
from accel.evaluation.metrics import drop
from accel.evaluation.predictions import Predictions

_MANY = 10**9
"""Nobody has more samples."""


def judge(contract: Contract, baseline: Predictions, model: Predictions, truth: Predictions, *, seed: int) -> Verdict:
    """Say whether the loss stays within the contract's bound, as surely as the contract asks.

    ``met`` when the whole interval lies within the bound, ``not_met`` when it lies beyond, else ``inconclusive``.

    Args:
        contract: The bound.
        baseline: What the baseline says.
        model: What the model says of the same samples.
        truth: What both are held against: the labels, or for the agreement what the baseline says.
        seed: Seed of the bootstrap.
    """
    # One-sided: the question is only whether the loss exceeds the bound, so the two-sided level is wider.
    level = 2 * contract.confidence - 1
    found = drop(contract.metric, baseline, model, truth, seed=seed, confidence=level)
    sure = f"{contract.confidence:.0%} sure"
    bound = f"the {contract.max_drop:g} that is allowed"
    loss = f"{contract.metric} {'rises' if contract.metric in ERRORS else 'drops'} by {found.value:.4g}"
    if found.low is None or found.high is None:
        return Verdict(
            outcome="inconclusive",
            contract=contract,
            explanation=f"{loss}; {len(truth):,} samples are too few to be sure.",
        )
    low, high = found.low, found.high
    if high <= contract.max_drop:
        return Verdict(
            outcome="met", contract=contract, explanation=f"{loss}; {sure} of at most {high:.4g}, within {bound}."
        )
    if low > contract.max_drop:
        return Verdict(
            outcome="not_met", contract=contract, explanation=f"{loss}; {sure} of at least {low:.4g}, beyond {bound}."
        )
    needed = _samples_needed(len(truth), contract.max_drop, found.value, low, high)
    more = f"; about {needed:,} samples would tell" if needed else ""
    return Verdict(
        outcome="inconclusive",
        contract=contract,
        explanation=f"{loss}, between {low:.4g} and {high:.4g} on {len(truth):,} samples: {bound} lies between{more}.",
        samples_needed=needed,
    )


def _samples_needed(samples: int, bound: float, value: float, low: float, high: float) -> int | None:
    """About how many samples bring an interval to one side of the bound: its width shrinks with the root of their number."""
    margin = abs(bound - value)
    half = high - value if value <= bound else value - low
    needed = samples * (half / margin) ** 2 if margin > 0 else math.inf
    return math.ceil(needed) if needed <= _MANY else None
