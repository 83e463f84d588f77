"""What a caller may ask for: optimisers, schedules, losses, settings."""

from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from accel.errors import BindingMismatch
from accel.training import augmentation, losses, optimizers, schedules
from accel.training.losses import CrossEntropy, check_target, loss_for
from accel.training.schedules import Course, OneCycle
from accel.training.settings import TrainingSettings

NATIVE = {
    "gradient_descent": torch.optim.SGD,
    "sgd": torch.optim.SGD,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}


@pytest.mark.parametrize("name", NATIVE)
def test_an_optimizer_is_pytorchs_own_with_the_settings(name: str) -> None:
    spec = optimizers.adapter.validate_python({"optimizer": name, "learning_rate": 0.25, "weight_decay": 0.5})
    built = spec.build([{"params": [torch.nn.Parameter(torch.ones(2))]}])
    assert type(built) is NATIVE[name]
    assert built.param_groups[0]["lr"] == 0.25
    assert built.param_groups[0]["weight_decay"] == 0.5
    assert spec.full_batch == (name == "gradient_descent")


def test_what_an_optimizer_does_not_take_is_refused() -> None:
    for given in (
        {"optimizer": "lion"},
        {"optimizer": "adam", "learning_rate": 0},
        {"optimizer": "adam", "learning_rate": math.inf},
        {"optimizer": "adam", "betas": [0.9, 1.0]},
        {"optimizer": "adam", "momentum": 0.9},
        {"optimizer": "sgd", "momentum": 0.0, "nesterov": True},
    ):
        with pytest.raises(ValidationError):
            optimizers.adapter.validate_python(given)


def rates(given: dict[str, object], *, steps: int = 10, epochs: int = 2, optimizer: str = "sgd") -> list[float]:
    """The learning rate of every step, and the one after the last."""
    spec = schedules.adapter.validate_python(given)
    weight = torch.nn.Parameter(torch.ones(2))
    native = optimizers.adapter.validate_python({"optimizer": optimizer, "learning_rate": 1.0}).build(
        [{"params": [weight]}]
    )
    scheduler = spec.build(native, Course(steps, epochs))
    found = []
    for _ in range(steps * epochs):
        found.append(native.param_groups[0]["lr"])
        weight.grad = torch.ones(2)
        native.step()
        scheduler.by_step.step()
    return [*found, native.param_groups[0]["lr"]]


def test_schedules_follow_their_formulas() -> None:
    steps = np.arange(21)
    assert rates({"schedule": "constant"}) == [1.0] * 21
    assert np.allclose(rates({"schedule": "linear"}), 1 - steps / 20)
    assert np.allclose(rates({"schedule": "linear", "end": 0.5}), 1 - steps / 40)
    assert np.allclose(rates({"schedule": "step", "every_epochs": 1}), [1.0] * 10 + [0.1] * 10 + [0.01])
    assert np.allclose(rates({"schedule": "exponential", "factor": 0.5}), 0.5 ** (steps / 10))
    assert np.allclose(rates({"schedule": "cosine"}), (1 + np.cos(np.pi * steps / 20)) / 2)
    cycle = rates({"schedule": "one_cycle"})
    assert max(cycle) == pytest.approx(1.0)
    assert cycle[0] == pytest.approx(0.04)
    assert cycle[-2] == pytest.approx(0.04 * 1e-4)
    assert rates({"schedule": "plateau"}) == [1.0] * 21


def test_a_warm_up_comes_before_the_schedule() -> None:
    found = rates({"schedule": "linear", "warmup": 5})
    assert np.allclose(found[:6], np.linspace(0.01, 1.0, 6))
    assert np.allclose(found[5:], 1 - np.arange(16) / 15)
    assert rates({"schedule": "constant", "warmup": 0.25})[4:6] == [pytest.approx(0.802), 1.0]


@pytest.mark.parametrize("name", ["constant", "linear", "step", "exponential", "cosine", "one_cycle", "plateau"])
@pytest.mark.parametrize(("steps", "epochs"), [(1, 1), (1, 2), (2, 1), (3, 1)])
def test_schedules_take_short_trainings(name: str, steps: int, epochs: int) -> None:
    for warmup in (0,) if name == "one_cycle" else (0, 1, 100):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = rates({"schedule": name, "warmup": warmup}, steps=steps, epochs=epochs, optimizer="adamw")
        assert all(math.isfinite(rate) and rate >= 0 for rate in found)


