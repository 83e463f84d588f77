"""Graphs rewritten for integers: valid, near the float graph, computed by integer kernels, and read back as written."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from accel.errors import TechniqueFailed
from accel.graph.layers import layers
from accel.graph.placement import Placement, place
from accel.graph.prepare import BLOCK_OPSET, QDQ_OPSET, prepare
from accel.graph.qdq import QuantizedActivation, QuantizedWeight, insert
from accel.graph.quantized import quantized_layers
from accel.numerics.scales import (
    ACTIVATIONS,
    WEIGHTS,
    Granularity,
    Scheme,
    dequantize,
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


@pytest.fixture(autouse=True)
def the_same_chance_for_each_test() -> None:
    CHANCE.bit_generator.state = START


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


def test_convolutions_are_computed_in_integers(tmp_path: Path) -> None:
    result = rewritten(conv(pads=[1, 1, 1, 1]), tmp_path)
    assert result.noise() > 30
    found = result.kernels(tmp_path)
    assert found["QLinearConv"] == 1
    assert found["Conv"] == found["FusedConv"] == 0


@pytest.mark.parametrize("group", [2, 4])
@pytest.mark.parametrize("per", ["channel", "tensor"])
def test_grouped_convolutions(group: int, per: str, tmp_path: Path) -> None:
    result = rewritten(conv(group=group, pads=[1, 1, 1, 1]), tmp_path, per=per)
    assert result.noise() > 28
    assert result.kernels(tmp_path)["QLinearConv"] == 1


def test_a_depthwise_convolution(tmp_path: Path) -> None:
    made = [node("Conv", "x w b", "c", group=8), node("Clip", "c zero six", "r"), node("Conv", "r v", "y")]
    held = {"w": weights(8, 1, 3, 3, scale=2), "b": weights(8), "v": weights(4, 8, 1, 1)}
    held |= {"zero": np.float32(0), "six": np.float32(6)}
    result = rewritten(build(made, ["n", 8, 8, 8], held), tmp_path)
    assert result.noise() > 28
    found = result.kernels(tmp_path)
    assert found["QLinearConv"] == 2
    assert found["Clip"] == 0


@pytest.mark.parametrize("activation", [ACTIVATIONS, SIGNED, SYMMETRIC], ids=["u8", "s8", "symmetric"])
@pytest.mark.parametrize("behind", ["Relu", "Clip", "none"])
def test_activations_behind_a_convolution(activation: Scheme, behind: str, tmp_path: Path) -> None:
    made = [node("Conv", "x w b", "c")]
    if behind != "none":
        made.append(node(behind, "c" if behind == "Relu" else "c zero six", "r"))
    made += [node("Conv", "c v" if behind == "none" else "r v", "y")]
    held = {"w": weights(8, 4, 3, 3), "b": weights(8), "v": weights(4, 8, 1, 1)}
    held |= {"zero": np.float32(0), "six": np.float32(6)} if behind == "Clip" else {}
    result = rewritten(build(made, ["n", 4, 8, 8], held), tmp_path, activation=activation)
    assert result.noise() > 28
    found = result.kernels(tmp_path)
    if activation == SYMMETRIC and behind != "none":
        return  # its zero is not its lowest integer: rounding alone does not do what the Relu does
    assert found["QLinearConv"] == 2, found
    assert found[behind] == 0, found


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("per", ["channel", "tensor"])
def test_transposed_convolutions(group: int, per: str, tmp_path: Path) -> None:
    made = [node("ConvTranspose", "x w b", "c", group=group, strides=[2, 2]), node("Sigmoid", "c", "y")]
    held = {"w": weights(4, 8 // group, 3, 3), "b": weights(8)}
    assert rewritten(build(made, ["n", 4, 5, 5], held), tmp_path, per=per).noise() > 28


@pytest.mark.parametrize("turned", [0, 1])
@pytest.mark.parametrize("per", ["channel", "tensor"])
@pytest.mark.parametrize("activation", [ACTIVATIONS, SIGNED], ids=["u8", "s8"])
def test_gemms_are_computed_in_integers(turned: int, per: str, activation: Scheme, tmp_path: Path) -> None:
    result = rewritten(gemm(weights(6), transB=turned), tmp_path, per=per, activation=activation)
    assert result.noise() > 30
    found = result.kernels(tmp_path)
    assert found["QGemm"] == 1, found
    assert found["Gemm"] == 0


@pytest.mark.parametrize("shape", [(6,), (1, 6), (1,), (), (5, 6), (5, 1), None], ids=str)
@pytest.mark.parametrize("per", ["channel", "tensor"])
def test_every_shape_of_a_gemm_s_bias(shape: tuple[int, ...] | None, per: str, tmp_path: Path) -> None:
    result = rewritten(gemm(None if shape is None else weights(*shape)), tmp_path, per=per)
    assert result.noise() > 30
    if shape in {(6,), None}:
        assert result.kernels(tmp_path)["QGemm"] == 1


def test_a_bias_that_is_computed(tmp_path: Path) -> None:
    made = [node("ReduceMax", "x", "b", keepdims=0), node("Gemm", "x w b", "y")]
    result = rewritten(build(made, ["n", 16], {"w": weights(16, 6)}), tmp_path)
    assert result.noise() > 30


@pytest.mark.parametrize("per", ["channel", "tensor"])
@pytest.mark.parametrize("activation", [ACTIVATIONS, SIGNED], ids=["u8", "s8"])
@pytest.mark.parametrize(
    ("shape", "x"),
    [((16, 6), ["n", 16]), ((16, 6), ["n", 3, 16]), ((16, 6), ["n", 2, 3, 16]), ((2, 16, 6), ["n", 2, 3, 16])],
    ids=["matrix", "rows", "heads", "batched"],
)
def test_matrix_products_are_computed_in_integers(
    shape: tuple[int, ...], x: list[int | str], per: str, activation: Scheme, tmp_path: Path
) -> None:
    result = rewritten(matmul(*shape, x=x), tmp_path, per=per, activation=activation)
    assert result.noise() > 30
    found = result.kernels(tmp_path)
    assert found["MatMulIntegerToFloat"] + found["QLinearMatMul"] == 1, found


def test_a_vector_times_a_matrix(tmp_path: Path) -> None:
    made = [node("MatMul", "x w", "y")]
    assert rewritten(build(made, [16], {"w": weights(16, 6)}), tmp_path).noise() > 30


def test_layers_in_a_row_pass_integers_on(tmp_path: Path) -> None:
    result = rewritten(models.convnet(), tmp_path)
    assert result.noise() > 25
    found = result.kernels(tmp_path)
    assert found["QLinearConv"] == 1
    assert found["QGemm"] == 2
    assert found["QuantizeLinear"] == 1, "only the input"
    assert found["Relu"] == found["Conv"] == found["Gemm"] == 0


def test_a_matrix_product_between_moves(tmp_path: Path) -> None:
    made = [
        node("Conv", "x w", "c"),
        node("Relu", "c", "r"),
        node("MaxPool", "r", "p", kernel_shape=[2, 2]),
        node("Transpose", "p", "t", perm=[0, 2, 3, 1]),
        node("Reshape", "t shape", "s"),
        node("MatMul", "s m", "y"),
    ]
    held = {"w": weights(8, 4, 3, 3), "m": weights(8, 5), "shape": np.array([0, -1, 8], np.int64)}
    result = rewritten(build(made, ["n", 4, 8, 8], held), tmp_path)
    assert result.noise() > 28
    found = result.kernels(tmp_path)
    assert found["QLinearConv"] == found["MatMulIntegerToFloat"] == 1
    assert found["QuantizeLinear"] == 1


def test_a_residual_sum_is_computed_in_integers(tmp_path: Path) -> None:
    made = [
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("Conv", "r v", "d", pads=[1, 1, 1, 1]),
        node("Add", "d r", "s"),
        node("Relu", "s", "o"),
        node("Conv", "o t", "y"),
    ]
    held = {"w": weights(8, 4, 3, 3), "b": weights(8), "v": weights(8, 8, 3, 3), "t": weights(4, 8, 1, 1)}
    result = rewritten(build(made, ["n", 4, 8, 8], held), tmp_path)
    assert result.noise() > 25
    found = result.kernels(tmp_path)
    assert found["QLinearConv"] == 3
    assert found["QLinearAdd"] == 1
    assert found["Add"] == found["Relu"] == 0


@pytest.mark.parametrize("bias", [True, False])
def test_layers_that_share_their_constants(bias: bool, tmp_path: Path) -> None:
    inputs = " w b" if bias else " w"
    made = [node("Gemm", f"x{inputs}", "h"), node("Relu", "h", "r"), node("Gemm", f"r{inputs}", "y")]
    held = {"w": weights(6, 6)} | ({"b": weights(6)} if bias else {})
    result = rewritten(build(made, ["n", 6], held), tmp_path)
    assert result.noise() > 25
    assert result.kernels(tmp_path)["QGemm"] == 2
    stored = sum(
        len(tensor.raw_data) for tensor in result.model.graph.initializer if tensor.data_type == TensorProto.INT8
    )
    assert stored < 2 * 36, "the weight is stored once"


def test_a_shared_weight_whose_steps_differ_is_stored_twice(tmp_path: Path) -> None:
    # Beside biases so large, all integers of the weight are 0 for both layers.
    made = [node("Gemm", "x w b", "h"), node("Gemm", "h w c", "g"), node("Gemm", "g v", "y")]
    held = {"w": weights(6, 6, scale=1e-7), "b": np.full(6, 100, np.float32), "c": np.full(6, 3000, np.float32)}
    proto = build(made, ["n", 6], held | {"v": weights(6, 3) + 1}, outputs=("h", "g", "y"))
    assert rewritten(proto, tmp_path, read_back=False).noise() > 30


def test_a_weight_that_something_else_reads_too(tmp_path: Path) -> None:
    made = [node("MatMul", "x w", "h"), node("Sub", "h w", "y")]
    result = rewritten(build(made, [6, 6], {"w": weights(6, 6)}), tmp_path)
    assert result.noise() > 28
    assert {tensor.name for tensor in result.model.graph.initializer} >= {"w"}


def test_a_value_that_is_quantized_and_an_output(tmp_path: Path) -> None:
    made = [node("Conv", "x w", "c"), node("Relu", "c", "r"), node("Conv", "r v", "y")]
    held = {"w": weights(8, 4, 3, 3), "v": weights(4, 8, 1, 1)}
    result = rewritten(build(made, ["n", 4, 8, 8], held, outputs=("r", "y")), tmp_path)
    assert result.noise() > 28
    assert result.kernels(tmp_path)["QLinearConv"] == 2


def test_an_input_that_is_an_output(tmp_path: Path) -> None:
    proto = build([node("MatMul", "x w", "y")], ["n", 16], {"w": weights(16, 4)}, outputs=("y", "x"))
    result = rewritten(proto, tmp_path)
    assert result.noise() > 30
    np.testing.assert_array_equal(models.run(result.model, result.feed)["x"], result.feed["x"])


def test_an_input_of_two_layers(tmp_path: Path) -> None:
    made = [node("MatMul", "x w", "a"), node("MatMul", "x v", "b"), node("Add", "a b", "y")]
    result = rewritten(build(made, ["n", 16], {"w": weights(16, 4), "v": weights(16, 4)}), tmp_path)
    assert result.noise() > 28
    assert result.operators["QuantizeLinear"] == 1


def test_sub_graphs_read_the_value_still(tmp_path: Path) -> None:
    made = [
        node("Gemm", "x w b", "h"),
        node("ReduceSum", "x", "total", keepdims=0),
        node("Greater", "total zero", "positive"),
    ]
    branches = {}
    for name, operator in (("then_branch", "Relu"), ("else_branch", "Neg")):
        inner = helper.make_node(operator, ["h"], [f"{name}_out"], f"{name}_node")
        branches[name] = helper.make_graph([inner], name, [], [port(f"{name}_out", ["n", 16])])
    made += [helper.make_node("If", ["positive"], ["z"], "choose", **branches), node("Gemm", "h v", "g")]
    made += [node("Add", "z g", "y")]
    held = {"w": weights(16, 16), "b": weights(16), "v": weights(16, 16), "zero": np.float32(0)}
    proto = build(made, ["n", 16], held)
    for sign in (1, -1):
        feed = {"x": sign * np.abs(weights(6, 16, scale=1))}
        assert rewritten(proto, tmp_path, feed=feed).noise() > 25


def test_a_relu_inside_a_sub_graph_that_alone_reads_the_output(tmp_path: Path) -> None:
    branches = {}
    for name, source in (("then_branch", "c"), ("else_branch", "x")):
        inner = helper.make_node("Relu", [source], [f"{name}_out"], f"{name}_node")
        branches[name] = helper.make_graph([inner], name, [], [port(f"{name}_out", ["n", 4, 8, 8])])
    made = [
        node("Conv", "x w", "c"),
        node("ReduceSum", "x", "total", keepdims=0),
        node("Greater", "total zero", "more"),
    ]
    made.append(helper.make_node("If", ["more"], ["y"], "choose", **branches))
    proto = build(made, ["n", 4, 8, 8], {"w": weights(4, 4, 1, 1), "zero": np.float32(0)})
    assert rewritten(proto, tmp_path, feed={"x": np.abs(weights(3, 4, 8, 8))}).noise() > 28


@pytest.mark.parametrize(
    "activation", [Scheme(16, signed=False, symmetric=False), Scheme(16, signed=True, symmetric=True)]
)
def test_activations_of_16_bits(activation: Scheme, tmp_path: Path) -> None:
    for proto in (models.convnet(), gemm(weights(6)), matmul(16, 6)):
        result = rewritten(proto, tmp_path, activation=activation, opset=BLOCK_OPSET)
        assert result.noise() > 33
        assert result.model.opset_import[0].version >= BLOCK_OPSET


def test_weights_of_16_bits(tmp_path: Path) -> None:
    wide = Scheme(16, signed=True, symmetric=True)
    result = rewritten(gemm(None), tmp_path, weight=wide, activation=wide, opset=BLOCK_OPSET)
    assert result.noise() > 70


def test_a_graph_of_an_older_opset_is_valid_after_16_bits_too(tmp_path: Path) -> None:
    # In opset 18 the axes of ReduceMean became an input.
    made = [node("ReduceMean", "x", "m", axes=[1], keepdims=0), node("MatMul", "m w", "y")]
    proto = build(made, ["n", 3, 16], {"w": weights(16, 4)})
    with contextlib.suppress(ValueError, TechniqueFailed):  # refused is as good; an invalid graph is not
        result = rewritten(proto, tmp_path, activation=Scheme(16, signed=False, symmetric=False), opset=QDQ_OPSET)
        assert result.noise() > 35


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
def test_weights_of_fewer_bits(bits: int, tmp_path: Path) -> None:
    scheme = Scheme(bits, signed=True, symmetric=True)
    for proto in (conv(), gemm(weights(6)), matmul(16, 6)):
        assert rewritten(proto, tmp_path, weight=scheme).noise() > 6 * (bits - 2)


@pytest.mark.parametrize(
    "scheme",
    [Scheme(8, signed=False, symmetric=False), Scheme(8, signed=True, symmetric=False), Scheme(8, False, True)],
    ids=["u8", "s8", "u8_symmetric"],
)
def test_weights_with_a_zero_point(scheme: Scheme, tmp_path: Path) -> None:
    for proto in (conv(), gemm(weights(6)), matmul(16, 6)):
        assert rewritten(proto, tmp_path, weight=scheme, per="tensor").noise() > 28
        assert rewritten(proto, tmp_path, weight=scheme).noise() > 28


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [4, 5, 16, 100])
def test_weights_in_blocks(bits: int, block: int, tmp_path: Path) -> None:
    scheme = Scheme(bits, signed=True, symmetric=True)
    for proto in (gemm(weights(6)), gemm(weights(6), transB=1), matmul(16, 6), matmul(2, 16, 6, x=["n", 2, 3, 16])):
        result = rewritten(proto, tmp_path, weight=scheme, per="block", block=block, opset=BLOCK_OPSET)
        assert result.noise() > (28 if bits == 8 else 12)
        assert result.model.opset_import[0].version >= BLOCK_OPSET


@pytest.mark.parametrize("bits", [4, 6])
def test_activations_of_fewer_bits(bits: int, tmp_path: Path) -> None:
    scheme = Scheme(bits, signed=False, symmetric=False)
    assert rewritten(gemm(weights(6)), tmp_path, activation=scheme).noise() > 6 * (bits - 2)


def chain(operator: str, held: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Two layers, so that the first one's output is quantized too."""
    made = [node(operator, "x w b" if "b" in held else "x w", "h"), node(operator, "h v", "y")]
    return build(made, ["n", held["w"].shape[0]] if operator != "Conv" else ["n", 4, 8, 8], held, outputs=("h", "y"))


