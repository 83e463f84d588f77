"""Make a training ready: the graph, what is trained of it, what the loss reads, and the rows."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir
import torch

from accel.data.bind import Bound, bind
from accel.data.binding import Binding, Cast, ColumnInput, CtcGreedy, Embedding, Scale, Threshold
from accel.data.dataset import Dataset, open_dataset
from accel.data.steps import apply_step
from accel.errors import BindingMismatch, DataRequired, TrainingFailed
from accel.graph.load import load, save
from accel.graph.torch_graph.agreement import prove
from accel.graph.torch_graph.executable import executable
from accel.graph.torch_graph.graph import TorchGraph, layers
from accel.graph.torch_graph.parameters import Candidate
from accel.request.training import TrainRequest
from accel.runtimes.onnxruntime import open_session
from accel.runtimes.sessions import Port
from accel.training.heads import Head, checked, head_of
from accel.training.input_shapes import InputShape
from accel.training.losses import Task
from accel.training.objective import as_tensors
from accel.training.parts import Parts, divide

_ROWS = 4_096
_PROBED = 8
"""Rows that a model is tried on before it is trained."""


@dataclass(frozen=True, slots=True)
class Start:
    """What a training begins with."""

    path: Path
    """The model's file."""
    model: ir.Model
    """The graph that is trained and written back."""
    outputs: tuple[Port, ...]
    dataset: Dataset
    binding: Binding
    task: Task
    parts: Parts
    head: Head
    notes: tuple[str, ...]

    def bound(self, split: str) -> Bound:
        """A split, bound to the model."""
        session = open_session(self.path, "onnxruntime:cpu")
        return bind(session.inputs, session.outputs, self.dataset, split, self.binding)


def start(request: TrainRequest, workspace: Path) -> Start:
    """Load or make the model, and bind the dataset to it.

    Raises:
        AccelError: The model, the dataset or the binding is not of use; the message says why.
    """
    dataset = open_dataset(request.dataset.path, request.dataset.spec, workspace)
    binding = request.binding or Binding()
    if request.model is not None:
        path = request.model.path
    else:
        path = workspace / f"{request.result_id}.start.onnx"
        binding = _built(request, dataset, binding, path)
    model = executable(load(path))
    session = open_session(path, "onnxruntime:cpu")
    output = binding.output or session.outputs[0].name
    task = task_of(request.task, dataset, binding, _shape(session.outputs, output))
    head = head_of(model, output, task)
    if task == "multi_label" and binding.decoder is None:
        at = 0.5 if head.name != output else 0.0
        binding = binding.model_copy(update={"decoder": Threshold(at=at)})
    dataset = replace(dataset, summary=dataset.summary.model_copy(update={"task": _reading(task)}))
    parts = divide(
        dataset,
        lambda split: bind(session.inputs, session.outputs, dataset, split, binding),
        request.split,
        request.settings,
        workspace,
    )
    if parts.train.target is None and request.distillation is None:
        raise DataRequired(
            "The dataset has no target to train for.",
            hint='Name its column: {"binding": {"target": "<column>"}}, or give a teacher, who needs no labels.',
        )
    return Start(path, model, session.outputs, dataset, binding, task, parts, head, parts.notes)


def graph_of(start: Start, frozen: Sequence[str], inner: Sequence[str]) -> TorchGraph:
    """The graph in PyTorch, without weights that stay as they are.

    Raises:
        TrainingFailed: A pattern of these is no weight's name, or nothing is left to train.
        UnsupportedOperator: A node is not covered.
    """
    hit: set[str] = set()

    def choose(candidate: Candidate) -> bool:
        found = [pattern for pattern in frozen if fnmatch.fnmatchcase(candidate.name, pattern)]
        hit.update(found)
        return layers(candidate) and not found

    graph = TorchGraph(start.model, choose, inner)
    idle = [pattern for pattern in frozen if pattern not in hit]
    if idle:
        raise TrainingFailed(
            f"No weight of the model is called {idle[0]!r}, which `frozen` names.",
            hint="Names are those of the graph's initialisers.",
        )
    return graph


def probed(start: Start, graph: TorchGraph, workspace: Path) -> tuple[Head, int, str]:
    """Run the graph on a few rows, and prove that it computes what ONNX Runtime computes.

    Returns:
        What the loss reads, how many numbers of it there are for a sample, and a remark on the proof.

    Raises:
        TrainingFailed: The graph does not run, differs from ONNX Runtime, or gives no row of numbers for each sample.
    """
    bound = start.parts.train
    rows = min(_PROBED, len(bound), bound.fixed_batch or _PROBED)
    feeds = bound.feed(0, rows)
    agreement = prove(graph, start.model, feeds, workspace)
    with torch.no_grad():
        values = graph(as_tensors(feeds, torch.device("cpu")))
    decoder = start.binding.decoder
    threshold = decoder.at if isinstance(decoder, Threshold) else None
    head = checked(start.head, bound.output, values, start.task, threshold=threshold)
    return head, head.scores(values, rows).shape[1], agreement.describe()


