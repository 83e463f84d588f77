"""How far a model is from the baseline, whatever the labels say: over all samples, by output, and sample by sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from accel.data.arrays import give_back
from accel.evaluation import metrics
from accel.evaluation.decoding import PADDING, Ints, Symbols, cosines
from accel.evaluation.predictions import (
    Array,
    Classes,
    Decisions,
    Embeddings,
    Floats,
    Predictions,
    Scores,
    Sequences,
    Values,
)
from accel.evaluation.resampling import bootstrap, mean
from accel.evaluation.scores import Probabilities
from accel.report import Divergence, Estimate, OutputNoise, WorstSample

Numbers = npt.NDArray[np.floating]
Measure = Literal["kl_divergence", "abs_difference", "cosine_distance", "edit_distance", "decisions"]

_LEAST = 1e-12
"""A probability below counts as this much: else one that was rounded to 0 would be infinitely far away."""
_WORST = 50
_CHUNK = 1 << 18
"""Numbers that are taken in at a time."""
_SHOWN = 16
"""Entries of a sequence or of a row of values that are shown."""


def divergence(
    said: Predictions,
    baseline: Predictions,
    labels: Predictions | None,
    outputs: Mapping[str, Array],
    baseline_outputs: Mapping[str, Array],
    *,
    seed: int,
    groups: Ints | None = None,
) -> Divergence:
    """Compare what a model says with what the baseline says.

    Args:
        said: What the model says.
        baseline: What the baseline says of the same samples.
        labels: What is true, which is shown beside the worst samples.
        outputs: First rows of the model's outputs.
        baseline_outputs: First rows of the baseline's.
        seed: Seed of the bootstrap.
        groups: Number of each sample's group.
    """
    far, measure = distances(said, baseline)
    agreement = None
    if "agreement" in said.metrics:
        agreement = metrics.estimate("agreement", said, baseline, seed=seed, groups=groups)
    return Divergence(
        agreement=agreement,
        kl_divergence=_mean(far, seed, groups) if far is not None and measure == "kl_divergence" else None,
        outputs=tuple(
            output_noise(name, outputs[name], reference)
            for name, reference in baseline_outputs.items()
            if name in outputs and outputs[name].shape[1:] == reference.shape[1:]
        ),
        ordered_by=measure,
        worst=() if far is None else _worst(far, said, baseline, labels),
    )


def _mean(numbers: Floats, seed: int, groups: Ints | None) -> Estimate | None:
    """The mean of what is finite."""
    known = np.isfinite(numbers)
    if known.all():
        return bootstrap(mean(numbers), len(numbers), seed=seed, groups=groups)
    if not known.any():
        return None
    theirs = None if groups is None else np.unique(groups[known], return_inverse=True)[1].astype(np.int64)
    return bootstrap(mean(numbers[known]), int(known.sum()), seed=seed, groups=theirs)


def output_noise(name: str, output: Array, reference: Array) -> OutputNoise:
    """How far the first rows of an output are from the baseline's; what is not finite in one of the two is left out.

    Args:
        name: Name of the output.
        output: The model's [rows, ...].
        reference: The baseline's [rows, ...], of the same row shape.
    """
    samples = min(len(output), len(reference))
    each = math.prod(reference.shape[1:])
    largest, signal, noise, cosine, known = 0.0, 0.0, 0.0, 0.0, 0
    size = max(1, _CHUNK // max(1, each))
    for start in range(0, samples, size):
        stop = min(start + size, samples)
        one, two = (array[start:stop].reshape(stop - start, each).astype(np.float64) for array in (output, reference))
        finite = np.isfinite(one) & np.isfinite(two)
        one, two = np.where(finite, one, 0), np.where(finite, two, 0)
        difference = one - two
        largest = max(largest, float(np.abs(difference).max(initial=0)))
        signal, noise = signal + float((two**2).sum()), noise + float((difference**2).sum())
        whole = finite.all(1)
        cosine, known = cosine + float(cosines(one[whole], two[whole]).sum()), known + int(whole.sum())
        give_back(output)
        give_back(reference)
    return OutputNoise(
        output=name,
        samples=samples,
        snr_db=10 * math.log10(signal / noise) if signal > 0 and noise > 0 else None,
        max_abs_difference=largest,
        cosine=cosine / known if known and each > 1 else None,
    )


def _worst(
    far: Floats, said: Predictions, baseline: Predictions, labels: Predictions | None
) -> tuple[WorstSample, ...]:
    """The samples that differ most, of equals the first; before all others those where only one of the two is finite."""
    broken = np.setxor1d(said.not_finite, baseline.not_finite)[:_WORST]
    known = np.nan_to_num(far, nan=0.0, posinf=np.inf)
    least = np.partition(known, -_WORST)[-_WORST] if len(known) > _WORST else 0.0
    differing = np.flatnonzero(known > max(least, 0.0))
    order = differing[np.argsort(-known[differing], kind="stable")]
    if least > 0:
        order = np.concatenate([order, np.flatnonzero(known == least)[: _WORST - len(order)]])
    return tuple(
        WorstSample(
            row=int(row),
            difference=None if np.isnan(far[row]) else float(far[row]),
            label=None if labels is None else answer(labels, row),
            baseline=answer(baseline, row),
            model=answer(said, row),
        )
        for row in np.concatenate([broken, order])[:_WORST]
    )


def answer(said: Predictions, row: int) -> int | float | str | None:
    """What is said of one sample, so that people can read it."""
    match said:
        case Classes():
            return int(said.best[row])
        case Values():
            numbers = said.numbers[row]
            return _finite(float(numbers[0])) if len(numbers) == 1 else _listed([f"{number:.4g}" for number in numbers])
        case Sequences():
            symbols = said.symbols[row]
            return _listed([f"{symbol}" for symbol in symbols[symbols != PADDING]])
        case Decisions():
            yes = int(np.bitwise_count(said.bits[row]).sum())
            return yes if said.each == 1 else f"{yes} of {said.each} yes"
        case Embeddings():
            return None if said.pairs is None else _finite(float(said.pairs[row]))


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _listed(entries: list[str]) -> str:
    return " ".join(entries[:_SHOWN]) + (" ..." if len(entries) > _SHOWN else "")


def distances(said: Predictions, baseline: Predictions) -> tuple[Floats | None, Measure | None]:
    """The distance of each sample [samples], NaN where one of the two is not finite, and what it is a distance of.

    Of classes without scores it is 1 where they differ, which has no name; None where the two cannot be held against each other.
    """
    far: Floats | None = None
    measure: Measure | None = None
    match said, baseline:
        case Classes(), Classes():
            one, two = said.scores, baseline.scores
            if one is not None and two is not None and one.shape == two.shape:
                far, measure = kl_divergences(one, two), "kl_divergence"
            else:
                far = (said.best != baseline.best).astype(np.float64)
        case Values(), Values() if said.numbers.shape == baseline.numbers.shape:
            far, measure = _largest_differences(said.numbers, baseline.numbers), "abs_difference"
        case Sequences(), Sequences():
            far, measure = edit_distances(said.symbols, baseline.symbols), "edit_distance"
        case Decisions(), Decisions() if said.shape == baseline.shape:
            far, measure = np.bitwise_count(said.bits ^ baseline.bits).sum(1).astype(np.float64), "decisions"
        case Embeddings(), Embeddings():
            one, two = said.vectors, baseline.vectors
            if said.pairs is not None and baseline.pairs is not None:
                far, measure = np.abs(said.pairs - baseline.pairs), "abs_difference"
            elif one is not None and two is not None and one.shape == two.shape:
                far, measure = _by_rows(_cosine_distances, one, two), "cosine_distance"
        case _:
            pass
    if far is not None:
        far[np.union1d(said.not_finite, baseline.not_finite)] = np.nan
    return far, measure


def kl_divergences(said: Scores, baseline: Scores) -> Floats:
    """Kullback-Leibler divergence of each sample's probabilities from the baseline's [samples], in nats.

    Source: Kullback and Leibler, Ann. Math. Stat. 22, 1951. What the model rules out although the baseline does not would be
    infinitely far away: no probability counts as less than 1e-12.

    Args:
        said: Probabilities or logits of the model [samples, classes].
        baseline: Those of the baseline.
    """
    far = np.empty(len(said))
    for (start, q), (_, p) in zip(Probabilities.of(said).chunks(), Probabilities.of(baseline).chunks(), strict=True):
        logs = np.log(np.maximum(p, _LEAST)) - np.log(np.maximum(q, _LEAST))
        far[start : start + len(p)] = np.maximum((p * logs).sum(1), 0)  # rounding makes it a little less than 0
    return far


def edit_distances(first: Symbols, second: Symbols) -> Floats:
    """Insertions, deletions and replacements that make one sequence of the other, for each sample [samples].

    Source: Levenshtein, Soviet Physics Doklady 10, 1966; here for all samples at once.

    Args:
        first: Sequences [samples, longest], filled up with ``PADDING``.
        second: Others [samples, longest], which may be of another width.
    """
    far = np.empty(len(first))
    size = max(1, _CHUNK // (second.shape[1] + 1))
    for start in range(0, len(first), size):
        far[start : start + size] = _edits(first[start : start + size], second[start : start + size])
    return far


def _edits(first: Symbols, second: Symbols) -> Floats:
    places = np.arange(second.shape[1] + 1)
    row = np.repeat(places[None], len(first), 0)
    for symbol in first.T[:, :, None]:
        kept_or_replaced, dropped = row[:, :-1] + (second != symbol), row[:, 1:] + 1
        after = np.concatenate([row[:, :1] + 1, np.minimum(kept_or_replaced, dropped)], 1)
        # An insertion is one step to the right: the least of all that stands to the left, and the way from there.
        after = np.minimum.accumulate(after - places, 1) + places
        row = np.where(symbol == PADDING, row, after)
    return np.asarray(row[np.arange(len(row)), (second != PADDING).sum(1)], np.float64)


def _largest_differences(said: Floats, baseline: Floats) -> Floats:
    return _by_rows(lambda first, second: np.abs(first - second).max(1, initial=0), said, baseline)


def _cosine_distances(first: Numbers, second: Numbers) -> Floats:
    return np.maximum(1 - cosines(first, second), 0)


def _by_rows(measure: Callable[[Numbers, Numbers], Floats], first: Numbers, second: Numbers) -> Floats:
    """A distance of each row, some rows at a time."""
    far = np.empty(len(first))
    size = max(1, _CHUNK // max(1, first.shape[1]))
    with np.errstate(invalid="ignore"):
        for start in range(0, len(first), size):
            far[start : start + size] = measure(first[start : start + size], second[start : start + size])
            give_back(first)
            give_back(second)
    return far
