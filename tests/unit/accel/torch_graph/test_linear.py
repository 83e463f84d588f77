"""Products of matrices: each form against ONNX Runtime, integers, gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from accel.errors import UnsupportedOperator
from accel.graph.torch_graph.graph import TorchGraph, nothing
from tests import models
from tests.one_node import computed, gradients_agree, model_of, run

MICROSOFT = "com.microsoft"


def floats(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def single(*given: np.ndarray) -> list[np.ndarray]:
    return [value.astype(np.float32) for value in given]


def agrees(operator: str, given: list[np.ndarray], **options: Any) -> None:
    model = model_of(operator, given, **options)
    expected = models.run(model, {f"x{place}": value for place, value in enumerate(given)})["y0"]
    np.testing.assert_allclose(computed(model, given)[0].numpy(), expected, rtol=1e-4, atol=1e-5)


SHAPES = [
    ((4,), (4,)),
    ((3, 4), (4,)),
    ((4,), (4, 2)),
    ((3, 4), (4, 2)),
    ((5, 1, 3, 4), (2, 4, 2)),
    ((5, 3, 4), (4, 2)),
]


@pytest.mark.parametrize(("left", "right"), SHAPES)
def test_matrices_are_multiplied(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    a, b = floats(*left), floats(*right, seed=1)
    np.testing.assert_allclose(run("MatMul", [a, b]).numpy(), a @ b, rtol=1e-12)
    assert gradients_agree("MatMul", [a, b])


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.uint64])
def test_matrices_of_integers_wrap_around(dtype: type[np.integer]) -> None:
    drawn = np.random.default_rng(2)
    a, b = (drawn.integers(0, np.iinfo(dtype).max, shape, dtype=dtype) for shape in ((3, 4), (4, 2)))
    np.testing.assert_array_equal(run("MatMul", [a, b]).numpy(), a @ b)
    np.testing.assert_array_equal(run("Einsum", [a, b], equation="ij,jk->ki").numpy(), (a @ b).T)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(
            run("Gemm", [a, b, b[:1]], alpha=2.0, beta=3.0).numpy(), dtype(2) * (a @ b) + dtype(3) * b[:1]
        )


GEMMS: list[dict[str, Any]] = [
    {},
    {"alpha": 0.5, "beta": 1.5},
    {"transA": 1},
    {"transB": 1},
    {"transA": 1, "transB": 1, "alpha": 2.0, "beta": 0.0},
]


@pytest.mark.parametrize("opset", [7, 13])
@pytest.mark.parametrize("attributes", GEMMS)
@pytest.mark.parametrize("bias", [(), (2,), (1,), (3, 1), (1, 2), (3, 2)])
def test_gemm_in_each_form(attributes: dict[str, Any], bias: tuple[int, ...], opset: int) -> None:
    a = floats(4, 3) if "transA" in attributes else floats(3, 4)
    b = floats(2, 4, seed=1) if "transB" in attributes else floats(4, 2, seed=1)
    agrees("Gemm", single(a, b, floats(*bias, seed=2)), opset=opset, **attributes)


@pytest.mark.parametrize("attributes", GEMMS)
def test_gemm_without_a_bias_and_its_gradients(attributes: dict[str, Any]) -> None:
    a = floats(4, 3) if "transA" in attributes else floats(3, 4)
    b = floats(2, 4, seed=1) if "transB" in attributes else floats(4, 2, seed=1)
    agrees("Gemm", single(a, b), opset=13, **attributes)
    assert gradients_agree("Gemm", [a, b, floats(2, seed=2)], **attributes)


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [
        ("Relu", {}),
        ("Tanh", {}),
        ("Sigmoid", {}),
        ("LeakyRelu", {"activation_alpha": 0.2}),
        ("Elu", {"activation_alpha": 0.7}),
        ("HardSigmoid", {"activation_alpha": 0.3, "activation_beta": 0.4}),
        ("Softplus", {}),
        ("Softsign", {}),
        ("ThresholdedRelu", {"activation_alpha": 0.6}),
    ],
)
def test_gemm_with_an_activation(activation: str, parameters: dict[str, float]) -> None:
    given = single(floats(3, 4), floats(2, 4, seed=1), floats(2, seed=2))
    agrees("FusedGemm", given, domain=MICROSOFT, transB=1, alpha=0.8, activation=activation, **parameters)


def test_gemm_with_an_activation_that_is_unknown_is_refused() -> None:
    with pytest.raises(UnsupportedOperator, match="its activation 'Sine' is unknown"):
        run("FusedGemm", [floats(2, 2), floats(2, 2)], domain=MICROSOFT, activation="Sine")


@pytest.mark.parametrize("alpha", [1.0, 0.125])
@pytest.mark.parametrize("right", ["", "transB", "transBatchB", "both"])
@pytest.mark.parametrize("left", ["", "transA", "transBatchA", "both"])
def test_fused_products_turn_matrices_and_batches(left: str, right: str, alpha: float) -> None:
    """Of two batches, three rows times five columns with four numbers each."""
    shapes = {
        "": ((2, 3, 4), (2, 4, 5)),
        "trans": ((2, 4, 3), (2, 5, 4)),
        "transBatch": ((3, 2, 4), (4, 2, 5)),
        "both": ((4, 2, 3), (5, 2, 4)),
    }
    a = floats(*shapes[left.removesuffix("A")][0])
    b = floats(*shapes[right.removesuffix("B")][1], seed=1)
    attributes = {name: 1 for name in ("transA", "transBatchA") if left in {name, "both"}}
    attributes |= {name: 1 for name in ("transB", "transBatchB") if right in {name, "both"}}
    agrees("FusedMatMul", single(a, b), domain=MICROSOFT, alpha=alpha, **attributes)


def test_the_older_name_of_fused_products() -> None:
    agrees("TransposeMatMul", single(floats(4, 3), floats(4, 2)), domain=MICROSOFT, transA=1, alpha=0.5)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("bhqd,bhkd->bhqk", [(2, 2, 3, 4), (2, 2, 5, 4)]),
        ("...ij,...jk", [(2, 2, 3), (1, 3, 2)]),
        ("ii->i", [(3, 3)]),
        ("Ab, bC", [(2, 3), (3, 2)]),
        ("i,j,k->kji", [(2,), (3,), (4,)]),
    ],
)
def test_sums_by_the_convention_of_einstein(equation: str, shapes: list[tuple[int, ...]]) -> None:
    given = [floats(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    np.testing.assert_allclose(run("Einsum", given, equation=equation).numpy(), np.einsum(equation, *given), rtol=1e-12)
    assert gradients_agree("Einsum", given, equation=equation)


def test_determinants_and_inverses() -> None:
    x = floats(2, 3, 3)
    np.testing.assert_allclose(run("Det", [x]).numpy(), np.linalg.det(x), rtol=1e-10)
    half = x.astype(np.float16)
    np.testing.assert_allclose(run("Det", [half], opset=22).numpy(), np.linalg.det(half.astype(float)), rtol=1e-2)
    assert gradients_agree("Det", [x])
    agrees("Inverse", single(x), domain=MICROSOFT)


def test_what_the_optimiser_of_onnx_runtime_makes_of_a_graph(tmp_path: Path) -> None:
    node = helper.make_node
    nodes = [
        node("Gemm", ["x", "weight", "bias"], ["product"]),
        node("LeakyRelu", ["product"], ["rectified"], alpha=0.1),
        node("Div", ["rectified", "root"], ["scaled"]),
        node("Erf", ["scaled"], ["error"]),
        node("Add", ["error", "one"], ["share"]),
        node("Mul", ["rectified", "share"], ["doubled"]),
        node("Mul", ["doubled", "half"], ["gelu"]),
        node("Transpose", ["gelu"], ["turned"], perm=[1, 0]),
        node("MatMul", ["gelu", "turned"], ["square"]),
        node("Mul", ["square", "eighth"], ["y"]),
    ]
    constants = {"weight": floats(4, 6), "bias": floats(6, seed=1)} | {
        name: np.array(value) for name, value in {"root": 2**0.5, "one": 1.0, "half": 0.5, "eighth": 0.125}.items()
    }
    graph = helper.make_graph(
        nodes,
        "fused",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [3, 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    x = floats(3, 4, seed=2).astype(np.float32)
    (expected,) = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"]).run(None, {"x": x})
    optimised = ir.load(tmp_path / "optimised.onnx")
    assert {found.op_type for found in optimised.graph} == {"FusedGemm", "Gelu", "FusedMatMul"}
    found = TorchGraph(optimised, nothing)({"x": torch.from_numpy(x)})["y"]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
