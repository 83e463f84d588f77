"""Where a loss reads a model: before the last Softmax or Sigmoid, so that nothing is lost in rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir
import torch
from torch import Tensor

from accel.errors import TrainingFailed
from accel.graph.torch_graph.node import Value
from accel.training.losses import Task

Form = Literal["logits", "probabilities", "values"]

_THROUGH = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast"})
_LAST: dict[Task, frozenset[str]] = {
    "classification": frozenset({"Softmax", "LogSoftmax"}),
    "multi_label": frozenset({"Sigmoid"}),
    "regression": frozenset(),
}
_TINY = 1e-7
_OFF_ONE = 1e-3


@dataclass(frozen=True, slots=True)
class Head:
    """A value of the graph that a loss is computed of, and what its numbers are."""

    name: str
    form: Form

    def scores(self, values: dict[str, Value], rows: int) -> Tensor:
        """Logits, or the values themselves [rows, numbers], as float32.

        Raises:
            TrainingFailed: There is not one row for each sample.
        """
        found = values[self.name]
        if not isinstance(found, Tensor) or found.ndim == 0 or len(found) < rows or not found.is_floating_point():
            raise TrainingFailed(
                f"The value {self.name!r} does not have a row of numbers for each of {rows:,} samples, so that no loss can be "
                "computed of it.",
                hint="Name another output in the binding.",
            )
        flat = found[:rows].reshape(rows, -1).float()
        if self.form != "probabilities":
            return flat
        if flat.shape[1] == 1:
            return torch.logit(flat, _TINY)
        return flat.clamp_min(_TINY).log()

    def decisions(self, values: dict[str, Value], rows: int) -> Tensor:
        """Logits of yes [rows, labels], as float32.

        Raises:
            TrainingFailed: There is not one row for each sample.
        """
        if self.form == "probabilities":
            return torch.logit(Head(self.name, "values").scores(values, rows), _TINY)
        return self.scores(values, rows)


def head_of(model: ir.Model, output: str, task: Task) -> Head:
    """What a loss of a task reads for an output.

    Args:
        model: The graph.
        output: The output that is compared with the target.
        task: The task.

    Raises:
        TrainingFailed: There is no such output.
    """
    value = next((value for value in model.graph.outputs if value.name == output), None)
    if value is None:
        raise TrainingFailed(f"The model has no output {output!r}.")
    if task == "regression":
        return Head(output, "values")
    node = value.producer()
    while node is not None and node.op_type in _THROUGH and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    # Of a single score a sample, two classes are told apart by a Sigmoid.
    last = _LAST[task] | (frozenset({"Sigmoid"}) if task == "classification" else frozenset())
    if node is None or node.op_type not in last or node.inputs[0] is None or not node.inputs[0].name:
        return Head(output, "logits")
    return Head(node.inputs[0].name, "logits")


def checked(head: Head, output: str, values: dict[str, Value], task: Task, *, threshold: float | None) -> Head:
    """The same head, where what a first batch gives shows that an output without a Softmax or Sigmoid holds probabilities.

    Args:
        head: What the graph tells.
        output: Name of the output.
        values: What the model gave for some rows.
        task: The task.
        threshold: Where the binding says that yes begins; None where it says nothing.
    """
    found = values[head.name]
    if head.name != output or head.form != "logits" or not isinstance(found, Tensor) or not found.is_floating_point():
        return head
    flat = found.detach().reshape(len(found), -1).float()
    within = bool(((flat >= 0) & (flat <= 1)).all())
    if task == "multi_label":
        return Head(output, "probabilities") if within and threshold != 0 else head
    adds_up = flat.shape[1] > 1 and bool(((flat.sum(1) - 1).abs() < _OFF_ONE).all())
    return Head(output, "probabilities") if within and adds_up else head
