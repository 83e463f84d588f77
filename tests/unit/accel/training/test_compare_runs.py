"""Several trainings beside each other."""

from __future__ import annotations

import pytest

from accel.errors import BindingMismatch
from accel.report.training import EpochPoint, TrainReport
from accel.training.compare_runs import compare_runs
from accel.training.train import train
from tests.trainings import classes, normalized, request


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> TrainReport:
    folder = tmp_path_factory.mktemp("compared")
    asked = request(folder, normalized(), classes(folder / "d.npz"), settings={"epochs": 1})
    return train(asked, lambda *_: None).report


def run(report: TrainReport, name: str, values: list[float], *, pace: float = 1.0, **settings: object) -> TrainReport:
    curve = tuple(
        EpochPoint(
            epochs=epoch,
            seconds=epoch * pace,
            train_loss=None,
            validation_loss=None,
            metric=value,
            learning_rate=0.1,
            samples_per_second=None,
        )
        for epoch, value in enumerate(values)
    )
    return report.model_copy(update={"model_id": name, "curve": curve, "settings": dict(report.settings) | settings})


def test_time_and_epochs_to_a_target_are_compared(report: TrainReport) -> None:
    slow = run(report, "slow", [0.1, 0.5, 0.8, 0.9], pace=2.0, optimizer={"optimizer": "sgd", "momentum": 0.9})
    fast = run(report, "fast", [0.1, 0.85, 0.88], optimizer={"optimizer": "adam"})
    never = run(report, "never", [0.1, 0.2], optimizer={"optimizer": "sgd", "momentum": 0.0})
    found = compare_runs([slow, fast, never], 0.8)
    times = {one.model_id: one.target for one in found.runs}
    assert (times["slow"].epochs, times["slow"].seconds) == (2, 4)  # type: ignore[union-attr]
    assert (times["fast"].epochs, times["fast"].seconds) == (1, 1)  # type: ignore[union-attr]
    assert times["never"] is not None
    assert not times["never"].reached
    assert [one.speedup for one in found.runs] == [1.0, 4.0, None]
    assert found.fastest == "fast"
    assert [one.best for one in found.runs] == [0.9, 0.88, 0.2]
    assert [one.label for one in found.runs] == [
        "optimizer sgd, momentum 0.9",
        "optimizer adam",
        "optimizer sgd, momentum 0.0",
    ]


def test_without_a_target_all_are_compared_at_what_all_reached(report: TrainReport) -> None:
    found = compare_runs([run(report, "one", [0.1, 0.9]), run(report, "two", [0.1, 0.4, 0.7])])
    assert found.target is not None
    assert found.target.value == 0.7
    assert all(one.target is not None and one.target.reached for one in found.runs)


def test_of_errors_less_is_better(report: TrainReport) -> None:
    rmse = report.model_copy(update={"metric": "rmse"})
    found = compare_runs([run(rmse, "one", [3.0, 1.0]), run(rmse, "two", [3.0, 2.0, 0.5])], 1.0)
    assert found.fastest == "one"
    assert [one.best for one in found.runs] == [1.0, 0.5]


def test_runs_of_different_metrics_are_refused_and_other_hosts_told(report: TrainReport) -> None:
    one = run(report, "one", [0.1, 0.9])
    with pytest.raises(BindingMismatch, match="one by accuracy, two by rmse"):
        compare_runs([one, run(report.model_copy(update={"metric": "rmse"}), "two", [1.0])])
    elsewhere = one.environment.model_copy(update={"fingerprint": "other"})
    notes = compare_runs([one, run(report.model_copy(update={"environment": elsewhere}), "two", [0.5])]).notes
    assert "compare epochs, not seconds" in notes[0]
