"""One model loaded in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes.common import ShapeInferencePass
from torch import Tensor

from accel.errors import AccelError, OutOfMemory, RuntimeFailed
from accel.graph.load import load as load_model
from accel.graph.torch_graph.compiled import compiled
from accel.graph.torch_graph.dtypes import to_array
from accel.graph.torch_graph.executable import executable
from accel.graph.torch_graph.graph import TorchGraph, nothing
from accel.graph.torch_graph.node import Value
from accel.runtimes.sessions import Array, Port

Forward = Callable[[Mapping[str, Tensor]], Mapping[str, Value]]


@dataclass(frozen=True, slots=True)
class TorchSession:
    """A model that is loaded and can be run."""

    runtime: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    graph: TorchGraph
    device: torch.device
    compile_it: bool
    """Whether it is compiled for each shape of its inputs."""
    _compiled: dict[tuple[torch.Size, ...], Forward] = field(default_factory=dict)
    """By the shapes of the inputs."""

    def run(self, feed: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once.

        Args:
            feed: An array for each input.
            outputs: Names of the outputs that are wanted; all if left out. The others are computed, too.

        Raises:
            RuntimeFailed: The feed does not fit the model, or the model cannot be compiled for it.
        """
        tensors = self._tensors(feed)
        with self._translated(), torch.inference_mode():
            found = self._forward(tensors)(tensors)
        names = outputs if outputs is not None else [port.name for port in self.outputs]
        return {name: to_array(value) for name in names if isinstance(value := found[name], Tensor)}

    def prepared(self, feed: Mapping[str, Array]) -> Callable[[], object]:
        """What runs the model on one feed again and again, until its outputs are there.

        Raises:
            RuntimeFailed: The feed does not fit the model, or the model cannot be compiled for it.
        """
        tensors = self._tensors(feed)
        with self._translated():
            forward = self._forward(tensors)
        on_cuda = self.device.type == "cuda"

        def call() -> None:
            with torch.inference_mode():
                forward(tensors)
            if on_cuda:
                torch.cuda.synchronize()

        return call

    def _forward(self, tensors: Mapping[str, Tensor]) -> Forward:
        if not self.compile_it:
            return self.graph
        shapes = tuple(tensors[port.name].shape for port in self.inputs)
        if shapes not in self._compiled:
            self._compiled[shapes] = compiled(self.graph, tensors)
        return self._compiled[shapes]

    def _tensors(self, feed: Mapping[str, Array]) -> dict[str, Tensor]:
        """The inputs as tensors, which share the memory of arrays where they can."""
        for port in self.inputs:
            array = feed.get(port.name)
            if array is None or not _fits(array, port):
                given = "not given" if array is None else f"{array.dtype}{list(array.shape)}"
                raise RuntimeFailed(
                    f"{self.runtime} could not run the model: the input {port.name!r} is {given}, where the model takes "
                    f"{port.dtype}{list(port.shape)}.",
                    hint="Compare the input with the model's signature.",
                )
        return {port.name: _tensor(feed[port.name]).to(self.device) for port in self.inputs}

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Errors of the graph as those of a runtime."""
        try:
            yield
        except AccelError as error:
            raise RuntimeFailed(f"{self.runtime} could not run the model: {error.message}", hint=error.hint) from error
        except (MemoryError, torch.OutOfMemoryError) as error:
            raise OutOfMemory(
                f"{self.runtime} could not run the model: it needs more memory than it may take.",
                hint="Use a smaller batch or input.",
            ) from error


def load(path: Path, runtime: str, *, device: str, compile_it: bool, threads: int | None) -> TorchSession:
    """Load a model.

    Args:
        path: An ONNX file.
        runtime: The name of the runtime.
        device: What PyTorch calls the device.
        compile_it: Whether the graph is compiled for each shape of its inputs, when it is first run with it.
        threads: Threads of the whole process; None leaves them as they are.

    Raises:
        AccelError: The file is no model, or a node of it cannot be run in PyTorch.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    model = executable(load_model(path))
    ShapeInferencePass()(model)  # for the outputs
    graph = TorchGraph(model, nothing).to(device)
    return TorchSession(
        runtime,
        tuple(map(_port, model.graph.inputs)),
        tuple(map(_port, model.graph.outputs)),
        graph,
        torch.device(device),
        compile_it,
    )


def _port(value: ir.Value) -> Port:
    dtype = (
        None if value.dtype is None else np.dtype(object if value.dtype == ir.DataType.STRING else value.dtype.numpy())
    )
    sizes = (size if isinstance(size, int) else size.value for size in value.shape or ())
    return Port(value.name or "", dtype, tuple(None if isinstance(size, int) and size < 0 else size for size in sizes))


def _fits(array: Array, port: Port) -> bool:
    """Whether type, rank and fixed sizes of an input are the model's."""
    if port.dtype is not None and array.dtype != port.dtype:
        return False
    if not port.shape:  # a scalar, or an input of which the file says nothing
        return True
    pairs = zip(array.shape, port.shape, strict=False)
    return array.ndim == len(port.shape) and all(size == wanted for size, wanted in pairs if isinstance(wanted, int))


def _tensor(array: Array) -> Tensor:
    """PyTorch takes no memory that must not be written to, and no reversed axes."""
    return torch.from_numpy(array if array.flags.writeable and array.flags.c_contiguous else np.array(array, order="C"))
