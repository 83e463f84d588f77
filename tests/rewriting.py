"""Small graphs rewritten for integers, and what is demanded of each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from accel.graph.layers import layers
from accel.graph.placement import Placement, place
from accel.graph.prepare import QDQ_OPSET, prepare
from accel.graph.qdq import QuantizedActivation, QuantizedWeight, insert
from accel.graph.quantized import quantized_layers
from accel.numerics.scales import (
    ACTIVATIONS,
    WEIGHTS,
    Scheme,
    noise_db,
    parameters,
    quantize_tensor,
)
from accel.numerics.static import Settings, granularity_of
from tests import models

SIGNED = Scheme(8, signed=True, symmetric=False)
SYMMETRIC = Scheme(8, signed=True, symmetric=True)
CHANCE = np.random.default_rng(3)
START = CHANCE.bit_generator.state


def weights(*shape: int, scale: float = 0.3) -> np.ndarray:
    return (CHANCE.standard_normal(shape) * scale).astype(np.float32)


def port(name: str, shape: list[int | str] | None = None, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def build(
    nodes: list[onnx.NodeProto], x: list[int | str], held: dict[str, np.ndarray], *, outputs: tuple[str, ...] = ("y",)
) -> onnx.ModelProto:
    ports = [port(name, x if name == "x" else None) for name in outputs]
    inferred = onnx.shape_inference.infer_shapes(models.assemble(nodes, [port("x", x)], ports, held))
    del inferred.graph.value_info[:]
    return inferred


def node(operator: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), [output], f"make_{output}", **attributes)


def plain(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What ONNX Runtime computes node by node, with nothing fused: other runtimes read the same graph."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in model.graph.output]
    return dict(zip(names, session.run(names, feed), strict=True))


def flowing(model: onnx.ModelProto, names: tuple[str, ...], feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Values inside a float graph."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    have = {value.name for value in (*copy.graph.output, *copy.graph.input)}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in have)
    found = models.run(copy, feed) | feed
    return {name: found[name] for name in names}


@dataclass(frozen=True)
class Rewritten:
    """A float model, prepared, and what became of it."""

    float_model: onnx.ModelProto
    model: onnx.ModelProto
    placement: Placement
    weights: dict[str, QuantizedWeight]
    feed: dict[str, np.ndarray]

    @property
    def operators(self) -> Counter[str]:
        return Counter(node.op_type for node in self.model.graph.node)

    def kernels(self, folder: Path) -> Counter[str]:
        """The operators that ONNX Runtime computes at its default level."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(folder / "optimized.onnx")
        ort.InferenceSession(self.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)

    def noise(self) -> float:
        """The smallest signal-to-noise ratio of an output in decibels, as it is fused and as it is written."""
        theirs = models.run(self.float_model, self.feed)
        found = [
            noise_db(values, ours[name])
            for ours in (models.run(self.model, self.feed), plain(self.model, self.feed))
            for name, values in theirs.items()
        ]
        return min(200.0 if value is None else value for value in found)


def rewritten(
    proto: onnx.ModelProto,
    folder: Path,
    *,
    activation: Scheme = ACTIVATIONS,
    weight: Scheme = WEIGHTS,
    per: str = "channel",
    block: int = 4,
    opset: int = QDQ_OPSET,
    feed: dict[str, np.ndarray] | None = None,
    only: tuple[str, ...] = (),
    read_back: bool = True,
) -> Rewritten:
    """Quantize the layers of a model (those behind the values ``only``), and check what holds for every graph."""
    feed = feed or models.inputs_of(proto, 6)
    model, _ = prepare(ir.from_proto(proto), folder, opset=opset)
    float_model = ir.to_proto(model)
    chosen = [layer for layer in layers(model.graph) if not only or layer.node.outputs[0].name in only]
    placement = place(chosen)
    activations = {
        name: QuantizedActivation(parameters(values.min(), values.max(), activation), activation)
        for name, values in flowing(float_model, placement.measured, feed).items()
    }
    held = {}
    for layer in chosen:
        settings = Settings(per_channel=per == "channel", block_size=block if per == "block" else None)
        shares = granularity_of(layer, settings)
        integers, scales = quantize_tensor(layer.weight, weight, shares)
        held[layer.name] = QuantizedWeight(integers, scales, weight, shares)
    insert(model, placement, held, activations)
    result = Rewritten(float_model, ir.to_proto(model), placement, held, feed)
    assert_sound(result, proto)
    if read_back:
        assert_read_back(result)
    return result


def assert_sound(result: Rewritten, given: onnx.ModelProto) -> None:
    onnx.checker.check_model(result.model, full_check=True)
    constants = {tensor.name for tensor in given.graph.initializer}
    for part in ("input", "output"):
        names = [value.name for value in getattr(given.graph, part) if value.name not in constants]
        assert [value.name for value in getattr(result.model.graph, part)] == names
    names = [node.name for node in result.model.graph.node if node.name]
    assert len(set(names)) == len(names)
    read = {name for node in result.model.graph.node for name in node.input}
    read |= {value.name for value in result.model.graph.output}
    read |= {name for node in result.model.graph.node for a in node.attribute for n in a.g.node for name in n.input}
    assert {tensor.name for tensor in result.model.graph.initializer} <= read
    assert {name for node in result.model.graph.node for name in node.output} <= read


def assert_read_back(result: Rewritten) -> None:
    """What the file says of each layer is what was written."""
    back = {layer.name: layer for layer in quantized_layers(ir.from_proto(result.model).graph)}
    assert list(back) == [layer.name for layer in result.placement.layers]
    for name, written in result.weights.items():
        read = back[name].weight
        np.testing.assert_array_equal(read.integers.astype(int), written.integers.astype(int))
        np.testing.assert_array_equal(read.parameters.scale, written.parameters.scale)
        np.testing.assert_array_equal(read.parameters.zero_point, written.parameters.zero_point)
        assert read.granularity == written.granularity
        assert read.scheme.signed == written.scheme.signed
        assert read.integers.dtype == written.integers.dtype
        np.testing.assert_array_equal(read.floats(), written.floats())


def conv(**attributes: object) -> onnx.ModelProto:
    made = [node("Conv", "x w b", "c", **attributes), node("Sigmoid", "c", "y")]
    group = attributes.get("group", 1)
    assert isinstance(group, int)
    held = {"w": weights(8, 4 // group, 3, 3), "b": weights(8)}
    return build(made, ["n", 4, 8, 8], held)


def matmul(*shape: int, x: list[int | str] | None = None) -> onnx.ModelProto:
    return build([node("MatMul", "x w", "y")], x or ["n", shape[-2]], {"w": weights(*shape)})


def gemm(bias: np.ndarray | None, **attributes: object) -> onnx.ModelProto:
    shape = (6, 16) if attributes.get("transB") else (16, 6)
    held = {"w": weights(*shape)} | ({} if bias is None else {"b": bias})
    return build([node("Gemm", "x w" if bias is None else "x w b", "y", **attributes)], [5, 16], held)
