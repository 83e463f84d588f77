"""Two outcomes on the same samples, paired."""

from __future__ import annotations

import numpy as np

from accel.evaluation.resampling import Statistic, bootstrap
from accel.evaluation.statistics import paired_drop
from accel.report import Estimate
from quantization.metrics import Outcome, value


def drop(baseline: Outcome, model: Outcome) -> Estimate:
    """How much worse the model is than the baseline, with the 95 % interval of a paired comparison; above 0 is worse.

    Counts are compared as the engine compares them; of areas under the curve, samples are drawn together.
    """
    if "right" in baseline:
        return paired_drop(baseline["right"], model["right"])
    lost = Statistic(
        value(baseline, None) - value(model, None),
        lambda weights: np.array([value(baseline, drawn) - value(model, drawn) for drawn in weights.T]),
    )
    return bootstrap(lost, len(baseline["positives"]), seed=0)


def is_worse(baseline: Outcome, model: Outcome) -> bool:
    """Whether the model is worse than the baseline beyond noise."""
    found = drop(baseline, model)
    return (found.value if found.low is None else found.low) > 0
