"""Figures as people read them. What is not known is a dash."""

from __future__ import annotations

from typing import Final

from accel.evaluation.contract import SHARES, Metric
from accel.report import Estimate, Percentile

DASH: Final = "—"
_SPELLED: Final[dict[Metric, str]] = {
    "macro_f1": "macro F1", "f1": "F1", "auc": "AUC", "ece": "calibration error", "mae": "MAE", "rmse": "RMSE", "r2": "R²",
    "top2_accuracy": "top-2 accuracy", "top3_accuracy": "top-3 accuracy", "top5_accuracy": "top-5 accuracy",
    "top10_accuracy": "top-10 accuracy",
}  # fmt: skip


def spelled(metric: Metric | None) -> str:
    """The metric's name in prose."""
    return "" if metric is None else _SPELLED.get(metric, metric.replace("_", " "))


def size(count_bytes: float | None) -> str:
    """Bytes, in powers of 1000."""
    if count_bytes is None:
        return DASH
    for unit in ("B", "kB", "MB"):
        if count_bytes < 999.5:  # noqa: PLR2004  (what would be rounded to 1000 takes the next unit)
            return f"{count_bytes:.3g} {unit}"
        count_bytes /= 1000
    return f"{count_bytes:.3g} GB"


def milliseconds(value: float | None) -> str:
    """A latency, to three digits."""
    return DASH if value is None else f"{number(value)} ms"


def number(value: float) -> str:
    """A number, to three digits or to the units."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004


def per_second(value: float | None, what: str = "") -> str:
    """A rate."""
    return DASH if value is None else f"{number(value)}{' ' if what else ''}{what}/s"


def between(low: float | None, high: float | None, unit: str = "") -> str:
    """The ends of an interval."""
    return "" if low is None or high is None else f"{number(low)} to {number(high)}{unit}"


def percentile(found: Percentile) -> str:
    """A percentile; where too few samples lie beyond it, how many it needs."""
    if found.value is not None:
        return milliseconds(found.value)
    return f"needs {found.samples_needed:,} samples" if found.samples_needed else DASH


def metric_value(metric: Metric | None, estimate: Estimate | None) -> str:
    """A metric's value."""
    if estimate is None:
        return DASH
    return f"{estimate.value:.2%}" if metric in SHARES else f"{estimate.value:.4g}"


def metric_interval(metric: Metric | None, estimate: Estimate | None) -> str:
    """A metric's interval; empty where there is none."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    if metric in SHARES:
        return f"{estimate.low:.2%} to {estimate.high:.2%}"
    return f"{estimate.low:.4g} to {estimate.high:.4g}"


def drop_value(metric: Metric | None, drop: Estimate | None) -> str:
    """What is lost against the baseline: above 0 is worse."""
    return DASH if drop is None else loss_value(metric, drop.value)


def loss_value(metric: Metric | None, loss: float) -> str:
    """A loss: in points of percent where the metric is a share."""
    return f"{_signed(100 * loss)} pt" if metric in SHARES else _signed(loss, 4)


def drop_interval(metric: Metric | None, drop: Estimate | None) -> str:
    """The interval of what is lost; empty where there is none."""
    if drop is None or drop.low is None or drop.high is None:
        return ""
    if metric in SHARES:
        return f"{_signed(100 * drop.low)} to {_signed(100 * drop.high)}"
    return f"{_signed(drop.low, 4)} to {_signed(drop.high, 4)}"


def _signed(value: float, digits: int = 2) -> str:
    text = f"{value:+.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("+-")  # noqa: RUF001  (a minus, as printed)


def times(estimate: Estimate | None) -> str:
    """A speed-up."""
    return DASH if estimate is None else f"{estimate.value:.2f}×"  # noqa: RUF001  (the sign, as printed)


def times_interval(estimate: Estimate | None) -> str:
    """A speed-up's interval; empty where there is none."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"{estimate.low:.2f} to {estimate.high:.2f}"


def bracketed(value: str, interval: str) -> str:
    """A figure with its interval behind it."""
    return f"{value} ({interval})" if interval else value