@pytest.mark.parametrize("per", ["channel", "tensor"])
@pytest.mark.parametrize("steps", [2.0**30, 2.0**31 - 2000, 2.0**33, 2.0**50])
def test_a_bias_that_32_bits_do_not_hold_with_the_sum_does_no_harm(steps: float, per: str, tmp_path: Path) -> None:
    # Even where the bias is left in float, ONNX Runtime casts it to int32 when it loads the model.
    x = np.abs(weights(4, 36, scale=1))
    w = np.abs(weights(36, 8))
    bias = np.full(8, steps * float(x.max()) / 255 * float(w.max()) / 127, np.float32)
    gemms = chain("Gemm", {"w": w, "b": bias, "v": weights(8, 3) + 1})
    held = {"w": w.T.reshape(8, 4, 3, 3).copy(), "b": bias, "v": weights(4, 8, 1, 1) + 1}
    image = np.abs(weights(2, 4, 8, 8, scale=1))
    for proto, feed in ((gemms, {"x": x}), (chain("Conv", held), {"x": image * x.max() / image.max()})):
        # The weights may get larger steps than they were given.
        assert rewritten(proto, tmp_path, per=per, feed=feed, read_back=False).noise() > 30


@pytest.mark.parametrize("behind", ["none", "Relu"])
@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_a_layer_left_in_float_between_others_is_computed_in_float(operator: str, behind: str, tmp_path: Path) -> None:
    # ONNX Runtime quantizes float weights itself, with one scale, where they stand between two pairs.
    uneven = weights(8, 8, 3, 3)
    uneven[0] *= 1000
    last = "b" if behind == "none" else "r"
    made = [node("Conv", "x w", "a"), node(operator, "a v", "b"), *([node("Relu", "b", "r")] if last == "r" else [])]
    made.append(node("Conv", f"{last} t", "y"))
    proto = build(made, ["n", 4, 10, 10], {"w": weights(8, 4, 3, 3), "v": uneven, "t": weights(4, 8, 1, 1)})
    result = rewritten(proto, tmp_path, only=("a", "y"))
    found = result.kernels(tmp_path)
    assert found["QLinearConv"] == 2, found
    assert found[operator] + found["FusedConv"] == 1, found
    fused, written = models.run(result.model, result.feed), plain(result.model, result.feed)
    assert (noise_db(written["y"], fused["y"]) or 200) > 38


