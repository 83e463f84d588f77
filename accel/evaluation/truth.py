"""What predictions are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from accel.data.bind import Bound
from accel.data.dataset import Dataset
from accel.errors import BindingMismatch
from accel.evaluation import metrics
from accel.evaluation.contract import Contract, Metric
from accel.evaluation.metrics import Array
from accel.runtimes.onnxruntime import Port


@dataclass(frozen=True, slots=True)
class Truth:
    """The dataset's labels, or nothing but the baseline's own predictions."""

    labels: Array
    metrics: tuple[Metric, ...]
    classes: bool
    labelled: bool


def truth_of(dataset: Dataset, bound: Bound, contracts: Sequence[Contract], outputs: Sequence[Port]) -> Truth | None:
    """What models are held against on some rows; None where no metric applies and no contract asks for one.

    Raises:
        BindingMismatch: A contract needs labels and there are none.
        LabelsOutOfRange: The labels are not the model's classes.
    """
    wanted = contracts[0].metric if contracts else None
    if bound.target is None:
        for contract in contracts:
            if contract.metric != "agreement":
                raise BindingMismatch(
                    f"A contract on {contract.metric} needs labels, and the dataset has no target.",
                    hint='Name it: {"binding": {"target": "<column>"}}, or use the metric agreement.',
                )
        return Truth(np.empty(0, np.int64), ("agreement",), classes=True, labelled=False) if contracts else None
    labels, classes = bound.labels(), dataset.summary.task != "regression"
    if classes:
        labels = labels.reshape(-1) if labels.ndim > 1 and labels.shape[1:] == (1,) else labels
        shape = next(port.shape for port in outputs if port.name == bound.output)
        if labels.ndim != 1 or len(shape) > 2:  # noqa: PLR2004  (labels for each part of a sample: no one metric applies)
            return None
        width = shape[1] if len(shape) == 2 and isinstance(shape[1], int) else None  # noqa: PLR2004
        if width is not None:
            metrics.check_labels(labels, 2 if width == 1 else width, bound.output)
    metric: Metric = wanted or ("accuracy" if classes else "rmse")
    return Truth(labels, (metric,), classes, labelled=True)
