"""One training job, from the request to the model's file and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from accel.compress import compress
from accel.errors import (
    AccelError,
    BadDataset,
    BindingMismatch,
    DataRequired,
    LabelsOutOfRange,
    RuntimeUnavailable,
    TrainingFailed,
)
from accel.request import CompressRequest
from accel.request.training import TrainRequest
from accel.training.checkpoint import read
from accel.training.fit import Diverged
from accel.training.train import train
from accel.training.trained import Trained
from tests import models
from tests.trainings import classes, normalized, numbers, request, weights

ADAM = {"optimizer": "adam", "learning_rate": 0.02}


def quiet(*_: object) -> None:
    pass


def test_a_classifier_is_trained_further_and_proved(tmp_path: Path) -> None:
    model = normalized()
    asked = request(
        tmp_path,
        model,
        classes(tmp_path / "d.npz"),
        settings={"epochs": 6},
        optimizer=ADAM,
        target={"metric": "accuracy", "value": 0.6},
    )
    trained = train(asked, quiet)
    report, (file,) = trained.report, trained.files
    assert file.parent_id == report.parent_id == "m"
    assert (report.train_rows, report.validation_rows) == (216, 24)
    assert report.started_from is not None
    assert report.value is not None
    assert report.value.value > max(0.6, report.started_from)
    assert report.value.low is not None
    assert report.value.low < report.value.value
    assert report.value.value == max(point.metric or 0 for point in report.curve)
    assert report.max_abs_difference is not None
    assert report.max_abs_difference < 1e-4
    assert report.target is not None
    assert report.target.reached
    assert report.target.epochs == next(point.epochs for point in report.curve if (point.metric or 0) >= 0.6)
    assert report.steps == 6 * 7
    assert report.epochs == 6
    assert report.parameters_trained == 6 * 9 + 12 + 24 * 4 + 4
    assert report.size_bytes == file.path.stat().st_size
    assert (report.stopped_because, report.task, report.metric) == ("epochs", "classification", "accuracy")
    assert report.settings["optimizer"] == asked.optimizer.model_dump(mode="json")
    before, after = weights(model), weights(file.path)
    assert before.keys() == after.keys()
    assert all((before[name] != after[name]).any() for name in before)
    assert [node.op_type for node in onnx.load(file.path).graph.node] == [node.op_type for node in model.graph.node]
    # The file says what the report says.
    held = np.load(asked.dataset.path)
    (scores,) = models.run(file.path, {"image": held["image_train"]}).values()
    assert (scores.argmax(1) == held["y_train"]).mean() > 0.6
    assert Trained.model_validate_json(trained.model_dump_json()) == trained


def test_the_same_request_gives_the_same_bytes(tmp_path: Path) -> None:
    data = classes(tmp_path / "d.npz")
    by = [{"augmentation": "crop"}, {"augmentation": "mixup"}]
    one, two, other = (
        train(request(tmp_path, normalized(), data, augmentation=by, settings={"seed": seed, "validation": 0}), quiet)
        .files[0]
        .path
        for seed in (1, 1, 2)
    )
    assert one.read_bytes() == two.read_bytes()
    assert one.read_bytes() != other.read_bytes()


def test_a_regression_is_trained_and_judged_by_its_error(tmp_path: Path) -> None:
    asked = request(tmp_path, models.regression(), numbers(tmp_path / "d.npz"), settings={"epochs": 20}, optimizer=ADAM)
    report = train(asked, quiet).report
    assert (report.task, report.metric) == ("regression", "rmse")
    assert report.value is not None
    assert report.started_from is not None
    assert report.value.value < report.started_from / 4


@pytest.mark.parametrize("last", [None, "Sigmoid"])
def test_labels_of_yes_and_no_are_trained(tmp_path: Path, last: str | None) -> None:
    with np.load(classes(tmp_path / "c.npz")) as held:
        image, y = held["image_train"], np.eye(4, dtype=np.float32)[held["y_train"]]
    np.savez(tmp_path / "d.npz", image_train=image, y_train=np.maximum(y, np.roll(y, 1, 1)))
    asked = request(
        tmp_path,
        normalized(last=last),
        tmp_path / "d.npz",
        task="multi_label",
        settings={"epochs": 6},
        optimizer=ADAM,
        loss={"loss": "binary_cross_entropy", "positive_weights": "balanced"},
    )
    report = train(asked, quiet).report
    assert (report.task, report.metric) == ("multi_label", "f1")
    assert report.binding.decoder is not None
    assert report.binding.decoder.model_dump() == {"decoder": "threshold", "at": 0.5 if last else 0.0}
    assert report.value is not None
    assert report.value.value > 0.7


def test_a_softmax_at_the_end_is_read_through(tmp_path: Path) -> None:
    data = classes(tmp_path / "d.npz")
    found = [train(request(tmp_path, normalized(last=last), data), quiet).files[0].path for last in (None, "Softmax")]
    one, two = (weights(path) for path in found)
    assert all(np.allclose(one[name], two[name], atol=1e-5) for name in one)


def test_a_new_model_is_made_and_trained(tmp_path: Path) -> None:
    with np.load(classes(tmp_path / "c.npz")) as held:
        x, y = held["image_train"], held["y_train"]
    pixels = np.clip(x * 40 + 128, 0, 255).astype(np.uint8)
    np.savez(tmp_path / "d.npz", x_train=pixels, y_train=y)
    asked = request(
        tmp_path,
        None,
        tmp_path / "d.npz",
        architecture={"architecture": "cnn", "channels": [8], "dropout": 0.1},
        settings={"epochs": 8},
        optimizer=ADAM,
    )
    trained = train(asked, quiet)
    assert trained.report.parent_id is None
    assert trained.files[0].parent_id is None
    source = trained.report.binding.inputs["x"].model_dump()
    assert source["column"] == "x"
    assert [step["step"] for step in source["steps"]] == ["scale"]
    assert trained.report.value is not None
    assert trained.report.value.value > 0.6
    assert (
        trained.report.parameters_trained == trained.files[0].summary.parameters - 2 * 8
    )  # running statistics are not


def test_frozen_weights_stay(tmp_path: Path) -> None:
    model = normalized()
    asked = request(tmp_path, model, classes(tmp_path / "d.npz"), frozen=["conv_*", "scale"], optimizer=ADAM)
    trained = train(asked, quiet)
    before, after = weights(model), weights(trained.files[0].path)
    best = trained.report.best_epochs
    assert best
    assert (before["conv_w"] == after["conv_w"]).all()
    assert (before["scale"] == after["scale"]).all()
    assert (before["w"] != after["w"]).any()
    with pytest.raises(TrainingFailed, match="No weight of the model is called 'head'"):
        train(request(tmp_path, model, classes(tmp_path / "d.npz"), frozen=["head"]), quiet)
    with pytest.raises(TrainingFailed, match="no weights that can be trained"):
        train(request(tmp_path, model, classes(tmp_path / "d.npz"), frozen=["*"]), quiet)


def test_a_model_that_insists_on_its_batch(tmp_path: Path) -> None:
    with np.load(classes(tmp_path / "c.npz", rows=90)) as held:
        np.savez(tmp_path / "d.npz", image_train=held["image_train"], y_train=held["y_train"])
    report = train(request(tmp_path, models.fixed_batch(), tmp_path / "d.npz"), quiet).report
    assert any("insists on batches of 4" in note for note in report.notes)
    assert report.steps == 2 * 21
    assert report.value is not None


def test_weights_in_constants_and_in_branches_are_trained(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((120, 16)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x_train=x, y_train=(x[:, 0] > 0).astype(np.int64) + 2 * (x[:, 1] > 0))
    settings = {"batch_size": 27, "epochs": 1}
    for model in (models.constant_mlp(), models.branching()):
        report = train(request(tmp_path, model, tmp_path / "d.npz", settings=settings), quiet).report
        assert report.parameters_trained > 0
        assert (report.max_abs_difference or 0) < 1e-4


def test_what_no_gradient_reaches_is_told(tmp_path: Path) -> None:
    model = models.regression()
    model.graph.node.append(onnx.helper.make_node("MatMul", ["r", "other_w"], ["other"], "other"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((64, 2), np.float32), "other_w"))
    model.graph.output.append(models._value("other", ["n", 2]))
    report = train(request(tmp_path, model, numbers(tmp_path / "d.npz")), quiet).report
    assert any("1 weights do not change the output" in note and "other_w" in note for note in report.notes)
    assert report.parameters_trained == 16 * 64 + 64 + 64 + 1


def test_nothing_held_out_gives_the_last_weights(tmp_path: Path) -> None:
    report = train(
        request(tmp_path, models.regression(), numbers(tmp_path / "d.npz"), settings={"validation": 0}), quiet
    ).report
    assert report.value is None
    assert report.metric is None
    assert report.best_epochs is None
    assert report.validation_rows == 0
    assert [point.epochs for point in report.curve] == [1, 2]


def test_a_killed_job_goes_on_from_the_state_that_it_told_of(tmp_path: Path) -> None:
    data, model = classes(tmp_path / "d.npz"), normalized()
    whole = train(request(tmp_path, model, data, settings={"epochs": 3}), quiet)
    kept: list[Path] = []

    class Killed(Exception):
        pass

    def keep(path: Path) -> None:
        kept.append(path.rename(tmp_path / "kept.safetensors"))
        if read(kept[-1]).header.epoch == 2:
            raise Killed

    asked = request(tmp_path, model, data, settings={"epochs": 3}, checkpoint_seconds=0)
    with pytest.raises(Killed):
        train(asked, quiet, on_checkpoint=keep)
    again = request(tmp_path, model, data, settings={"epochs": 3}, checkpoint=kept[-1])
    resumed = train(again, quiet)
    assert resumed.files[0].path.read_bytes() == whole.files[0].path.read_bytes()
    assert resumed.report.attempts == 2
    assert resumed.report.epochs == 3
    other = request(tmp_path, model, data, settings={"epochs": 4}, checkpoint=kept[-1])
    with pytest.raises(TrainingFailed, match="settings differ"):
        train(other, quiet)


def test_a_training_that_breaks_leaves_the_best_model(tmp_path: Path) -> None:
    """The learning rate grows until the loss overflows; before that, it gets better."""
    x = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
    y = x[:, :1].copy()
    asked = request(
        tmp_path,
        models.regression(),
        _saved(tmp_path, x_train=x, y_train=y),
        settings={"epochs": 60},
        optimizer={"optimizer": "sgd", "learning_rate": 0.3, "momentum": 0.99},
        schedule={"schedule": "exponential", "factor": 0.99, "warmup": 0.5},
    )
    with pytest.raises(Diverged) as caught:
        train(asked, quiet)
    (file,) = caught.value.files
    assert caught.value.code == "training_failed"
    assert all(np.isfinite(held).all() for held in weights(file.path).values())
    before, after = (models.run(model, {"x": x})["y"] for model in (models.regression(), file.path))
    assert np.square(after - y).mean() < np.square(before - y).mean() / 2


def _saved(tmp_path: Path, **arrays: np.ndarray) -> Path:
    np.savez(tmp_path / "saved.npz", **arrays)
    return tmp_path / "saved.npz"


@pytest.mark.parametrize(
    ("error", "said", "others"),
    [
        (TrainingFailed, "A batch of 500 rows is larger than the 216 rows", {"settings": {"batch_size": 500}}),
        (BadDataset, "no split 'learn'", {"split": "learn"}),
        (BindingMismatch, "mse is of regression, and the task is classification", {"loss": {"loss": "mse"}}),
        (BindingMismatch, "the task is regression", {"task": "regression", "loss": {"loss": "cross_entropy"}}),
        (BindingMismatch, "f1 does not apply", {"metric": "f1"}),
        (
            BindingMismatch,
            "shift fits no input|fits no input",
            {"augmentation": [{"augmentation": "flip"}], "binding": {}},
        ),
        (RuntimeUnavailable, "device cuda, and this host has none", {"settings": {"device": "cuda"}}),
        (
            BindingMismatch,
            "ctc_greedy, and no loss of that is known",
            {"binding": {"decoder": {"decoder": "ctc_greedy"}}},
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, error: type[AccelError], said: str, others: dict[str, Any]) -> None:
    model, data = normalized(), classes(tmp_path / "d.npz")
    if "augmentation" in others:
        x = np.zeros((240, 16), np.float32)
        model, data = (
            models.linear(np.ones((16, 4), np.float32)),
            _saved(tmp_path, x_train=x, y_train=np.arange(240) % 4),
        )
    with pytest.raises(error, match=said) as caught:
        train(request(tmp_path, model, data, **others), quiet)
    assert caught.value.hint


def test_targets_that_do_not_fit_are_named(tmp_path: Path) -> None:
    x = np.zeros((60, 16), np.float32)
    linear = models.linear(np.ones((16, 4), np.float32))
    for y, error, said in (
        (np.full(60, 7), LabelsOutOfRange, "The label 7 is outside the model's 4 classes"),
        (np.full((60, 2), 1.0, np.float32), BindingMismatch, "2 values a sample"),
        (np.full((60, 4), np.nan, np.float32), BadDataset, "is not finite in row 0"),
    ):
        with pytest.raises(error, match=said):
            train(request(tmp_path, linear, _saved(tmp_path, x_train=x, y_train=y), settings={"validation": 0}), quiet)
    with pytest.raises(DataRequired, match="no target to train for"):
        train(request(tmp_path, linear, _saved(tmp_path, x_train=x)), quiet)


def test_a_request_has_one_beginning(tmp_path: Path) -> None:
    good = request(tmp_path, normalized(), tmp_path / "d.npz").model_dump()
    for wrong in (
        {"model": None},
        {"architecture": {"architecture": "mlp"}},
        {"distillation": {}},
        {"finish": True},
        {"target": {"metric": "auc", "value": 1}, "metric": "accuracy"},
    ):
        with pytest.raises(ValueError, match=r"give either|belong together|needs a checkpoint|must be the same"):
            TrainRequest.model_validate(good | wrong)


def test_a_quantized_model_is_trained_as_the_floats_behind_its_integers(tmp_path: Path) -> None:
    """What comes of it is quantized as before, and computes what was trained."""
    data = classes(tmp_path / "d.npz", rows=400)
    trained = train(request(tmp_path, normalized(), data, settings={"epochs": 8}, optimizer=ADAM), quiet)
    folder = tmp_path / "quantized"
    folder.mkdir()
    step = {"technique": "quantize_static", "weight_bits": 4}
    done = compress(
        CompressRequest.model_validate(
            {
                "workspace": folder,
                "model": {"model_id": "m", "path": trained.files[0].path},
                "dataset": {"path": data},
                "steps": [step],
                "result_ids": ["q"],
                "measure_speed": False,
            }
        ),
        quiet,
    )
    model = onnx.load(done.files[0].path)
    found = train(
        request(tmp_path, model, data, settings={"epochs": 8}, optimizer={"optimizer": "adam", "learning_rate": 0.005}),
        quiet,
    )
    assert found.files[0].summary.quantized
    assert found.files[0].summary.operators == done.files[0].summary.operators
    assert found.report.value is not None
    assert found.report.started_from is not None
    assert found.report.value.value >= found.report.started_from
    assert found.report.max_abs_difference is not None
    assert found.report.max_abs_difference < 0.05
    before, after = weights(model), weights(found.files[0].path)
    changed = [name for name in before if before[name].dtype.kind in "iu" and (before[name] != after[name]).any()]
    assert bool(changed) == (found.report.best_epochs != 0)
