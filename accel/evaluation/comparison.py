"""A model beside the baseline on the same samples: what was lost, where, and whether the contract holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from accel.evaluation import metrics
from accel.evaluation.changes import class_changes
from accel.evaluation.contract import Contract, Metric, Verdict
from accel.evaluation.decoding import Bools
from accel.evaluation.divergence import divergence
from accel.evaluation.kept import KeptPredictions
from accel.evaluation.predictions import Array, Classes, Predictions
from accel.evaluation.statistics import mcnemar
from accel.evaluation.truth import Truth
from accel.evaluation.undefined import lacking, undefined
from accel.evaluation.verdict import judge
from accel.report import AgainstBaseline, ClassChange


@dataclass(frozen=True, slots=True)
class Ground:
    """What every model of an evaluation is compared on."""

    split: str
    other_splits: tuple[str, ...]
    truth: Truth
    contract: Contract | None
    class_names: Sequence[str] | None
    seed: int

    @property
    def metric(self) -> Metric:
        """The one metric that is compared first."""
        return self.contract.metric if self.contract else self.truth.metrics[0]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Every metric that is compared."""
        return tuple(dict.fromkeys((self.metric, *self.truth.metrics)))


def compare(
    kept: KeptPredictions, baseline: KeptPredictions, ground: Ground, tuned_on: Sequence[str]
) -> AgainstBaseline:
    """Compare a model with the baseline, sample by sample.

    Args:
        kept: What the model says.
        baseline: What the baseline says.
        ground: What both are compared on.
        tuned_on: Splits that choices about the model were made by.

    Raises:
        BadDataset: A metric is no number on these samples.
    """
    said, before, metric, truth = kept.said, baseline.said, ground.metric, ground.truth
    flips = None
    if "agreement" in said.metrics:
        same = metrics.marks("agreement", said, before)
        flips = int((~same).sum()) if metrics.right_or_wrong(same) else None
    drops = {
        name: metrics.drop(name, before, said, against, seed=ground.seed, groups=truth.groups)
        for name in ground.metrics
        if (against := truth.against(name, before)) is not None
        and undefined(name, said, against) is None
        and undefined(name, before, against) is None
    }
    lost = won = p_value = None
    pairs = (_right(name, before, said, truth) for name in dict.fromkeys((metric, "accuracy")))
    pair = next((pair for pair in pairs if pair is not None), None)
    if pair is not None:
        lost, won = int((pair[0] & ~pair[1]).sum()), int((pair[1] & ~pair[0]).sum())
        p_value = mcnemar(lost, won) if truth.groups is None else None
    return AgainstBaseline(
        metric=metric,
        drop=drops.get(metric),
        drops=drops,
        flips=flips,
        lost=lost,
        won=won,
        p_value=p_value,
        groups=None if truth.groups is None else int(truth.groups.max(initial=-1)) + 1,
        classes=_changes(said, before, ground),
        divergence=divergence(
            said,
            before,
            truth.labels,
            _outputs(kept, baseline),
            baseline.outputs,
            seed=ground.seed,
            groups=truth.groups,
        ),
        verdict=verdict(said, before, ground, tuned_on),
    )


def _outputs(kept: KeptPredictions, baseline: KeptPredictions) -> dict[str, Array]:
    """First rows of a model's outputs, by the baseline's names: the outputs that are compared may be called otherwise."""
    compared, name = kept.outputs.get(kept.header.output), baseline.header.output
    return kept.outputs | ({name: compared} if compared is not None else {})


def _right(metric: Metric, baseline: Predictions, said: Predictions, truth: Truth) -> tuple[Bools, Bools] | None:
    """Which samples both have right by the labels; None where a metric does not say that."""
    if truth.labels is None or metric == "agreement" or metric not in said.metrics:
        return None
    if lacking(metric, said) or lacking(metric, baseline):
        return None
    first, second = (metrics.marks(metric, predictions, truth.labels) for predictions in (baseline, said))
    return (first, second) if metrics.right_or_wrong(first) and metrics.right_or_wrong(second) else None


def _changes(said: Predictions, baseline: Predictions, ground: Ground) -> tuple[ClassChange, ...]:
    match said, baseline, ground.truth.labels:
        case Classes(), Classes(), Classes() as labels:
            return class_changes(said, baseline, labels, ground.class_names)
        case _:
            return ()


def verdict(said: Predictions, baseline: Predictions, ground: Ground, tuned_on: Sequence[str]) -> Verdict | None:
    """Judge the contract, if there is one.

    A split that choices about the model were made by settles nothing, however many samples it has; unless the model is broken.
    """
    contract = ground.contract
    if contract is None:
        return None
    if ground.split in tuned_on and not len(said.not_finite):
        free = [split for split in ground.other_splits if split not in tuned_on]
        where = f"such as {free[0]!r}" if free else "which the dataset does not have yet"
        return Verdict(
            outcome="inconclusive",
            contract=contract,
            explanation=f"Choices about this model were made by the split {ground.split!r}, so that its figures there are too good to "
            f"judge it by. Evaluate it on a split that nothing was tuned on, {where}.",
        )
    against = ground.truth.against(contract.metric, baseline)
    return judge(contract, baseline, said, against, seed=ground.seed, groups=ground.truth.groups)
