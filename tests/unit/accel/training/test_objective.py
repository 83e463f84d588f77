"""Where a loss reads a model, and what it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import helper
from torch.nn import functional

from accel.data.bind import Bound, bind
from accel.data.dataset import open_dataset
from accel.data.spec import DatasetSpec
from accel.errors import BadDataset, BindingMismatch, LabelsOutOfRange, TrainingFailed
from accel.runtimes.sessions import Port
from accel.training.batches import Batch, Blend
from accel.training.heads import Head, checked, head_of
from accel.training.losses import (
    AnyLoss,
    BinaryCrossEntropy,
    CrossEntropy,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    Task,
)
from accel.training.objective import Objective, check_finite, weights_of
from tests import models

CPU = torch.device("cpu")
SCORES = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3]])
LABELS = torch.tensor([0, 2])


def ended(*nodes: tuple[str, dict[str, object]]) -> ir.Model:
    """A product of matrices, and what comes after it."""
    made = [helper.make_node("MatMul", ["x", "w"], ["v0"], "product")]
    for number, (operator, attributes) in enumerate(nodes):
        made.append(helper.make_node(operator, [f"v{number}"], [f"v{number + 1}"], f"n{number}", **attributes))
    output = models._value(f"v{len(nodes)}", ["n", 4])
    weights = {"w": np.ones((16, 4), np.float32)}
    return ir.from_proto(models.assemble(made, [models._value("x", ["n", 16])], [output], weights))


def test_a_loss_reads_before_the_last_softmax_or_sigmoid() -> None:
    softmax, sigmoid = ended(("Softmax", {"axis": 1})), ended(("Sigmoid", {}))
    assert head_of(softmax, "v1", "classification") == Head("v0", "logits")
    assert head_of(ended(("LogSoftmax", {}), ("Identity", {})), "v2", "classification") == Head("v0", "logits")
    assert head_of(sigmoid, "v1", "multi_label") == Head("v0", "logits")
    assert head_of(softmax, "v1", "regression") == Head("v1", "values")
    assert head_of(softmax, "v1", "multi_label") == Head("v1", "logits")
    assert head_of(ended(("Relu", {})), "v1", "classification") == Head("v1", "logits")
    with pytest.raises(TrainingFailed, match="no output 'other'"):
        head_of(softmax, "other", "classification")


def test_probabilities_are_known_by_their_sums() -> None:
    head = Head("y", "logits")
    chances = torch.softmax(SCORES, 1)

    def found(values: torch.Tensor, task: Task, threshold: float | None = None) -> str:
        return checked(head, "y", {"y": values}, task, threshold=threshold).form

    assert found(chances, "classification") == "probabilities"
    assert found(SCORES, "classification") == "logits"
    assert found(chances, "multi_label", 0.5) == "probabilities"
    assert found(chances, "multi_label", 0.0) == "logits"
    assert checked(Head("v0", "logits"), "y", {"v0": chances}, "classification", threshold=None).form == "logits"


def test_a_loss_of_probabilities_is_that_of_their_logits() -> None:
    chances = torch.softmax(SCORES, 1)
    by_logits = Objective(CrossEntropy(), Head("y", "logits")).each({"y": SCORES}, LABELS)
    by_chances = Objective(CrossEntropy(), Head("y", "probabilities")).each({"y": chances}, LABELS)
    assert torch.allclose(by_logits, by_chances, atol=1e-6)
    assert torch.allclose(by_logits, functional.cross_entropy(SCORES, LABELS, reduction="none"))
    yes = torch.tensor([[1, 0, 1], [0, 0, 1]])
    labels_by_logits = Objective(BinaryCrossEntropy(), Head("y", "logits")).each({"y": SCORES}, yes)
    labels_by_chances = Objective(BinaryCrossEntropy(), Head("y", "probabilities")).each(
        {"y": torch.sigmoid(SCORES)}, yes
    )
    assert torch.allclose(labels_by_logits, labels_by_chances, atol=1e-5)


def test_a_single_score_tells_two_classes_apart() -> None:
    loss = Objective(CrossEntropy(), Head("y", "logits")).each({"y": SCORES[:, :1]}, torch.tensor([1, 0]))
    two = torch.stack([torch.zeros(2), SCORES[:, 0]], 1)
    assert torch.allclose(loss, functional.cross_entropy(two, torch.tensor([1, 0]), reduction="none"))


@pytest.mark.parametrize(
    ("loss", "expected"),
    [(MeanSquaredError(), [2.5, 0.125]), (MeanAbsoluteError(), [1.5, 0.25]), (Huber(delta=1.0), [1.0, 0.0625])],
)
def test_losses_of_numbers(loss: AnyLoss, expected: list[float]) -> None:
    found = torch.tensor([[1.0, 2.0], [0.0, 0.5]])
    wanted = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    assert Objective(loss, Head("y", "values")).each({"y": found}, wanted).tolist() == pytest.approx(expected)


def test_smoothing_and_weights_are_pytorchs_and_left_out_where_models_are_judged() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0])
    objective = Objective(CrossEntropy(label_smoothing=0.1), Head("y", "logits"), weights)
    expected = functional.cross_entropy(SCORES, LABELS, weight=weights, label_smoothing=0.1, reduction="none")
    assert torch.allclose(objective.each({"y": SCORES}, LABELS), expected)
    plain = functional.cross_entropy(SCORES, LABELS, reduction="none")
    assert torch.allclose(objective.plain().each({"y": SCORES}, LABELS), plain)


def test_shapes_that_differ_are_named() -> None:
    with pytest.raises(BindingMismatch, match="The target has 2 values a sample, and 'y' has 3"):
        Objective(MeanSquaredError(), Head("y", "values")).each({"y": SCORES}, torch.zeros(2, 2))
    with pytest.raises(TrainingFailed, match="a row of numbers for each of 5 samples"):
        Objective(CrossEntropy(), Head("y", "logits")).each({"y": SCORES}, torch.zeros(5, dtype=torch.int64))


def test_blended_targets_are_blended_losses() -> None:
    objective = Objective(CrossEntropy(), Head("y", "logits"))
    labels, others = LABELS.numpy(), np.array([1, 0])
    batch = Batch(0, 0, True, 2, 2, {}, labels, None)
    alone = [objective.total({"y": SCORES}, replace(batch, targets=held), CPU) for held in (labels, others)]
    blended = objective.total({"y": SCORES}, replace(batch, blend=Blend(0.3, others)), CPU)
    assert float(blended) == pytest.approx(float(0.3 * alone[0] + 0.7 * alone[1]))


@pytest.fixture
def labelled(tmp_path: Path) -> Bound:
    return bound(tmp_path, np.repeat([0, 1, 2], [6, 3, 1]))


def bound(tmp_path: Path, y: np.ndarray) -> Bound:
    np.savez(tmp_path / "d.npz", x_train=np.zeros((len(y), 2), np.float32), y_train=y)
    dataset = open_dataset(tmp_path / "d.npz", DatasetSpec(), tmp_path)
    float32 = np.dtype(np.float32)
    return bind([Port("x", float32, ("n", 2))], [Port("s", float32, ("n", 4))], dataset, "train", None)


def test_classes_can_count_alike(labelled: Bound) -> None:
    weights, notes = weights_of(CrossEntropy(class_weights="balanced"), labelled, 3)
    assert weights is not None
    assert weights.tolist() == pytest.approx([10 / 18, 10 / 9, 10 / 3])
    assert notes == ()
    given, _ = weights_of(CrossEntropy(class_weights=(1.0, 2.0, 3.0)), labelled, 3)
    assert given is not None
    assert given.tolist() == [1.0, 2.0, 3.0]


def test_a_class_without_rows_is_named(labelled: Bound) -> None:
    with pytest.raises(LabelsOutOfRange, match="2 of 5 classes have none: 3, 4"):
        weights_of(CrossEntropy(class_weights="balanced"), labelled, 5)
    weights, notes = weights_of(CrossEntropy(), labelled, 4)
    assert weights is None
    assert "1 of 4 classes have no row to train on, and cannot be learned: 3" in notes[0]


def test_weights_and_labels_that_do_not_fit_are_named(labelled: Bound, tmp_path: Path) -> None:
    with pytest.raises(BindingMismatch, match="class_weights has 2 numbers, and the model has 3 classes"):
        weights_of(CrossEntropy(class_weights=(1.0, 2.0)), labelled, 3)
    with pytest.raises(LabelsOutOfRange, match="The label 2 is outside the model's 2 classes"):
        weights_of(CrossEntropy(), labelled, 2)
    with pytest.raises(LabelsOutOfRange, match="The label -1"):
        weights_of(CrossEntropy(), bound(tmp_path, np.array([0, -1])), 2)


def test_yes_can_count_as_much_as_no(tmp_path: Path) -> None:
    rows = bound(tmp_path, np.array([[1, 0], [0, 0], [0, 1], [0, 1]], np.float32))
    weights, _ = weights_of(BinaryCrossEntropy(positive_weights="balanced"), rows, 2)
    assert weights is not None
    assert weights.tolist() == [3.0, 1.0]
    with pytest.raises(LabelsOutOfRange, match="label 1 has none"):
        weights_of(BinaryCrossEntropy(positive_weights="balanced"), bound(tmp_path, np.array([[1, 0]])), 2)
    with pytest.raises(BindingMismatch, match="positive_weights has 3 numbers"):
        weights_of(BinaryCrossEntropy(positive_weights=(1.0, 1.0, 1.0)), rows, 2)


def test_a_target_that_is_not_finite_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="'y' is not finite in row 1"):
        check_finite(bound(tmp_path, np.array([1.0, np.nan, np.inf], np.float32)), "y")
    check_finite(bound(tmp_path, np.array([1.0, 2.0], np.float32)), "y")
