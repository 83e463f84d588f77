"""A teacher at work: in ONNX Runtime or in PyTorch, whichever is faster here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from accel.data.bind import Bound
from accel.errors import AccelError, BindingMismatch
from accel.graph.load import load
from accel.graph.observe import Probe, observe
from accel.graph.torch_graph.executable import executable
from accel.graph.torch_graph.graph import TorchGraph, nothing
from accel.graph.torch_graph.node import Value
from accel.runtimes.onnxruntime import open_session
from accel.runtimes.sessions import Port
from accel.training.batches import Array
from accel.training.heads import Head, checked, head_of
from accel.training.judging import as_array
from accel.training.losses import Task
from accel.training.objective import as_tensors

Answer = Callable[[Mapping[str, Array]], dict[str, Tensor]]
Runtime = Literal["onnxruntime", "torch"]

_TIMED = 3
_MUCH_FASTER = 0.8
"""Share of ONNX Runtime's time that PyTorch must stay below: of two that are alike the same one is taken each time."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """A model that is asked, and not trained."""

    name: str
    runtime: Runtime
    onnxruntime_ms: float | None
    torch_ms: float | None
    head: Head
    """Where its scores are read."""
    output: str
    ports: tuple[Port, ...]
    ask: Answer

    def answers(self, feeds: Mapping[str, Array], device: torch.device) -> dict[str, Value]:
        """What it says about the inputs of a student, by names of its own graph.

        Raises:
            BindingMismatch: The inputs do not fit.
        """
        return {name: found.to(device) for name, found in self.ask(fitted(feeds, self.ports, self.name)).items()}


def hire(
    path: Path,
    name: str,
    *,
    output: str | None,
    task: Task,
    features: Sequence[str],
    example: Bound,
    rows: int,
    threshold: float | None,
    device: torch.device,
    workspace: Path,
    runtime: Runtime | None = None,
) -> Teacher:
    """Load a teacher, and find out where it is faster.

    Args:
        path: Its file.
        name: What reports call it.
        output: The output that a student learns from; the first one if it has none of that name.
        task: The task.
        features: Inner values that are matched.
        example: Rows of the student's inputs.
        rows: Rows of a batch.
        threshold: Where the binding says that yes begins.
        device: Where the student is.
        workspace: Folder for files that the runtime loads.
        runtime: Where it ran in an earlier attempt, to run there again.

    Raises:
        AccelError: It runs nowhere, or does not take the student's inputs.
    """
    model, session = load(path), open_session(path, "onnxruntime:cpu")
    known = [port.name for port in session.outputs]
    read = output if output in known else known[0]
    head = head_of(model, read, task)
    wanted = tuple(dict.fromkeys((read, head.name, *features)))
    rows = min(rows, len(example), example.fixed_batch or rows)
    batch = fitted(example.feed(0, rows), session.inputs, name)
    tried: dict[Runtime, Answer] = {}
    failed: list[AccelError] = []
    for kind in ("onnxruntime", "torch") if runtime is None else (runtime,):
        try:
            ask = (
                _by_runtime(model, wanted, batch, workspace)
                if kind == "onnxruntime"
                else _by_graph(model, wanted, device)
            )
            ask(batch)
        except AccelError as error:
            failed.append(error)
        else:
            tried[kind] = ask
    if not tried:
        raise failed[0]
    times = {kind: _time_ms(ask, batch) for kind, ask in tried.items()}
    chosen = min(times, key=lambda kind: times[kind] * (1.0 if kind == "torch" else _MUCH_FASTER))
    values: dict[str, Value] = dict(tried[chosen](batch))
    return Teacher(
        name=name,
        runtime=chosen,
        onnxruntime_ms=times.get("onnxruntime"),
        torch_ms=times.get("torch"),
        head=checked(head, read, values, task, threshold=threshold),
        output=read,
        ports=session.inputs,
        ask=tried[chosen],
    )


def _by_runtime(model: ir.Model, wanted: Sequence[str], batch: Mapping[str, Array], workspace: Path) -> Answer:
    probes = {name: Probe(name, "all") for name in wanted}
    observed = observe(model, list(probes.values()), batch, workspace)

    def ask(feeds: Mapping[str, Array]) -> dict[str, Tensor]:
        found = observed.run(feeds)
        return {name: torch.from_numpy(found[probe][0]) for name, probe in probes.items()}

    return ask


def _by_graph(model: ir.Model, wanted: Sequence[str], device: torch.device) -> Answer:
    graph = TorchGraph(executable(model), nothing, wanted).to(device)

    def ask(feeds: Mapping[str, Array]) -> dict[str, Tensor]:
        with torch.no_grad():
            found = graph(as_tensors(feeds, device))
        return {name: value for name, value in found.items() if isinstance(value, Tensor) and name in wanted}

    return ask


def _time_ms(ask: Answer, batch: Mapping[str, Array]) -> float:
    times = []
    for _ in range(_TIMED):
        begun = time.perf_counter()
        for found in ask(batch).values():
            found.cpu()
        times.append((time.perf_counter() - begun) * 1000)
    return min(times)


def fitted(feeds: Mapping[str, Array], ports: Sequence[Port], name: str) -> dict[str, Array]:
    """The inputs of a student as a teacher takes them: by name, or the only one as the only one; shapes may differ in axes.

    Raises:
        BindingMismatch: They do not fit; names both sides.
    """
    alone = next(iter(feeds.values())) if len(feeds) == len(ports) == 1 else None
    found = {}
    for port in ports:
        given = feeds.get(port.name, alone)
        if given is None:
            raise BindingMismatch(
                f"The teacher {name!r} has an input {port.name!r}, and the student has none of that name; it has {', '.join(feeds)}.",
                hint="A teacher sees what its student sees: both need the same inputs.",
            )
        sizes = [size for size in port.shape[1:] if isinstance(size, int)]
        if len(sizes) == len(port.shape) - 1 and given.shape[1:] != tuple(sizes):
            if int(np.prod(sizes)) != int(np.prod(given.shape[1:])):
                raise BindingMismatch(
                    f"The teacher {name!r} takes rows of {sizes} at {port.name!r}, and the student rows of {list(given.shape[1:])}.",
                    hint="A teacher sees what its student sees: both need inputs of the same size.",
                )
            given = given.reshape(len(given), *sizes)
        found[port.name] = given if port.dtype is None else given.astype(port.dtype, copy=False)
    return found


def answers_for(teacher: Teacher, bound: Bound, batch_size: int) -> Iterator[Array]:
    """Yield what a teacher's output is for some rows, batch by batch."""
    asked = replace(bound, output=teacher.output)
    for first, stop in bound.spans(len(bound), batch_size):
        values = teacher.answers(bound.feed(first, stop), torch.device("cpu"))
        yield asked.answer({teacher.output: as_array(values[teacher.output])}, stop - first)
