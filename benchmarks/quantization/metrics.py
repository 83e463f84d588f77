"""From a model's outputs to one verdict a sample. Needs NumPy alone: the peers' processes use it too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from quantization.bundle import Array, Bundle, Samples

_BINS = 2048
Outcome = dict[str, Array]
"""``right`` [samples]; or for the area under the curve ``positives`` and ``negatives`` [samples, bins], and ``value``."""


class Judge:
    """Collects outputs call by call and holds them against what is true."""

    def __init__(self, bundle: Bundle, samples: Samples) -> None:
        self._bundle, self._samples = bundle, samples
        self._said: list[Array] = []
        self._places: list[npt.NDArray[np.int64]] = []

    def add(self, output: Array, start: int, stop: int) -> None:
        """Take in the output for the samples from ``start`` to ``stop``, reduced to what the metric needs."""
        ranked = self._bundle.metric == "auc"
        self._said.append(output.reshape(stop - start, -1) if ranked else output.argmax(-1))
        self._places.append(np.arange(start, stop))

    def outcome(self) -> Outcome:
        """What came out, sample by sample."""
        said, places, columns = np.concatenate(self._said), np.concatenate(self._places), self._samples.columns
        match self._bundle.metric:
            case "accuracy":
                return {"right": said == columns["y"][places]}
            case "accepted":
                return {"right": columns["accepted"][places, said].astype(np.bool_)}
            case "exact_match":
                characters = self._samples.notes["characters"].tolist()
                return {"right": np.array([read(row, characters) for row in said]) == columns["text"][places]}
            case "auc":
                labels = columns["labels" if "labels" in columns else "y"].reshape(len(self._samples), -1)
                return _ranked(said.astype(np.float64), labels[places] > 0)


def read(indices: Array, characters: Sequence[str]) -> str:
    """Text of the best path of a CTC output: repetitions and blanks (0) fall away."""
    kept = indices[(indices != 0) & (indices != np.concatenate([[0], indices[:-1]]))]
    return "".join(characters[index - 1] for index in kept.tolist()).strip()


def value(outcome: Outcome, weights: npt.NDArray[np.float64] | None = None) -> float:
    """The metric, each sample counted as often as its weight says."""
    if "right" in outcome:
        return float(np.average(outcome["right"], weights=weights))
    if weights is None:
        return float(outcome["value"])
    return _area(weights @ outcome["positives"], weights @ outcome["negatives"])


def _ranked(scores: npt.NDArray[np.float64], labels: npt.NDArray[np.bool_]) -> Outcome:
    """Counts by sample and by rank, so that resampling of samples needs no sorting."""
    levels, place = np.unique(scores, return_inverse=True)
    place = place.reshape(scores.shape)
    exact = _area(np.bincount(place[labels], minlength=len(levels)), np.bincount(place[~labels], minlength=len(levels)))
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins, count = np.searchsorted(edges, scores), len(edges) + 1
    positives, negatives = (
        np.stack([np.bincount(row[chosen], minlength=count) for row, chosen in zip(bins, where, strict=True)])
        for where in (labels, ~labels)
    )
    return {"positives": positives, "negatives": negatives, "value": np.array(exact)}


def _area(positives: Array, negatives: Array) -> float:
    """Area under the ROC curve from counts in ascending order of score; ties count half."""
    p, n = positives.astype(np.float64), negatives.astype(np.float64)
    return float((p * (np.cumsum(n) - n / 2)).sum() / (p.sum() * n.sum()))
