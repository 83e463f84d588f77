"""Arithmetic on integers: to the last digit what ONNX Runtime gives, and differentiable where a gradient arrives.

Weights are of seven bits, of which no kernel of ONNX Runtime saturates the sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from accel.errors import UnsupportedOperator
from accel.graph.torch_graph.graph import TorchGraph, nothing
from tests.one_node import Given, computed, graph_of, model_of, run
from tests.onnxruntime_reference import assert_agrees, reference

CHANCE = np.random.default_rng(1)
MICROSOFT = "com.microsoft"


def bytes_of(*shape: int) -> np.ndarray:
    return CHANCE.integers(0, 256, shape).astype(np.uint8)


def weights(*shape: int) -> np.ndarray:
    return CHANCE.integers(-63, 64, shape).astype(np.int8)


def floats(*shape: int) -> np.ndarray:
    return CHANCE.standard_normal(shape).astype(np.float32)


def scale(number: float) -> np.ndarray:
    return np.array(number, np.float32)


def scales(*shape: int) -> np.ndarray:
    return CHANCE.uniform(0.01, 0.02, shape).astype(np.float32)


def zero(number: int, dtype: type[np.integer] = np.uint8) -> np.ndarray:
    return np.array(number, dtype)


def zeros(count: int) -> np.ndarray:
    return np.zeros(count, np.int8)


def biases(count: int) -> np.ndarray:
    return CHANCE.integers(-9999, 9999, count).astype(np.int32)


A = (bytes_of(2, 3, 4), scale(0.02), zero(100))
B = (bytes_of(2, 3, 4), scale(0.03), zero(3))
IMAGE = (bytes_of(1, 3, 8, 8), scale(0.02), zero(100))
LAST = (bytes_of(1, 8, 8, 3), scale(0.02), zero(100))
Y = (scale(0.05), zero(60))
CASES: list[tuple[str, list[Given], dict[str, Any]]] = [
    ("QLinearAdd", [*A, *B, *Y], {}),
    ("QLinearAdd", [*A, bytes_of(4), scale(0.03), zero(3), *Y], {}),
    ("QLinearMul", [*A, *B, *Y], {}),
    ("QLinearSigmoid", [*A, scale(1 / 256), zero(0)], {}),
    ("QLinearLeakyRelu", [*A, *Y], {"alpha": 0.3}),
    ("QLinearAveragePool", [*IMAGE, *Y], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("QLinearAveragePool", [*LAST, *Y], {"kernel_shape": [3, 3], "channels_last": 1}),
    ("QLinearGlobalAveragePool", [*IMAGE, *Y], {}),
    ("QLinearGlobalAveragePool", [*LAST, *Y], {"channels_last": 1}),
    ("QLinearConcat", [*Y, *A, *B], {"axis": 1}),
    ("QLinearWhere", [bytes_of(2, 3, 4) > 99, *A, *B, *Y], {"fixed": (2, 3, 5, 6, 7, 8)}),
    (
        "QGemm",
        [bytes_of(3, 300), scale(0.02), zero(9), weights(300, 5), scale(0.05), zero(0, np.int8), biases(5), *Y],
        {},
    ),
    (
        "QGemm",
        [bytes_of(300, 3), scale(0.02), zero(9), weights(5, 300), scales(5), zeros(5)],
        {"transA": 1, "transB": 1, "fixed": (3, 4, 5)},
    ),
    ("DynamicQuantizeMatMul", [floats(3, 300), weights(300, 5), scales(5), zeros(5), floats(5)], {"fixed": (1, 2, 3)}),
    ("DynamicQuantizeMatMul", [floats(2, 3, 30), weights(30, 5), scale(0.1), zero(3, np.int8)], {"fixed": (1, 2, 3)}),
    (
        "MatMulIntegerToFloat",
        [bytes_of(3, 300), weights(300, 5), scale(0.02), scales(5), zero(7), zeros(5), floats(5)],
        {"fixed": (1, 3, 5)},
    ),
    ("MatMulIntegerToFloat", [bytes_of(3, 30), bytes_of(30, 5), scale(0.02), scale(0.1), zero(7)], {"fixed": (1,)}),
]


@pytest.mark.parametrize(
    ("operator", "given", "options"), CASES, ids=[f"{n} {case[0]}" for n, case in enumerate(CASES)]
)
def test_operators_of_the_runtime(operator: str, given: list[Given], options: dict[str, Any]) -> None:
    assert_agrees(operator, given, domain=MICROSOFT, **options)


@pytest.mark.parametrize("version", [9, 13])
@pytest.mark.parametrize("axis", [1, -1])
def test_softmax_of_integers(version: int, axis: int) -> None:
    model = model_of("QLinearSoftmax", [*A, scale(1 / 256), zero(0)], domain=MICROSOFT, axis=axis)
    model.graph.node[0].attribute.append(helper.make_attribute("opset", version))
    given = [*A, scale(1 / 256), zero(0)]
    difference = computed(model, given)[0].numpy().astype(int) - reference(model, given)[0]
    assert np.abs(difference).max() <= 1  # the runtime adds in a table of its own


@pytest.mark.parametrize("channels", [4, 40])
def test_convolutions_with_many_and_few_products(channels: int) -> None:
    x, weight, each = bytes_of(1, channels, 9, 9), weights(6, channels // 2, 3, 3), scales(6)
    options: dict[str, Any] = {"group": 2, "pads": [1, 0, 1, 2]}
    given = [x, scale(0.02), zero(100), weight, each, zeros(6), scale(0.4), zero(60), biases(6)]
    assert_agrees("QLinearConv", given, fixed=(3, 4, 5, 6, 7, 8), **options)
    assert_agrees("ConvInteger", [x, bytes_of(6, channels // 2, 3, 3), zero(100), zero(3)], **options)
    last = [np.ascontiguousarray(x.transpose(0, 2, 3, 1)), *given[1:]]
    found = run("QLinearConv", last, domain=MICROSOFT, channels_last=1, **options)
    assert torch.equal(found.permute(0, 3, 1, 2), run("QLinearConv", given, **options))


def test_products_of_matrices_with_zero_points_for_rows_and_columns() -> None:
    a, b = bytes_of(2, 3, 300), weights(300, 5)
    columns = np.arange(5, dtype=np.int8)
    assert_agrees("MatMulInteger", [a, b, zero(100), columns], fixed=(1, 3))
    rows = np.array([1, 2, 3], np.uint8)
    found = run("MatMulInteger", [a[0], b, rows])
    expected = (a[0].astype(int) - rows[:, None].astype(int)) @ b.astype(int)
    np.testing.assert_array_equal(found.numpy(), expected)
    given = [a[0], scale(0.02), zero(100), b, scales(5), zeros(5), scale(0.2), zero(60)]
    assert_agrees("QLinearMatMul", given, fixed=(3, 4, 5))


def test_products_of_floats_of_eight_bits_are_refused() -> None:
    given = [bytes_of(2, 2), scale(1), zero(0), bytes_of(2, 2), scale(1), zero(0), scale(1), zero(0)]
    model = model_of("QLinearMatMul", given)
    model.graph.input[7].type.tensor_type.elem_type = TensorProto.FLOAT8E4M3FN
    with pytest.raises(UnsupportedOperator, match="8 bits"):
        TorchGraph(ir.from_proto(model), nothing)


@pytest.mark.parametrize("operator", ["MatMulInteger", "ConvInteger"])
def test_a_product_that_is_quantized_while_it_runs_passes_gradients(operator: str) -> None:
    conv = operator == "ConvInteger"
    x, weight = floats(1, 3, 4, 4), weights(5, 3, 2, 2) if conv else weights(4, 6)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
        helper.make_node(operator, ["q", "w", "zero"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_empty_tensor_value_info("y")],
        [numpy_helper.from_array(weight, "w")],
    )
    module = TorchGraph(ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])), nothing)
    leaf = torch.from_numpy(x).requires_grad_()
    with torch.no_grad():
        expected = module({"x": leaf})["y"]
    found = module({"x": leaf})["y"]
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    plain = torch.from_numpy(x).requires_grad_()
    held = torch.from_numpy(weight).float()
    product = torch.conv2d(plain, held) if conv else plain @ held
    out = torch.from_numpy(floats(*product.shape))
    (product * out).sum().backward()
    (found * out).sum().backward()
    assert leaf.grad is not None
    assert plain.grad is not None
    inner = (leaf > leaf.min()) & (leaf < leaf.max())  # the ends move the scale, too
    torch.testing.assert_close(leaf.grad[inner], plain.grad[inner], rtol=1e-4, atol=1e-3)


def packed(numbers: np.ndarray, bits: int) -> np.ndarray:
    share = 8 // bits
    padded = np.pad(numbers, [(0, 0)] * (numbers.ndim - 1) + [(0, -numbers.shape[-1] % share)])
    parts = padded.reshape(*padded.shape[:-1], -1, share).astype(np.uint8)
    shifts = (np.arange(share) * bits).astype(np.uint8)
    return np.asarray(np.bitwise_or.reduce(parts << shifts, axis=-1, dtype=np.uint8))


@pytest.mark.parametrize("level", [0, 4])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("points", ["none", "packed", "floats"])
def test_a_packed_matrix(bits: int, points: str, level: int) -> None:
    columns, rows = 100, 6
    for block in (16, 32):
        blocks = -(-columns // block)
        integers = CHANCE.integers(0, 1 << bits, (rows, blocks, block))
        zero_points: Given = None
        if points == "packed":
            zero_points = packed(CHANCE.integers(0, 1 << bits, (rows, blocks)), bits)
        elif points == "floats":
            zero_points = CHANCE.uniform(0, 1 << bits, (rows, blocks)).astype(np.float32)
        given = [floats(2, 3, columns), packed(integers, bits), scales(rows, blocks), zero_points, None, floats(rows)]
        form: dict[str, Any] = {"K": columns, "N": rows, "bits": bits, "block_size": block, "accuracy_level": level}
        if bits == 8 and points == "floats":  # the runtime has no kernel of it
            each, steps = (given[place].repeat(block, 1)[:, :columns] for place in (3, 2))
            expected = given[0] @ ((integers.reshape(rows, -1)[:, :columns] - each) * steps).T + given[5]
            np.testing.assert_allclose(
                run("MatMulNBits", given, domain=MICROSOFT, **form), expected, rtol=1e-3, atol=1e-4
            )
        else:
            fixed = (1, 2) if points == "none" else (1, 2, 3)
            assert_agrees("MatMulNBits", given, domain=MICROSOFT, fixed=fixed, **form)


def test_gradients_reach_the_input_and_the_scales_of_a_packed_matrix() -> None:
    graph = graph_of(
        "MatMulNBits",
        [floats(2, 20), bytes_of(2, 2, 8), scales(2, 2)],
        domain=MICROSOFT,
        K=20,
        N=2,
        bits=4,
        block_size=16,
    )
    stored = torch.from_numpy(bytes_of(2, 2, 8))

    def product(x: torch.Tensor, each: torch.Tensor) -> torch.Tensor:
        found = graph({"x0": x, "x1": stored, "x2": each})["y0"]
        assert isinstance(found, torch.Tensor)
        return found

    leaves = [torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 20), (2, 2))]
    assert torch.autograd.gradcheck(product, leaves)


def test_gradients_pass_the_rounding_of_an_input() -> None:
    given = [floats(3, 40), bytes_of(4, 3, 8), scales(4, 3)]
    given[0][1] = 0
    found = []
    for level in (0, 4):
        form = {"K": 40, "N": 4, "bits": 4, "block_size": 16, "accuracy_level": level}
        graph = graph_of("MatMulNBits", given, domain=MICROSOFT, **form)
        x, stored, each = (torch.from_numpy(value) for value in given)
        leaf = x.clone().requires_grad_()
        graph({"x0": leaf, "x1": stored, "x2": each})["y0"].sum().backward()
        found.append(leaf.grad)
    torch.testing.assert_close(found[1], found[0])


def test_a_packed_matrix_follows_its_scales() -> None:
    given = [floats(3, 32), bytes_of(4, 2, 8), scales(4, 2)]
    graph = graph_of("MatMulNBits", given, domain=MICROSOFT, K=32, N=4, bits=4, block_size=16)
    x, stored, each = (torch.from_numpy(value) for value in given)
    first = graph({"x0": x, "x1": stored, "x2": each})["y0"]
    again = graph({"x0": x, "x1": stored, "x2": each})["y0"]
    double = graph({"x0": x, "x1": stored, "x2": each * 2})["y0"]
    assert torch.equal(first, again)
    torch.testing.assert_close(double, first * 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"bits": 5}, "5 bits"), ({"bits": 4, "weight_prepacked": 1}, "packed for one processor")],
)
def test_packings_that_are_not_covered(options: dict[str, int], said: str) -> None:
    given = [floats(3, 32), bytes_of(4, 2, 8), scales(4, 2)]
    with pytest.raises(UnsupportedOperator, match=said):
        graph_of("MatMulNBits", given, domain=MICROSOFT, K=32, N=4, block_size=16, **options)
