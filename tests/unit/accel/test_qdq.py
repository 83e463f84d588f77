"""Graphs rewritten for integers: valid, near the float graph, computed by integer kernels, and read back as written."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from accel.errors import TechniqueFailed
from accel.graph.prepare import BLOCK_OPSET, QDQ_OPSET
from accel.numerics.scales import (
    ACTIVATIONS,
    Scheme,
)
from tests import models
from tests.rewriting import CHANCE, SIGNED, START, SYMMETRIC, build, conv, gemm, matmul, node, rewritten, weights


@pytest.fixture(autouse=True)
def the_same_chance_for_each_test() -> None:
    CHANCE.bit_generator.state = START


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