MOVED = {
    "pool_before": [node("MaxPool", "a", "p", kernel_shape=[1, 1]), node("Conv", "p v", "b"), node("Conv", "b t", "y")],
    "reshape_before": [node("Reshape", "a turned", "p"), node("Conv", "p v", "b"), node("Conv", "b t", "y")],
    "pool_after": [node("Conv", "a v", "b"), node("MaxPool", "b", "p", kernel_shape=[2, 2]), node("Conv", "p t", "y")],
    "transpose_after": [
        node("Conv", "a v", "b"),
        node("Transpose", "b", "p", perm=[0, 1, 3, 2]),
        node("Conv", "p t", "y"),
    ],
    "clip_after": [node("Conv", "a v", "b"), node("Relu", "b", "r"), node("Clip", "r", "p"), node("Conv", "p t", "y")],
}


@pytest.mark.parametrize("moved", MOVED)
def test_a_layer_left_in_float_behind_moves_is_computed_in_float(moved: str, tmp_path: Path) -> None:
    # ONNX Runtime pushes quantization through what only moves values, and then takes the layer for a quantized one.
    uneven = weights(8, 8, 1, 1)
    uneven[0] *= 1000
    held = {"w": weights(8, 4, 3, 3), "v": uneven, "t": weights(4, 8, 1, 1), "turned": np.array([0, 8, 4, 16])}
    result = rewritten(
        build([node("Conv", "x w", "a"), *MOVED[moved]], ["n", 4, 10, 10], held), tmp_path, only=("a", "y")
    )
    found = result.kernels(tmp_path)
    assert found["QLinearConv"] == 2, found
    assert found["Conv"] + found["FusedConv"] == 1, found


