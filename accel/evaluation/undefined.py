"""Why a metric does not apply to what a model says, or is no number on some samples."""

from __future__ import annotations

import numpy as np

from accel.errors import BadDataset, BindingMismatch
from accel.evaluation.contract import Metric
from accel.evaluation.predictions import Classes, Decisions, Embeddings, Predictions, Values

SCORED: frozenset[Metric] = frozenset({"auc", "log_loss", "ece"})
"""Metrics that need scores, not only what is best."""

TOPS: dict[Metric, int] = {"top2_accuracy": 2, "top3_accuracy": 3, "top5_accuracy": 5, "top10_accuracy": 10}
"""Metrics by which one of so many best classes must be right."""

_HINTS: dict[Metric, str] = {
    "f1": "Use accuracy, or samples where something is yes.",
    "macro_f1": "Use accuracy, or samples where something is yes.",
    "auc": "Use accuracy, or samples of more than one class.",
    "r2": "Use mae or rmse where the target does not vary.",
    "spearman": "Use mae or rmse, or samples whose target varies.",
}


def check_metric(metric: Metric, kind: type[Predictions]) -> None:
    """Refuse a metric that does not go with what the model says.

    Raises:
        BindingMismatch: Names those that do.
    """
    if metric in kind.metrics:
        return
    hint = f"Use {', '.join(kind.metrics)}."
    if metric in {"f1", "exact_match"}:
        hint += f' {metric} is of yes/no decisions: {{"binding": {{"decoder": {{"decoder": "threshold"}}}}}}.'
    raise BindingMismatch(f"{metric} does not apply, since the model gives {kind.what}.", hint=hint)


def check_applies(metric: Metric, said: Predictions) -> None:
    """Refuse a metric that needs what predictions do not have.

    Raises:
        BindingMismatch: Says what.
    """
    check_metric(metric, type(said))
    reason = lacking(metric, said)
    if reason is not None:
        raise BindingMismatch(f"{metric} does not apply, since {reason}.", hint=_instead(metric, said))


def lacking(metric: Metric, said: Predictions) -> str | None:
    """What a metric needs that predictions do not have; None where it applies to them."""
    match said:
        case Classes(_, top) if metric in TOPS and (top is None or top.shape[1] < TOPS[metric]):
            return f"the model has no more than {TOPS[metric]} classes, or gives one without scores"
        case Classes(_, _, scores) | Decisions(_, _, scores) if metric in SCORED and scores is None:
            return "the output gives no scores, or more than are kept of a sample"
        case Decisions(_, shape) if metric in {"auc", "macro_f1"} and len(shape) > 1:
            return f"it is a mean over labels, and a sample has decisions of the shape {list(shape)}"
        case Values(numbers) if metric == "spearman" and numbers.shape[1] != 1:
            return f"it ranks samples by one value each, and a sample has {numbers.shape[1]:,}"
        case Embeddings(_, pairs) if metric == "spearman" and pairs is None:
            return "rows are no pairs with a score"
        case _:
            return None


def _instead(metric: Metric, said: Predictions) -> str:
    match said:
        case Classes():
            return "Use accuracy" + (
                ", or name an output that gives the score of each class." if metric in SCORED else "."
            )
        case Decisions():
            return "Use f1, which is of all decisions."
        case Embeddings():
            return (
                'Name the second of each pair: {"decoder": {"decoder": "embedding", "second": {...}}}, or use cosine.'
            )
        case _:
            return "Use rmse, mae or r2."


def undefined(metric: Metric, said: Predictions, truth: Predictions) -> str | None:
    """Why a metric is no number on these samples; None where it is one.

    Args:
        metric: The metric.
        said: What a model says.
        truth: What that is held against.
    """
    reason = lacking(metric, said)
    if reason is None and (isinstance(said, Values | Embeddings) or metric in SCORED):
        for what, rows in (("output", said.not_finite), ("target", truth.not_finite)):
            if len(rows):
                return f"the {what} is not finite for {len(rows):,} of {len(said):,} samples"
    return reason or _untold(metric, truth) or _unsaid(metric, said, truth)


def _untold(metric: Metric, truth: Predictions) -> str | None:
    """Why the target alone leaves a metric undefined."""
    match truth:
        case Classes(labels) if metric == "auc" and (labels == labels[:1]).all():
            return (
                f"all of the {len(labels):,} samples are of class {labels[0]}, so that no other can be ranked below it"
            )
        case Decisions() if metric == "auc" and not _both(truth):
            return "the target is yes for all samples or for none"
        case Decisions(bits) if metric == "macro_f1" and not bits.any():
            return "the target is no everywhere"
        case Values(numbers) if metric in {"r2", "spearman"} and (numbers == numbers[:1]).all():
            return "the target is the same everywhere"
        case Embeddings(_, pairs) if metric == "spearman" and pairs is not None and (pairs == pairs[:1]).all():
            return "the target is the same everywhere"
        case _:
            return None


def _unsaid(metric: Metric, said: Predictions, truth: Predictions) -> str | None:
    """Why what the model says leaves a metric undefined."""
    match said, truth:
        case Decisions(found), Decisions(wanted) if metric == "f1" and not (found.any() or wanted.any()):
            return "nothing is yes, neither in the target nor by the model"
        case Values(numbers), Values() if metric == "spearman" and (numbers == numbers[:1]).all():
            return "the model says the same everywhere"
        case Embeddings(_, pairs), Embeddings() if metric == "spearman" and pairs is not None:
            return "the model says the same everywhere" if (pairs == pairs[:1]).all() else None
        case _:
            return None


def _both(truth: Decisions) -> bool:
    """Whether a label is yes for some samples and no for others."""
    return bool((np.bitwise_or.reduce(truth.bits, 0) & ~np.bitwise_and.reduce(truth.bits, 0)).any())


def check_defined(metric: Metric, said: Predictions, truth: Predictions) -> None:
    """Refuse a metric that is no number on these samples.

    Raises:
        BadDataset: Says why.
    """
    _refuse(metric, undefined(metric, said, truth))


def tells(metric: Metric, labels: Predictions) -> bool:
    """Whether labels tell anything by a metric, whatever a model says."""
    return _silence(metric, labels) is None


def check_labels_tell(metric: Metric, labels: Predictions | None) -> None:
    """Refuse a metric of which the labels tell nothing, whatever a model says.

    Raises:
        BadDataset: Says why.
    """
    if labels is not None:
        _refuse(metric, _silence(metric, labels))


def _silence(metric: Metric, labels: Predictions) -> str | None:
    # By the model's yes alone f1 is a number, 0, but it tells nothing.
    if isinstance(labels, Decisions) and metric == "f1" and not labels.bits.any():
        return f"the target is no everywhere, in all of the {len(labels):,} rows"
    return _untold(metric, labels)


def _refuse(metric: Metric, reason: str | None) -> None:
    if reason is not None:
        hint = _HINTS.get(metric, "")
        if "not finite" in reason:
            hint = "Leave out rows whose target is no number, or use a metric that counts them as wrong."
        raise BadDataset(f"{metric} is no number on these samples: {reason}.", hint=hint)