@pytest.mark.parametrize("name", ["constant", "linear", "step", "exponential", "cosine", "one_cycle", "plateau"])
def test_a_schedules_state_is_json_and_goes_on(name: str) -> None:
    spec = schedules.adapter.validate_python({"schedule": name, "warmup": 0 if name == "one_cycle" else 3})

    def made() -> tuple[torch.optim.Optimizer, schedules.Scheduler]:
        native = optimizers.Sgd(learning_rate=1.0).build([{"params": [torch.nn.Parameter(torch.ones(1))]}])
        return native, spec.build(native, Course(10, 2))

    native, scheduler = made()
    other, resumed = made()
    for step in range(20):
        if step == 7:
            said = json.loads(json.dumps([scheduler.by_step.state_dict(), native.state_dict()]))
            resumed.by_step.load_state_dict(said[0])
            other.load_state_dict(said[1])
        native.step()
        scheduler.by_step.step()
        if step >= 7:
            other.step()
            resumed.by_step.step()
            assert other.param_groups[0]["lr"] == native.param_groups[0]["lr"]


def test_one_cycle_warms_up_itself() -> None:
    with pytest.raises(ValidationError, match="rise"):
        OneCycle(warmup=10)


def test_a_plateau_follows_the_loss() -> None:
    native = optimizers.Sgd(learning_rate=1.0).build([{"params": [torch.nn.Parameter(torch.ones(1))]}])
    plateau = schedules.Plateau(patience=1, factor=0.5).build(native, Course(10, 9)).by_epoch
    assert plateau is not None
    found = []
    for loss in (1.0, 0.9, 0.9, 0.9, 0.8):
        plateau.step(loss)
        found.append(native.param_groups[0]["lr"])
    assert found == [1.0, 1.0, 1.0, 0.5, 0.5]


def test_a_loss_goes_with_the_task() -> None:
    assert loss_for("classification", None) == CrossEntropy()
    assert loss_for("multi_label", None).loss == "binary_cross_entropy"
    assert loss_for("regression", None).loss == "mse"
    huber = losses.adapter.validate_python({"loss": "huber"})
    assert loss_for("regression", huber) == huber
    with pytest.raises(BindingMismatch, match="huber is of regression, and the task is classification"):
        loss_for("classification", huber)


def test_a_loss_and_a_target_that_do_not_fit_are_both_named() -> None:
    with pytest.raises(BindingMismatch, match=r"cross_entropy .* 'price' is of type float32"):
        check_target(CrossEntropy(), "price", np.dtype(np.float32))
    with pytest.raises(BindingMismatch, match=r"binary_cross_entropy .* 'word' is of type <U3"):
        check_target(losses.BinaryCrossEntropy(), "word", np.dtype("U3"))
    with pytest.raises(BindingMismatch, match=r"mse .* 'word'"):
        check_target(losses.MeanSquaredError(), "word", np.dtype("U3"))
    check_target(CrossEntropy(), "y", np.dtype(np.uint8))


def test_settings_that_contradict_each_other_are_refused() -> None:
    assert TrainingSettings(validation="validation").validation == "validation"
    assert TrainingSettings(validation=0).validation == 0
    for given in (
        {"precision": "float16"},
        {"batch_size": 2, "processes": 3},
        {"early_stopping": {}, "validation": 0},
        {"validation": 1.0},
        {"epochs": 0},
        {"ema_decay": 1.0},
        {"clip_norm": 0},
        {"device": "tpu"},
    ):
        with pytest.raises(ValidationError):
            TrainingSettings.model_validate(given)


def test_augmentations_are_told_apart_by_name() -> None:
    for name in ("flip", "crop", "cutout", "mixup", "noise", "shift"):
        assert augmentation.adapter.validate_python({"augmentation": name}).augmentation == name
    with pytest.raises(ValidationError):
        augmentation.adapter.validate_python({"augmentation": "mixup", "alpha": 0})