def test_a_layer_of_one_channel_left_in_float_is_computed_in_float(tmp_path: Path) -> None:
    made = [node("Conv", "x w", "a"), node("Conv", "a v", "b"), node("Conv", "b t", "y")]
    held = {"w": weights(1, 4, 3, 3), "v": weights(8, 1, 1, 1), "t": weights(4, 8, 1, 1)}
    result = rewritten(build(made, ["n", 4, 10, 10], held), tmp_path, only=("a", "y"))
    found = result.kernels(tmp_path)
    assert found["Conv"] + found["FusedConv"] >= 1, found


def test_a_gemm_left_in_float_beside_others_is_computed_in_float(tmp_path: Path) -> None:
    uneven = weights(8, 8)
    uneven[:, 0] *= 1000
    made = [node("Gemm", "x w", "a"), node("Gemm", "x v", "b"), node("Gemm", "b t", "c"), node("Add", "a c", "y")]
    proto = build(made, ["n", 8], {"w": weights(8, 8), "v": uneven, "t": weights(8, 8)})
    result = rewritten(proto, tmp_path, only=("a", "c"))
    found = result.kernels(tmp_path)
    assert found["QGemm"] == 2, found
    assert found["Gemm"] == 1, found


def test_a_bias_is_rounded_in_steps_of_the_products(tmp_path: Path) -> None:
    result = rewritten(gemm(weights(6)), tmp_path)
    (layer,) = quantized_layers(ir.from_proto(result.model).graph)
    assert layer.bias is not None
    assert layer.bias.const_value is not None
    assert layer.bias_scale is not None
    assert layer.input_scale is not None
    steps = layer.input_scale * layer.weight.parameters.scale.astype(np.float64)
    np.testing.assert_allclose(layer.bias_scale, steps, rtol=1e-6)
    stored = layer.bias.const_value.numpy()
    assert stored.dtype == np.int32
    original = numpy_helper.to_array(next(t for t in result.float_model.graph.initializer if t.name == "b"))
    assert (np.abs(stored * steps - original) <= steps * 0.501).all()


