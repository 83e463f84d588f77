"""The loop: what ends it, what it keeps, and that it goes on as if nothing had been."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from accel.errors import TrainingFailed
from accel.training import checkpoint
from accel.training.assemble import CHECKPOINT, Assembled
from accel.training.fit import Diverged, Fitted, Hooks
from accel.training.loop import fit
from tests import models
from tests.trainings import assembled, classes, normalized, numbers, request


class Killed(Exception):
    pass


def killed_at(step: int) -> Callable[[], None]:
    steps = iter(range(1, step + 1))

    def count() -> None:
        if next(steps) == step:
            raise Killed

    return count


def trained(made: Assembled) -> tuple[Fitted, dict[str, torch.Tensor]]:
    fitted = fit(made.fit)
    return fitted, made.fit.learner.weights()


def alike(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


EVERYTHING: dict[str, Any] = {
    "settings": {"epochs": 3, "ema_decay": 0.9, "clip_norm": 1.0, "accumulate": 2, "early_stopping": {"patience": 9}},
    "optimizer": {"optimizer": "adamw"},
    "schedule": {"schedule": "cosine", "warmup": 3},
    "augmentation": [{"augmentation": "crop", "padding": 1}, {"augmentation": "mixup"}, {"augmentation": "noise"}],
}


@pytest.mark.parametrize("killed", [1, 6, 8])
@pytest.mark.parametrize(
    "others",
    [
        EVERYTHING,
        {"optimizer": {"optimizer": "sgd"}, "schedule": {"schedule": "one_cycle"}, "settings": {"epochs": 3}},
        {"optimizer": {"optimizer": "rmsprop"}, "schedule": {"schedule": "plateau"}, "settings": {"epochs": 3}},
    ],
    ids=["everything", "one_cycle", "plateau"],
)
def test_what_was_killed_goes_on_to_the_same_bits(tmp_path: Path, others: dict[str, Any], killed: int) -> None:
    """Dropout, running statistics, optimiser, schedule, mean, order and augmentation are as if nothing had been."""
    data, model = classes(tmp_path / "d.npz"), normalized()
    undisturbed, expected = trained(assembled(request(tmp_path, model, data, **others)))
    asked = request(tmp_path, model, data, checkpoint_seconds=0, **others)
    with pytest.raises(Killed):
        fit(assembled(asked, Hooks(after_step=killed_at(killed))).fit)
    state = asked.workspace / CHECKPOINT
    resumed = checkpoint.read(state) if state.exists() else None
    made = assembled(asked, None, resumed)
    fitted = fit(made.fit, resumed)
    assert alike(made.fit.learner.weights(), expected)
    for one, two in zip(fitted.header.curve, undisturbed.header.curve, strict=True):
        assert (one.train_loss, one.validation_loss, one.metric, one.learning_rate) == (
            two.train_loss,
            two.validation_loss,
            two.metric,
            two.learning_rate,
        )
    assert fitted.header.attempts == (1 if resumed is None else 2)
    assert fitted.header.seconds >= (0 if resumed is None else resumed.header.seconds)


def test_gradients_that_are_added_up_are_those_of_a_larger_batch(tmp_path: Path) -> None:
    data = numbers(tmp_path / "d.npz", rows=200)
    found = []
    for settings in ({"batch_size": 50}, {"batch_size": 25, "accumulate": 2}, {"batch_size": 10, "accumulate": 5}):
        asked = request(
            tmp_path, models.regression(), data, settings=settings | {"validation": 0}, optimizer={"optimizer": "sgd"}
        )
        found.append(trained(assembled(asked))[1])
    for other in found[1:]:
        assert all(torch.allclose(found[0][name], other[name], atol=1e-6) for name in other)


def test_gradient_descent_takes_one_step_an_epoch_whatever_the_batch(tmp_path: Path) -> None:
    data = numbers(tmp_path / "d.npz", rows=90)
    found = []
    for size in (7, 90, 400):
        asked = request(
            tmp_path,
            models.regression(),
            data,
            settings={"batch_size": size, "epochs": 4, "validation": 0},
            optimizer={"optimizer": "gradient_descent", "learning_rate": 0.02},
        )
        fitted, weights = trained(assembled(asked))
        assert fitted.header.epoch == 4
        found.append(weights)
    for other in found[1:]:
        assert all(torch.allclose(found[0][name], other[name], atol=1e-5) for name in other)


def test_running_statistics_are_learned_or_held(tmp_path: Path) -> None:
    data, model = classes(tmp_path / "d.npz"), normalized()
    for batch_norm in ("train", "hold"):
        asked = request(tmp_path, model, data, settings={"batch_norm": batch_norm, "validation": 0})
        _, weights = trained(assembled(asked))
        mean = weights["statistic.mean"]
        assert bool((mean == 0).all()) == (batch_norm == "hold")


def test_a_loss_that_is_not_finite_names_where_and_keeps_the_best(tmp_path: Path) -> None:
    asked = request(tmp_path, normalized(), classes(tmp_path / "d.npz"), settings={"epochs": 5}, checkpoint_seconds=0)
    made = assembled(asked)
    steps, learner = iter(range(1000)), made.fit.learner

    def break_at_ten() -> None:
        if next(steps) == 10:
            with torch.no_grad():
                next(iter(learner.parameters())).mul_(math.nan)

    made.fit.hooks.after_step = break_at_ten
    with pytest.raises(
        Diverged, match=r"The loss is not finite in epoch 2, step 5 of 7, at a learning rate of"
    ) as caught:
        fit(made.fit)
    assert re.search(
        r"The best weights so far, of epoch 1 \(accuracy 0\.\d+\), are kept in the checkpoint", str(caught.value)
    )
    assert "smaller learning rate" in caught.value.hint
    assert caught.value.best
    assert all(bool(torch.isfinite(held).all()) for held in learner.weights().values())
    kept = checkpoint.read(asked.workspace / CHECKPOINT)
    assert kept.header.finished == "diverged"
    with pytest.raises(TrainingFailed, match="cannot go on"):
        fit(assembled(asked, None, kept).fit, kept)
    again = assembled(asked, None, kept)
    fitted = fit(again.fit, kept, finish=True)
    assert fitted.stopped_because == "diverged"
    assert alike(again.fit.learner.weights(), kept.part("best"))


def test_a_step_that_is_far_too_large_is_told(tmp_path: Path) -> None:
    asked = request(
        tmp_path,
        models.regression(),
        numbers(tmp_path / "d.npz"),
        settings={"epochs": 50},
        optimizer={"optimizer": "sgd", "learning_rate": 1e6},
        schedule={"schedule": "constant"},
    )
    with pytest.raises(Diverged, match=r"learning rate of 1e\+06"):
        fit(assembled(asked).fit)


def test_a_cancelled_training_keeps_what_it_has_and_can_go_on(tmp_path: Path) -> None:
    data, model = classes(tmp_path / "d.npz"), normalized()
    _, expected = trained(assembled(request(tmp_path, model, data)))
    asked = request(tmp_path, model, data)
    asks = iter(range(1000))
    made = assembled(asked, Hooks(cancelled=lambda: next(asks) == 3))
    fitted, weights = trained(made)
    assert fitted.stopped_because == "cancelled"
    assert fitted.header.epoch == 0
    assert 0 < fitted.header.curve[-1].epochs < 1  # judged, since nothing better than the beginning was known
    assert not alike(weights, assembled(asked).fit.learner.weights())
    state = checkpoint.read(asked.workspace / CHECKPOINT)
    again = assembled(asked, None, state)
    assert fit(again.fit, state).stopped_because == "epochs"
    assert alike(again.fit.learner.weights(), expected)


def test_finishing_takes_no_step(tmp_path: Path) -> None:
    asked = request(tmp_path, normalized(), classes(tmp_path / "d.npz"), settings={"epochs": 3}, checkpoint_seconds=0)
    with pytest.raises(Killed):
        fit(assembled(asked, Hooks(after_step=killed_at(12))).fit)
    state = checkpoint.read(asked.workspace / CHECKPOINT)
    made = assembled(asked, Hooks(after_step=killed_at(1)), state)
    fitted = fit(made.fit, state, finish=True)
    assert fitted.stopped_because == "cancelled"
    assert alike(made.fit.learner.weights(), state.part("best"))


def test_the_time_may_be_up_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    now = [0.0]

    def later() -> None:
        now[0] += 1

    asked = request(tmp_path, normalized(), classes(tmp_path / "d.npz"), settings={"epochs": 9, "budget_seconds": 10})
    fitted, _ = trained(assembled(asked, Hooks(after_step=later, clock=lambda: now[0])))
    assert fitted.stopped_because == "budget"
    assert fitted.header.epoch == 1
    assert fitted.header.step == 3
    assert [point.epochs for point in fitted.header.curve] == [0, 1, pytest.approx(1 + 3 / 7, abs=0.02)]
    assert fitted.header.seconds == 10


def test_time_that_was_spent_before_counts(tmp_path: Path) -> None:
    now = [0.0]

    def later() -> None:
        now[0] += 1
        if now[0] == 4:
            raise Killed

    asked = request(
        tmp_path,
        normalized(),
        classes(tmp_path / "d.npz"),
        settings={"epochs": 9, "budget_seconds": 5},
        checkpoint_seconds=0,
    )
    with pytest.raises(Killed):
        fit(assembled(asked, Hooks(after_step=later, clock=lambda: now[0])).fit)
    state = checkpoint.read(asked.workspace / CHECKPOINT)
    assert state.header.seconds == 3
    now[0] = 100.0
    fitted = fit(assembled(asked, Hooks(after_step=later, clock=lambda: now[0]), state).fit, state)
    assert fitted.stopped_because == "budget"
    assert fitted.header.step == 5
    assert fitted.header.seconds == 5


def test_training_stops_when_nothing_gets_better(tmp_path: Path) -> None:
    asked = request(
        tmp_path,
        normalized(),
        classes(tmp_path / "d.npz"),
        settings={"epochs": 50, "early_stopping": {"patience": 2}, "batch_norm": "hold"},
        optimizer={"optimizer": "sgd", "learning_rate": 1e-30, "momentum": 0},
    )
    made = assembled(asked)
    fitted, weights = trained(made)
    assert fitted.stopped_because == "early_stopping"
    assert fitted.header.epoch == 2
    assert fitted.header.best is not None
    assert fitted.header.best.epochs == 0
    assert alike(weights, assembled(asked).fit.learner.weights())


def test_training_stops_at_its_target(tmp_path: Path) -> None:
    asked = request(
        tmp_path,
        normalized(),
        classes(tmp_path / "d.npz"),
        settings={"epochs": 50},
        optimizer={"optimizer": "adam", "learning_rate": 0.02},
        target={"metric": "accuracy", "value": 0.5, "stop": True},
    )
    fitted, _ = trained(assembled(asked))
    assert fitted.stopped_because == "target"
    assert [point.metric is not None and point.metric >= 0.5 for point in fitted.header.curve[:-1]] == [False] * (
        len(fitted.header.curve) - 1
    )


def test_the_best_weights_are_the_result_not_the_last(tmp_path: Path) -> None:
    asked = request(tmp_path, normalized(), classes(tmp_path / "d.npz"), settings={"epochs": 4})
    made = assembled(asked)
    kept: dict[float, dict[str, torch.Tensor]] = {}
    made.fit.hooks.on_epoch = lambda point: kept.update({point.epochs: made.fit.learner.weights()})
    fitted, weights = trained(made)
    best = max(fitted.header.curve, key=lambda point: (point.metric or 0, -point.epochs))
    assert best.best
    assert fitted.header.best is not None
    assert fitted.header.best.epochs == best.epochs
    assert alike(weights, kept[best.epochs])


def test_the_mean_of_the_weights_is_what_is_judged(tmp_path: Path) -> None:
    asked = request(
        tmp_path, models.regression(), numbers(tmp_path / "d.npz"), settings={"ema_decay": 0.5, "validation": 0}
    )
    made = assembled(asked)
    seen: list[dict[str, torch.Tensor]] = []
    made.fit.hooks.after_step = lambda: seen.append(made.fit.learner.weights())
    _, weights = trained(made)
    expected = seen[0]["weight.0"]
    for steps, state in enumerate(seen[1:], 1):
        expected = expected.lerp(state["weight.0"], 1 - min(0.5, (1 + steps) / (10 + steps)))
    assert torch.allclose(weights["weight.0"], expected)


def test_progress_is_told_by_steps_and_by_epochs(tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None, str]] = []
    ticks = iter(np.arange(0.0, 1e5, 0.3).tolist())
    hooks = Hooks(tell=lambda *said: told.append(said), clock=lambda: next(ticks))
    fit(assembled(request(tmp_path, normalized(), classes(tmp_path / "d.npz")), hooks).fit)
    training = [said for said in told if said[0] == "training"]
    assert {said[1] for said in training} == set(range(15))
    assert {said[2] for said in training} == {14}
    assert re.fullmatch(r"epoch 2 of 2, loss \d\.\d{4}, validation loss \d\.\d{4}, accuracy \d\.\d{4}", training[-1][3])


def test_half_precision_learns_too(tmp_path: Path) -> None:
    asked = request(
        tmp_path,
        normalized(),
        classes(tmp_path / "d.npz"),
        settings={"epochs": 6, "precision": "bfloat16"},
        optimizer={"optimizer": "adam", "learning_rate": 0.02},
    )
    fitted, weights = trained(assembled(asked))
    assert fitted.header.best is not None
    assert (fitted.header.best.value or 0) > 0.6
    assert {held.dtype for held in weights.values()} == {torch.float32}
