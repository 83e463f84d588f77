"""Judge a contract."""

from __future__ import annotations

import numpy as np

from accel.evaluation.contract import ERRORS, Contract, Verdict
from accel.evaluation.metrics import Array, Predictions, correct, drop, reference
from accel.evaluation.statistics import samples_for


def judge(contract: Contract, baseline: Predictions, model: Predictions, labels: Array, *, seed: int) -> Verdict:
    """Say whether the loss stays within the contract's bound, as surely as the contract asks.

    ``met`` when the whole interval lies within the bound, ``not_met`` when it lies beyond, else ``inconclusive``.
    """
    # One-sided: the question is only whether the loss exceeds the bound, so the two-sided level is wider.
    level = 2 * contract.confidence - 1
    labels = reference(contract.metric, baseline, labels)
    found = drop(contract.metric, baseline, model, labels, seed=seed, confidence=level)
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    sure = f"{contract.confidence:.0%} sure"
    bound = f"the {contract.max_drop:g} that is allowed"
    loss = f"{contract.metric} {'rises' if contract.metric in ERRORS else 'drops'} by {found.value:.4g}"
    if high <= contract.max_drop:
        return Verdict(
            outcome="met", contract=contract, explanation=f"{loss}; {sure} of at most {high:.4g}, within {bound}."
        )
    if low > contract.max_drop:
        return Verdict(
            outcome="not_met", contract=contract, explanation=f"{loss}; {sure} of at least {low:.4g}, beyond {bound}."
        )
    needed = _samples_needed(contract, baseline, model, labels, found.value)
    more = f"; about {needed:,} samples would tell" if needed else ""
    return Verdict(
        outcome="inconclusive",
        contract=contract,
        explanation=f"{loss}, between {low:.4g} and {high:.4g} on {len(labels):,} samples: {bound} lies between{more}.",
        samples_needed=needed,
    )


def _samples_needed(
    contract: Contract, baseline: Predictions, model: Predictions, labels: Array, found: float
) -> int | None:
    if contract.metric not in {"accuracy", "top5_accuracy", "agreement"}:
        return None
    difference = correct(contract.metric, baseline, labels).astype(np.float64) - correct(contract.metric, model, labels)
    # Where no sample differs, half a sample stands for what was not seen.
    variance = max(float(difference.var()), 0.5 / len(labels))
    return samples_for(variance, abs(contract.max_drop - found), contract.confidence)