@pytest.mark.parametrize("shape", [(0, 6), (16, 0)])
def test_a_weight_without_elements(shape: tuple[int, int]) -> None:
    proto = matmul(*shape, x=["n", shape[0]])
    model = ir.from_proto(proto)
    (layer,) = layers(model.graph)
    found = quantize_tensor(layer.weight, WEIGHTS, Granularity(1))
    activation = QuantizedActivation(parameters(-1, 1, ACTIVATIONS), ACTIVATIONS)
    insert(model, place([layer]), {layer.name: QuantizedWeight(*found, WEIGHTS, Granularity(1))}, {"x": activation})
    written = ir.to_proto(model)
    onnx.checker.check_model(written, full_check=True)
    assert models.run(written, {"x": np.zeros((3, shape[0]), np.float32)})["y"].shape == (3, shape[1])


def test_channels_of_zeros_stay_exact(tmp_path: Path) -> None:
    proto = conv()
    tensor = next(t for t in proto.graph.initializer if t.name == "w")
    array = numpy_helper.to_array(tensor).copy()
    array[[0, 5]] = 0
    tensor.CopyFrom(numpy_helper.from_array(array, "w"))
    assert rewritten(proto, tmp_path).noise() > 28


def test_names_that_the_rewriting_would_give_may_be_taken(tmp_path: Path) -> None:
    made = [
        node("Relu", "x", "h"),
        node("Sigmoid", "h", "h_scale"),
        node("Sigmoid", "h_scale", "h_q"),
        node("Sigmoid", "h_q", "h_dq"),
        node("MatMul", "h w", "p"),
        node("Sigmoid", "h_dq", "make_p_weight_scale"),
        node("Concat", "p make_p_weight_scale h_dq h_scale h_q", "y", axis=1),
    ]
    result = rewritten(build(made, ["n", 16], {"w": weights(16, 4)}), tmp_path)
    assert result.noise() > 28


