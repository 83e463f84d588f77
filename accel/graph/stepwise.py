"""Run a graph once, stopping at some values to change them before what follows is computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accel.errors import TechniqueFailed
from accel.runtimes.onnxruntime import Session, open_session

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

Array = npt.NDArray[np.generic]


class Stepwise:
    """A graph that is computed from stop to stop, for several batches at a time.

    Between stops only the values are kept that something still reads; so the memory is that of the widest place of the
    graph, for all batches.
    """

    def __init__(self, model: ir.Model, batches: Sequence[Mapping[str, Array]], workspace: Path) -> None:
        """Take a snapshot of the graph, and begin at its inputs.

        Args:
            model: A graph without sub-graphs.
            batches: The inputs.
            workspace: Folder for the parts that the runtime loads; they are removed.

        Raises:
            TechniqueFailed: The graph has sub-graphs.
        """
        import onnx_ir as ir

        self._proto: onnx.ModelProto = ir.to_proto(model)
        graph = self._proto.graph
        if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
            raise TechniqueFailed("The model has sub-graphs (If, Loop, Scan) and cannot be run step by step.")
        self._workspace = workspace
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {name: number for number, node in enumerate(graph.node) for name in node.output if name}
        self._waiting = set(range(len(graph.node)))
        inputs = [value.name for value in graph.input if value.name not in self._constants]
        self._live: dict[str, list[Array]] = {name: [batch[name] for batch in batches] for name in inputs}

    def stops(self, names: Sequence[str]) -> Iterator[tuple[str, list[Array]]]:
        """Compute one value after the other; what the caller writes into the list goes into what follows.

        Args:
            names: Values in an order in which they can be computed.
        """
        for name in names:
            self._step(name)
            yield name, self._live[name]

    def _step(self, name: str) -> None:
        """Compute a value, and with it all that lies between."""
        numbers = self._missing(name)
        self._waiting -= set(numbers)
        nodes = [self._proto.graph.node[number] for number in numbers]
        read = {value for node in nodes for value in node.input if value}
        made = {value for node in nodes for value in node.output if value}
        still = {value for number in self._waiting for value in self._proto.graph.node[number].input} | {name}
        wanted = sorted(made & still)
        entering = sorted(read - made - self._constants.keys())
        if nodes:
            session = self._open(nodes, entering, wanted, sorted(read & self._constants.keys()))
            for number in range(len(self._live[entering[0]])):
                found = session.run({value: self._live[value][number] for value in entering}, wanted)
                for value in wanted:
                    self._live.setdefault(value, []).append(found[value])
        self._live = {value: arrays for value, arrays in self._live.items() if value in still}

    def _missing(self, name: str) -> list[int]:
        """The nodes that a value needs and that have not been computed, in order."""
        found: set[int] = set()
        open_values = [name]
        while open_values:
            number = self._makers.get(open_values.pop())
            if number is not None and number in self._waiting and number not in found:
                found.add(number)
                open_values.extend(self._proto.graph.node[number].input)
        return sorted(found)

    def _open(
        self, nodes: list[onnx.NodeProto], entering: list[str], wanted: list[str], constants: list[str]
    ) -> Session:
        from onnx import helper

        graph = helper.make_graph(
            nodes,
            "part",
            [self._described(name) for name in entering],
            [helper.make_empty_tensor_value_info(name) for name in wanted],
            [self._constants[name] for name in constants],
        )
        path = self._workspace / "part.onnx"
        model = helper.make_model(graph, opset_imports=self._proto.opset_import, ir_version=self._proto.ir_version)
        try:
            path.write_bytes(model.SerializeToString())
            return open_session(path, "onnxruntime:cpu")
        finally:
            path.unlink(missing_ok=True)

    def _described(self, name: str) -> onnx.ValueInfoProto:
        from onnx import helper

        first = self._live[name][0]
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(first.dtype), [None] * first.ndim)
