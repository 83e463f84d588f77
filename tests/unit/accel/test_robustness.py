"""Corrupted inputs: a model that is equal on clean samples and worse on dirty ones is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from accel import run as engine
from accel.data.binding import Binding
from accel.data.corruption import Corruption
from accel.errors import BindingMismatch
from accel.evaluation.predictions import Classes, Values
from accel.evaluation.robustness import Twice, robustness
from accel.evaluation.truth import Truth
from accel.report import EvaluatedModel, EvaluateReport, SandboxSummary
from accel.request import DatasetFile, EvaluateRequest, ModelFile
from tests import models

ROWS, SIDE = 200, 8


def detector(*, brittle: bool) -> onnx.ModelProto:
    """Whether an image [n, 1, 8, 8] is brighter on the left; a brittle one sees only two pixels."""
    weight = np.zeros((SIDE, SIDE, 2), np.float32)
    if brittle:
        weight[3, 1], weight[3, 6] = (1, 0), (0, 1)
    else:
        weight[:, : SIDE // 2, 0] = weight[:, SIDE // 2 :, 1] = 1 / 32
    nodes = [
        helper.make_node("Flatten", ["image"], ["f"], "flatten"),
        helper.make_node("MatMul", ["f", "w"], ["scores"], "product"),
    ]
    ports = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, SIDE, SIDE]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 2]),
    ]
    return models.assemble(nodes, ports[:1], ports[1:], {"w": weight.reshape(SIDE * SIDE, 2)})


def images() -> dict[str, np.ndarray]:
    chance = np.random.default_rng(0)
    labels = chance.integers(0, 2, ROWS)
    x = np.full((ROWS, SIDE, SIDE), 110, np.uint8)
    for row, label in zip(x, labels, strict=True):
        row[:, label * SIDE // 2 : (label + 1) * SIDE // 2] = 135
    return {"x_test": x, "y_test": labels}


def evaluated(
    folder: Path, *corruptions: Corruption, arrays: dict[str, np.ndarray] | None = None, batch_size: int = 32
):
    workspace = folder / f"work{len(list(folder.iterdir()))}"
    workspace.mkdir()
    np.savez(folder / "d.npz", **(arrays or images()))
    listed = tuple(
        ModelFile(model_id=name, path=models.save(detector(brittle=brittle), folder / f"{name}.onnx"))
        for name, brittle in (("sound", False), ("brittle", True), ("twin", False))
    )
    steps = [{"step": "scale", "multiply": 1 / 255}, {"step": "add_axis", "axis": 1}]
    request = EvaluateRequest(
        workspace=workspace,
        models=listed,
        baseline_id="sound",
        dataset=DatasetFile(path=folder / "d.npz"),
        binding=Binding.model_validate({"inputs": {"image": {"column": "x", "steps": steps}}}),
        corruptions=corruptions,
        batch_size=batch_size,
    )
    report = engine.run(request, SandboxSummary(active=(), missing={}), lambda *_: None).report
    assert isinstance(report, EvaluateReport)
    assert not list(workspace.glob("spool-*"))
    return report.models


def test_a_model_that_is_worse_on_dirty_samples_is_seen(tmp_path: Path) -> None:
    asked = (Corruption(corruption="gaussian_noise", severity=5), Corruption(corruption="brightness", severity=1))
    found: tuple[EvaluatedModel, ...] = evaluated(tmp_path, *asked)
    sound, brittle, twin = found
    assert [model.metrics["accuracy"].value for model in found] == [1, 1, 1]
    for model in found:
        assert [(row.corruption, row.severity, row.metric) for row in model.robustness] == [
            ("gaussian_noise", 5, "accuracy"),
            ("brightness", 1, "accuracy"),
        ]
    noise, bright = brittle.robustness
    assert sound.robustness[0].value.value > 0.99
    assert sound.robustness[0].drop is None
    assert 0.6 < noise.value.value < 0.9
    assert noise.lost_to_corruption == pytest.approx(1 - noise.value.value)
    assert noise.drop is not None
    assert noise.excess is not None
    assert noise.drop.value == pytest.approx(sound.robustness[0].value.value - noise.value.value)
    assert noise.excess.value == pytest.approx(noise.drop.value)  # nothing was lost on clean samples
    assert (noise.excess.low or 0) > 0.05
    assert (bright.value.value, bright.lost_to_corruption) == (1, 0)
    same = twin.robustness[0]
    assert same.excess is not None
    assert (same.value, same.excess.value) == (sound.robustness[0].value, 0)


def test_every_model_and_batch_size_sees_the_same_damage(tmp_path: Path) -> None:
    asked = Corruption(corruption="gaussian_noise", severity=5)
    first, second = evaluated(tmp_path, asked), evaluated(tmp_path, asked, batch_size=7)
    assert [model.robustness for model in first] == [model.robustness for model in second]


def test_a_corruption_that_fits_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BindingMismatch, match=r"audio_noise fits no column.*'x' has rows of uint8 \[8, 8\]"):
        evaluated(tmp_path, Corruption(corruption="audio_noise"))


def test_excess_is_the_drop_on_dirty_samples_less_that_on_clean_ones() -> None:
    chance = np.random.default_rng(1)
    truth = Classes(np.ones(500, np.int64))

    def twice(clean: float, dirty: float) -> Twice:
        return Twice(*(Classes((chance.random(500) < share).astype(np.int64)) for share in (clean, dirty)))

    before, after = twice(0.95, 0.9), twice(0.9, 0.6)
    asked = Corruption(corruption="blur")
    found = robustness(asked, "accuracy", after, before, Truth(truth, ("accuracy",), "classes"), seed=0)
    means = [[p.best.mean() for p in (pair.clean, pair.corrupted)] for pair in (before, after)]
    (a, b), (c, d) = means
    assert found.excess is not None
    assert found.excess.value == pytest.approx((b - d) - (a - c))
    assert (found.excess.low or 0) < found.excess.value < (found.excess.high or 0)
    assert found.lost_to_corruption == pytest.approx(c - d)


def test_more_of_an_error_is_a_loss() -> None:
    truth = Values(np.arange(40.0)[:, None])
    said = Twice(Values(truth.numbers + 1), Values(truth.numbers + 3))
    before = Twice(Values(truth.numbers), Values(truth.numbers + 1))
    found = robustness(Corruption(corruption="missing"), "mae", said, before, Truth(truth, ("mae",), "values"), seed=0)
    assert (found.value.value, found.lost_to_corruption) == (3, 2)
    assert found.drop is not None
    assert found.excess is not None
    assert (found.drop.value, found.excess.value) == (2, 1)


def test_an_excess_that_few_samples_show_is_not_sure() -> None:
    """Where nothing differs every draw is 0, however few samples there are."""
    truth = Classes(np.ones(40, np.int64))
    same = Twice(truth, truth)
    found = robustness(
        Corruption(corruption="blur"),
        "accuracy",
        Twice(truth, truth),
        same,
        Truth(truth, ("accuracy",), "classes"),
        seed=0,
    )
    assert found.drop is not None
    assert found.excess is not None
    assert found.excess == found.drop
    assert (found.excess.high or 0) > 0.05