def test_only_chosen_layers_change(tmp_path: Path) -> None:
    model, _ = prepare(ir.from_proto(models.convnet()), tmp_path)
    (layer,) = [layer for layer in layers(model.graph) if layer.name == "hidden"]
    placement = place([layer])
    activations = {
        name: QuantizedActivation(parameters(-3, 3, ACTIVATIONS), ACTIVATIONS) for name in placement.measured
    }
    shares = Granularity(layer.channel_axis)
    integers, scales = quantize_tensor(layer.weight, WEIGHTS, shares)
    insert(model, placement, {"hidden": QuantizedWeight(integers, scales, WEIGHTS, shares)}, activations)
    written = ir.to_proto(model)
    onnx.checker.check_model(written, full_check=True)
    names = {tensor.name for tensor in written.graph.initializer}
    assert {"conv_w", "conv_b", "out_w", "out_b"} <= names
    assert not {"hidden_w", "hidden_b"} & names
    assert [layer.name for layer in quantized_layers(model.graph)] == ["hidden"]


def test_what_is_written_is_smaller_and_always_the_same(tmp_path: Path) -> None:
    one, two = (rewritten(models.convnet(), tmp_path).model for _ in range(2))
    assert one.SerializeToString(deterministic=True) == two.SerializeToString(deterministic=True)
    assert one.ByteSize() < 0.5 * models.convnet().ByteSize()


