"""A student that learns from a teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

from accel.errors import AccelError, BindingMismatch, TrainingFailed
from accel.training import checkpoint, teacher
from accel.training.assemble import CHECKPOINT
from accel.training.batches import Batch
from accel.training.distillation import Distillation, FeaturePair
from accel.training.distilling import Distilling, matched, softened
from accel.training.train import train
from tests import models
from tests.trainings import assembled, classes, normalized, numbers, request, weights

ADAM = {"optimizer": "adam", "learning_rate": 0.02}
CPU = torch.device("cpu")


def quiet(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """A teacher that has learned the four quarters."""
    folder = tmp_path_factory.mktemp("teacher")
    asked = request(folder, normalized(), classes(folder / "d.npz", rows=400), settings={"epochs": 10}, optimizer=ADAM)
    return onnx.load(train(asked, quiet).files[0].path)


def test_soft_targets_are_hintons() -> None:
    student, said = torch.randn(5, 4), torch.randn(5, 4)
    found = softened(student, said, 3.0, exclusive=True)
    p, q = torch.softmax(said / 3, 1), torch.softmax(student / 3, 1)
    assert torch.allclose(found, 9 * (p * (p / q).log()).sum(1), atol=1e-5)
    labels = softened(student, said, 2.0, exclusive=False)
    p, q = torch.sigmoid(said / 2), torch.sigmoid(student / 2)
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert torch.allclose(labels, 4 * divergence.mean(1), atol=1e-5)
    assert torch.allclose(softened(said, said, 4.0, exclusive=True), torch.zeros(5), atol=1e-6)


def test_a_student_without_labels_learns_what_its_teacher_knows(tmp_path: Path, taught: onnx.ModelProto) -> None:
    asked = request(
        tmp_path,
        models.convnet(),
        classes(tmp_path / "d.npz", labels=False, rows=400),
        teacher=taught,
        distillation={"temperature": 2.0},
        settings={"epochs": 10},
        optimizer={"optimizer": "adam", "learning_rate": 0.003},
        augmentation=[{"augmentation": "mixup"}, {"augmentation": "noise"}],
    )
    report = train(asked, quiet).report
    assert report.distilled is not None
    assert not report.distilled.labels
    assert report.distilled.teacher_metric is None
    assert report.metric == "agreement"
    assert report.value is not None
    assert report.started_from is not None
    assert report.started_from < 0.6
    assert report.value.value > 0.75


def test_labels_and_teacher_are_learned_from_together(tmp_path: Path, taught: onnx.ModelProto) -> None:
    asked = request(
        tmp_path,
        models.convnet(),
        classes(tmp_path / "d.npz", rows=400),
        teacher=taught,
        distillation={"share": 0.5},
        settings={"epochs": 4},
    )
    report = train(asked, quiet).report
    assert report.distilled is not None
    assert report.distilled.labels
    assert report.distilled.teacher_metric is not None
    assert report.distilled.teacher_metric > 0.7
    assert report.metric == "accuracy"
    times = (report.distilled.onnxruntime_ms, report.distilled.torch_ms)
    assert all(time is not None and time > 0 for time in times)


def test_the_loss_is_the_sum_of_its_parts(tmp_path: Path, taught: onnx.ModelProto) -> None:
    """On the inputs as they were changed, whichever runtime the teacher is in."""
    pair = FeaturePair(teacher="p", student="p", weight=0.5)
    asked = request(
        tmp_path,
        normalized(seed=8),
        classes(tmp_path / "d.npz"),
        teacher=taught,
        distillation={"share": 0.25, "temperature": 2.0, "features": [pair.model_dump()]},
        augmentation=[{"augmentation": "noise", "snr_db": [0, 0]}],
    )
    made = assembled(asked)
    aim, learner = made.fit.aim, made.fit.learner
    assert isinstance(aim, Distilling)
    batch: Batch = next(iter(made.fit.stream.epoch(0)))
    feeds = {name: torch.from_numpy(held) for name, held in batch.feeds.items()}
    with torch.no_grad():
        values = learner(feeds)
        found = float(aim.total(values, batch, CPU))
    said = {name: torch.from_numpy(held) for name, held in _exposed(taught, batch.feeds).items()}
    scores, labels = values["scores"], torch.from_numpy(batch.targets)
    hard = functional.cross_entropy(scores, labels, reduction="sum")
    soft = softened(scores, said["scores"], 2.0, exclusive=True).sum()
    (size,) = aim.sizes.values()
    features = ((values["p"] - said["p"]) ** 2).flatten(1).mean(1).sum() / size
    assert found == pytest.approx(float(0.75 * hard + 0.25 * soft + 0.5 * features), rel=1e-4)


def _exposed(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    copy.graph.output.append(models._value("p", ["n", 6, 2, 2]))
    return models.run(copy, feeds)


def test_inner_values_are_matched_through_a_projection(tmp_path: Path, taught: onnx.ModelProto) -> None:
    """The student has 8 channels of 4 x 4 where the teacher has 6 of 2 x 2; 64 numbers where it has 24: only these fit."""
    given: dict[str, Any] = {"teacher": taught, "settings": {"epochs": 2}, "checkpoint_seconds": 0}
    data = classes(tmp_path / "d.npz")
    pairs = [{"teacher": "f", "student": "hr"}]
    asked = request(tmp_path, models.convnet(), data, distillation={"features": pairs}, **given)
    trained = train(asked, quiet)
    assert trained.report.distilled is not None
    assert trained.report.distilled.features == ("f to hr",)
    assert weights(trained.files[0].path).keys() == weights(models.convnet()).keys()
    state = checkpoint.read(asked.workspace / CHECKPOINT).part("weights")
    assert state["projection.0.linear.weight"].shape == (24, 64)
    with pytest.raises(
        BindingMismatch, match=r"'p' has rows of \[8, 4, 4\], and the teacher's 'p' rows of \[6, 2, 2\]"
    ):
        train(
            request(
                tmp_path, models.convnet(), data, distillation={"features": [{"teacher": "p", "student": "p"}]}, **given
            ),
            quiet,
        )
    with pytest.raises(TrainingFailed, match="no inner value 'nowhere'"):
        train(
            request(
                tmp_path,
                models.convnet(),
                data,
                distillation={"features": [{"teacher": "f", "student": "nowhere"}]},
                **given,
            ),
            quiet,
        )


def test_projections_are_drawn_by_the_seed() -> None:
    pair = FeaturePair(teacher="t", student="s")
    ours, theirs = {"s": torch.randn(3, 5, 4, 4)}, {"t": torch.randn(3, 7, 4, 4)}
    before = torch.random.get_rng_state()
    found = [matched([pair], ours, theirs, seed)[1]["s"] for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(found[0].linear.weight, found[1].linear.weight)
    assert not torch.equal(found[0].linear.weight, found[2].linear.weight)
    assert found[0](ours["s"]).shape == (3, 7, 4, 4)


def test_a_regression_learns_the_teachers_numbers(tmp_path: Path) -> None:
    with np.load(numbers(tmp_path / "n.npz")) as held:
        np.savez(tmp_path / "d.npz", x_train=held["x_train"])
    asked = request(
        tmp_path,
        _small(),
        tmp_path / "d.npz",
        task="regression",
        teacher=models.linear(np.linspace(-1, 1, 16, dtype=np.float32)[:, None], name="y"),
        distillation=Distillation().model_dump(),
        settings={"epochs": 20},
        optimizer=ADAM,
    )
    report = train(asked, quiet).report
    assert report.metric == "rmse"
    assert report.value is not None
    assert report.started_from is not None
    assert report.value.value < report.started_from / 10


def _small() -> onnx.ModelProto:
    return models.linear(np.full((16, 1), 0.01, np.float32), name="y")


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_a_killed_student_goes_on_with_its_teacher_where_it_was(
    tmp_path: Path, taught: onnx.ModelProto, runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which runtime is faster may change from day to day; the bits must not."""
    data = classes(tmp_path / "d.npz")
    monkeypatch.setattr(teacher, "_MUCH_FASTER", 1e9 if runtime == "torch" else 1e-9)
    given: dict[str, Any] = {"teacher": taught, "distillation": {}, "checkpoint_seconds": 0}
    whole = train(request(tmp_path, models.convnet(), data, **given), quiet)
    assert whole.report.distilled is not None
    assert whole.report.distilled.runtime == runtime
    kept: list[Path] = []

    class Killed(Exception):
        pass

    def keep(path: Path) -> None:
        kept.append(path)
        if len(kept) == 4:
            raise Killed

    asked = request(tmp_path, models.convnet(), data, **given)
    with pytest.raises(Killed):
        train(asked, quiet, on_checkpoint=keep)
    monkeypatch.setattr(teacher, "_MUCH_FASTER", 1e-9 if runtime == "torch" else 1e9)
    again = train(request(tmp_path, models.convnet(), data, checkpoint=kept[-1], **given), quiet)
    assert again.report.distilled is not None
    assert again.report.distilled.runtime == runtime
    assert again.files[0].path.read_bytes() == whole.files[0].path.read_bytes()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: models.linear(np.ones((64, 4), np.float32)), None),
        (
            lambda: models.linear(np.ones((60, 4), np.float32)),
            r"takes rows of \[60\] at 'x', and the student rows of \[1, 8, 8\]",
        ),
        (
            lambda: models.linear(np.ones((64, 3), np.float32)),
            "teacher gives 3 numbers for a sample, and the student 4",
        ),
        (models.embedding, "has an input 'ids', and the student has none"),
    ],
)
def test_a_teacher_that_does_not_fit_is_named(tmp_path: Path, model: Any, said: str | None) -> None:
    asked = request(
        tmp_path,
        models.convnet(),
        classes(tmp_path / "d.npz"),
        teacher=model(),
        distillation={},
        settings={"epochs": 1},
    )
    if said is None:
        train(asked, quiet)
        return
    with pytest.raises(AccelError, match=said):
        train(asked, quiet)
