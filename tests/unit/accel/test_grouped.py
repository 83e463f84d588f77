"""Intervals and verdicts where samples belong to groups, and where outputs or metrics are no numbers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from accel.data.binding import CtcGreedy
from accel.errors import BadDataset
from accel.evaluation import metrics
from accel.evaluation.contract import Contract, Metric
from accel.evaluation.decoding import packed
from accel.evaluation.predictions import Classes, Decisions, Embeddings, Predictions, Values
from accel.evaluation.truth import classes_in, standard_metrics
from accel.evaluation.undefined import undefined
from accel.evaluation.verdict import judge

N = 600


def right(flags: np.ndarray) -> Classes:
    return Classes(flags.astype(np.int64))


ALL_RIGHT = right(np.ones(N, bool))


def width(found: object) -> float:
    return (found.high or 0) - (found.low or 0)  # type: ignore[attr-defined]


def test_rows_of_one_group_are_one_sample() -> None:
    """Each row ten times says no more than each row once, where the copies are known to belong together."""
    flags = np.random.default_rng(0).random(N) < 0.8
    often, groups = np.repeat(flags, 10), np.repeat(np.arange(N), 10)
    truth, copies = ALL_RIGHT, right(np.ones(10 * N, bool))
    once = metrics.estimate("accuracy", right(flags), truth, seed=0)
    grouped = metrics.estimate("accuracy", right(often), copies, seed=0, groups=groups)
    naive = metrics.estimate("accuracy", right(often), copies, seed=0)
    assert width(grouped) == pytest.approx(width(once), rel=0.15)
    assert width(naive) < 0.5 * width(grouped)
    lost = metrics.drop("accuracy", truth, right(flags), truth, seed=0)
    of_groups = metrics.drop("accuracy", copies, right(often), copies, seed=0, groups=groups)
    assert of_groups.value == pytest.approx(lost.value)
    assert width(of_groups) == pytest.approx(width(lost), rel=0.15)


@pytest.mark.parametrize("metric", ["macro_f1", "auc", "log_loss", "ece"])
def test_every_metric_of_classes_takes_groups(metric: Metric) -> None:
    chance = np.random.default_rng(0)
    labels = np.repeat(chance.integers(0, 3, 60), 10)
    logits = chance.standard_normal((60, 3)).repeat(10, 0) + 2 * np.eye(3)[labels]
    said = Classes(logits.argmax(1), scores=logits.astype(np.float32))
    groups = np.repeat(np.arange(60), 10)
    alone = metrics.estimate(metric, said, Classes(labels), seed=0)
    grouped = metrics.estimate(metric, said, Classes(labels), seed=0, groups=groups)
    assert grouped.value == alone.value
    assert width(grouped) > 2 * width(alone)


def test_few_groups_prove_nothing() -> None:
    groups = np.arange(N) % 9
    assert metrics.estimate("accuracy", ALL_RIGHT, ALL_RIGHT, seed=0, groups=groups).low is None
    groups = np.arange(N) % 12
    share = metrics.estimate("accuracy", ALL_RIGHT, ALL_RIGHT, seed=0, groups=groups)
    assert share.value == share.high == 1
    assert (share.low or 1) < 0.8, "of twelve groups one in five may be wrong"
    verdict = judge(Contract(max_drop=0.01), ALL_RIGHT, ALL_RIGHT, ALL_RIGHT, seed=0, groups=groups)
    assert verdict.outcome == "inconclusive"
    assert "600 samples in 12 groups" in verdict.explanation
    assert judge(Contract(max_drop=0.01), ALL_RIGHT, ALL_RIGHT, ALL_RIGHT, seed=0).outcome == "met"


def test_samples_needed_are_told_in_groups_too() -> None:
    flags = np.ones(N, bool)
    flags[: N // 10] = np.random.default_rng(0).random(N // 10) < 0.7
    groups = np.arange(N) // 3
    verdict = judge(Contract(max_drop=0.04), ALL_RIGHT, right(flags), ALL_RIGHT, seed=0, groups=groups)
    assert verdict.outcome == "inconclusive", verdict.explanation
    assert verdict.samples_needed is not None
    assert verdict.samples_needed > N
    needed = int(verdict.explanation.partition(", in ")[2].partition(" groups of such a size")[0].replace(",", ""))
    assert needed == pytest.approx(verdict.samples_needed / 3, abs=1)


def test_a_choice_minds_groups() -> None:
    flags = np.repeat(np.random.default_rng(0).random(60) < 0.9, 10)
    both = [
        metrics.cautious_drop("accuracy", ALL_RIGHT, right(flags), ALL_RIGHT, seed=0, groups=groups)
        for groups in (None, np.repeat(np.arange(60), 10))
    ]
    loss = 1 - flags.mean()
    assert both[1] - loss == pytest.approx((both[0] - loss) * np.sqrt(10), rel=1e-9)


NUMBERS = np.random.default_rng(1).standard_normal((20, 1))
BROKEN = Values(np.where(np.arange(20)[:, None] == 3, np.nan, NUMBERS), np.array([3]))


def test_what_is_not_finite_meets_no_contract() -> None:
    truth = Values(NUMBERS)
    for contract, model in (
        (Contract(metric="rmse", max_drop=99), BROKEN),
        (Contract(max_drop=0.9), Classes(np.r_[-1, np.ones(N - 1, np.int64)], not_finite=np.array([0]))),
    ):
        held = truth if isinstance(model, Values) else ALL_RIGHT
        verdict = judge(contract, held, model, held, seed=0)
        assert verdict.outcome == "not_met"
        assert f"for 1 of {len(held):,} samples" in verdict.explanation
        assert metrics.cautious_drop(contract.metric, held, model, held, seed=0) == np.inf
    blamed = judge(Contract(metric="rmse"), BROKEN, truth, truth, seed=0)
    assert (blamed.outcome, blamed.samples_needed) == ("inconclusive", None)
    assert "baseline" in blamed.explanation


ONES = Classes(np.ones(20, np.int64), scores=np.tile(np.array([0.2, 0.8], np.float32), (20, 1)))
NO, YES = (Decisions(packed(np.full((20, 3), yes)), (3,), np.ones((20, 3), np.float32)) for yes in (False, True))
FLAT, SLOPE = Values(np.ones((20, 1))), Values(np.arange(20.0)[:, None])
UNDEFINED: list[tuple[Metric, Predictions, Predictions, str]] = [
    ("auc", ONES, ONES, "all of the 20 samples are of class 1"),
    ("auc", YES, YES, "yes for all samples or for none"),
    ("auc", Classes(ONES.best, None, ONES.scores, np.array([2])), ONES, "the output is not finite for 1 of 20"),
    ("log_loss", Classes(ONES.best, None, ONES.scores, np.array([2])), ONES, "the output is not finite for 1 of 20"),
    ("macro_f1", YES, NO, "no everywhere"),
    ("f1", NO, NO, "nothing is yes"),
    ("r2", SLOPE, FLAT, "the target is the same everywhere"),
    ("spearman", SLOPE, FLAT, "the target is the same everywhere"),
    ("spearman", FLAT, SLOPE, "the model says the same everywhere"),
    ("mae", BROKEN, SLOPE, "the output is not finite"),
    ("mae", SLOPE, BROKEN, "the target is not finite"),
    ("spearman", Embeddings(None, np.ones(20)), Embeddings(None, np.arange(20.0)), "the model says the same"),
]


@pytest.mark.parametrize(("metric", "said", "truth", "reason"), UNDEFINED)
def test_a_metric_that_is_no_number_says_why(
    metric: Metric, said: Predictions, truth: Predictions, reason: str
) -> None:
    found = undefined(metric, said, truth)
    assert found is not None
    assert reason in found
    for work in (
        lambda: metrics.value(metric, said, truth),
        lambda: metrics.estimate(metric, said, truth, seed=0),
        lambda: metrics.drop(metric, said, said, truth, seed=0),
    ):
        with pytest.raises(BadDataset, match=f"^{metric} is no number on these samples: .*{reason}"):
            work()


def test_a_constant_model_keeps_no_contract_on_order() -> None:
    verdict = judge(Contract(metric="spearman"), SLOPE, FLAT, SLOPE, seed=0)
    assert verdict.outcome == "not_met"
    assert "model says the same everywhere" in verdict.explanation


@pytest.mark.parametrize(
    ("said", "labels", "expected"),
    [
        (ONES, ONES, "accuracy macro_f1 log_loss ece"),
        (ONES, Classes(np.arange(20) % 2), "accuracy macro_f1 auc log_loss ece"),
        (Classes(ONES.best, np.zeros((20, 6), np.int64)), ONES, "accuracy top5_accuracy macro_f1"),
        (YES, YES, "f1 macro_f1 accuracy exact_match"),
        (YES, NO, "accuracy exact_match"),
        (YES, Decisions(packed(np.arange(60).reshape(20, 3) % 2 > 0), (3,)), "f1 macro_f1 accuracy exact_match auc"),
        (SLOPE, SLOPE, "rmse mae r2 spearman"),
        (SLOPE, FLAT, "rmse mae"),
        (Values(np.ones((9, 2))), Values(np.arange(18.0).reshape(9, 2)), "rmse mae r2"),
        (BROKEN, SLOPE, ""),
        (Embeddings(None, np.arange(9.0)), Embeddings(None, np.arange(9.0)), "spearman"),
        (Embeddings(np.ones((9, 2), np.float32)), Embeddings(np.ones((9, 2), np.float32)), "cosine"),
    ],
)  # fmt: skip
def test_standard_metrics_are_those_that_tell_something(said: Predictions, labels: Predictions, expected: str) -> None:
    assert " ".join(standard_metrics(labels, said)) == expected


def test_classes_of_an_output() -> None:
    f32, i64 = np.dtype(np.float32), np.dtype(np.int64)
    assert classes_in("classes", ("n", 10), f32) == 10
    assert classes_in("classes", ("n", 10, 1, 1), f32) == 10
    assert classes_in("classes", ("n",), f32) == classes_in("classes", ("n", 1), f32) == 2
    assert classes_in("classes", ("n",), i64) is None
    assert classes_in("classes", ("n", "c"), f32) is None
    assert classes_in(CtcGreedy(), ("n", 7, 5)) == 5
    assert classes_in("values", (8, 5)) is None


@pytest.mark.parametrize("metric", ["auc", "log_loss", "ece", "r2", "spearman", "cosine"])
def test_contracts_on_every_new_metric_are_judged(metric: Metric) -> None:
    """A slightly noisy twin keeps a wide bound; one that says something else breaks it."""
    chance = np.random.default_rng(0)
    labels = chance.integers(0, 3, N)
    logits = chance.standard_normal((N, 3)) + 3 * np.eye(3)[labels]

    def said(noise: float, shift: float) -> Predictions:
        other = logits + noise * chance.standard_normal((N, 3)) + shift * np.roll(np.eye(3), 1, 1)[labels]
        if metric in {"r2", "spearman"}:
            return Values(other[:, :1])
        if metric == "cosine":
            return Embeddings(other.astype(np.float32))
        return Classes(other.argmax(1), scores=other.astype(np.float32))

    baseline, twin, broken = said(0, 0), said(0.05, 0), said(1, 9)
    truth = baseline if isinstance(baseline, Values | Embeddings) else Classes(labels)
    contract = Contract(metric=metric, max_drop=0.05)
    assert judge(contract, baseline, twin, truth, seed=0).outcome == "met"
    worse = judge(contract, baseline, broken, truth, seed=0)
    assert worse.outcome == "not_met", worse.explanation
    assert ("rises" in worse.explanation) == (metric in {"log_loss", "ece"})


def test_shares_of_samples_need_no_heavy_library() -> None:
    """scikit-learn takes most of a second to load, which a recipe with a contract on accuracy need not pay."""
    said = (
        "import sys, numpy as np; from accel.evaluation import metrics, verdict; from accel.evaluation.contract import Contract; "
        "from accel.evaluation.predictions import Classes; a = Classes(np.arange(40) % 3); g = np.arange(40) // 2; "
        "metrics.estimate('accuracy', a, a, seed=0, groups=g); verdict.judge(Contract(), a, a, a, seed=0, groups=g); "
        "assert not {'sklearn', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", said], check=True, timeout=60)