def task_of(asked: Task | None, dataset: Dataset, binding: Binding, shape: Sequence[int | str | None]) -> Task:
    """What the target is.

    Raises:
        BindingMismatch: The binding's decoder reads the output as something that is not trained.
    """
    decoder = binding.decoder
    if isinstance(decoder, CtcGreedy | Embedding):
        raise BindingMismatch(
            f"The binding reads the output by {decoder.decoder}, and no loss of that is known.",
            hint="Leave the decoder out: classes, values and labels of yes and no are trained.",
        )
    if asked is not None:
        if isinstance(decoder, Threshold) and asked != "multi_label":
            raise BindingMismatch(
                f"The task is {asked}, and the binding reads the output by threshold, which is of multi_label.",
                hint="Leave one of them out.",
            )
        return asked
    if isinstance(decoder, Threshold):
        return "multi_label"
    if dataset.summary.task is not None:
        return "regression" if dataset.summary.task == "regression" else "classification"
    last = shape[-1] if len(shape) > 1 else 1
    return "regression" if last == 1 else "classification"


def _shape(outputs: Sequence[Port], name: str) -> tuple[int | str | None, ...]:
    return next((port.shape for port in outputs if port.name == name), ())


def _reading(task: Task) -> str:
    """How an evaluation names what is read without a decoder."""
    return "regression" if task == "regression" else "classification"


def _built(request: TrainRequest, dataset: Dataset, binding: Binding, path: Path) -> Binding:
    """Write a new model of the architecture; the binding then has the steps that its inputs need."""
    if request.architecture is None:
        raise ValueError("there is no architecture")
    columns = dataset.split(request.split if request.split in dataset.splits else next(iter(dataset.splits)))
    target = binding.target or dataset.summary.target
    if target is None or target not in columns:
        raise DataRequired(
            "A new model needs a target to be trained for, and the dataset has none."
            if target is None
            else f"The target {target!r} is no column; there is {', '.join(columns)}.",
            hint='Name its column: {"binding": {"target": "<column>"}}.',
        )
    sources = dict(binding.inputs) or {
        name: ColumnInput(column=name) for name in columns if name not in {target, binding.group}
    }
    task = task_of(request.task, dataset, binding, columns[target].shape)
    shapes = tuple(_input(name, source, dataset) for name, source in sources.items())
    model = request.architecture.build(shapes, _outputs(dataset, target, task), request.settings.seed, task)
    save(model, path)
    floats = {value.name for value in model.graph.inputs if value.dtype == ir.DataType.FLOAT}
    ready = {
        name: _as_floats(source, shape) if name in floats and isinstance(source, ColumnInput) else source
        for (name, source), shape in zip(sources.items(), shapes, strict=True)
    }
    return binding.model_copy(update={"inputs": ready})


def _as_floats(source: ColumnInput, shape: InputShape) -> ColumnInput:
    if shape.dtype.startswith("float"):
        return source
    step = Scale(multiply=1 / 255) if shape.dtype == "uint8" else Cast(dtype="float32")
    return source.model_copy(update={"steps": (*source.steps, step)})


def _input(name: str, source: object, dataset: Dataset) -> InputShape:
    """What a row of an input is like, and how many numbers there are where they stand for something.

    Raises:
        BindingMismatch: The input is a constant, or there is no such column.
    """
    if not isinstance(source, ColumnInput):
        raise BindingMismatch(f"The input {name!r} of a new model cannot be a constant.", hint="Leave it out.")
    held = [columns[source.column] for columns in dataset.splits.values() if source.column in columns]
    if not held:
        raise BindingMismatch(
            f"The input {name!r} is bound to the column {source.column!r}, which the dataset does not have."
        )
    row = held[0].take(0, 1)
    for step in source.steps:
        row = apply_step(step, row)
    most = -1
    for rows in held if row.dtype.kind in "iu" and row.ndim == 2 and not source.steps else ():  # noqa: PLR2004  (tokens)
        for first in range(0, len(rows), _ROWS):
            part = rows.take(first, min(first + _ROWS, len(rows)))
            if part.size and int(part.min()) < 0:
                return InputShape(name, str(row.dtype), row.shape[1:])
            most = max(most, int(part.max(initial=-1)))
    return InputShape(name, str(row.dtype), row.shape[1:], most + 1 if most >= 0 else None)


def _outputs(dataset: Dataset, target: str, task: Task) -> int:
    rows = next(columns[target] for columns in dataset.splits.values() if target in columns)
    if task != "classification":
        width = 1
        for size in rows.shape:
            width *= size
        return width
    classes = dataset.summary.classes
    if classes is None:
        highest = [
            int(columns[target].array.max(initial=-1)) for columns in dataset.splits.values() if target in columns
        ]
        classes = max(highest) + 1
    return max(2, classes)