def test_a_float_model_has_no_quantized_layers() -> None:
    assert quantized_layers(ir.from_proto(models.convnet()).graph) == []


def test_a_model_that_another_tool_quantized_is_read() -> None:
    (layer,) = quantized_layers(ir.from_proto(models.quantized()).graph)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in models.quantized().graph.initializer}
    assert layer.name == "product"
    assert layer.input_scale == pytest.approx(0.05)
    assert layer.bias is None
    assert layer.integers.name == "w8"
    np.testing.assert_array_equal(layer.weight.integers, held["w8"])
    np.testing.assert_allclose(layer.weight.floats(), held["w8"] * np.float32(0.01))


def test_the_float_graph_of_the_integers_is_what_the_runtime_computes(tmp_path: Path) -> None:
    result = rewritten(matmul(16, 6), tmp_path)
    (layer,) = quantized_layers(ir.from_proto(result.model).graph)
    assert layer.input_scale is not None
    x = result.feed["x"]
    used = parameters(float(x.min()), float(x.max()), ACTIVATIONS)
    back = dequantize(np.clip(np.rint(x / used.scale) + used.zero_point, 0, 255).astype(np.uint8), used)
    np.testing.assert_allclose(models.run(result.model, result.feed)["y"], back @ layer.weight.floats(), atol=1e-4)
