"""Arithmetic, comparisons, bits and casts: integers of every type, older forms, gradients."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper

from accel.errors import TrainingFailed, UnsupportedOperator
from accel.graph.torch_graph.graph import TorchGraph, nothing
from tests import models
from tests.one_node import computed, gradients_agree, model_of, run

UNSIGNED = (np.uint8, np.uint16, np.uint32, np.uint64)
SIGNED = (np.int8, np.int16, np.int32, np.int64)


def integers(dtype: type[np.integer], seed: int, *, least: int | None = None) -> np.ndarray:
    """Numbers of the whole range of a type, and those at its ends."""
    limits = np.iinfo(dtype)
    low = limits.min if least is None else least
    drawn = np.random.default_rng(seed).integers(low, limits.max, 40, dtype=dtype, endpoint=True)
    return np.concatenate([drawn, np.array([limits.max, limits.max - 1, low, max(low, 1)], dtype)])


def floats(*shape: int, seed: int = 0, low: float = -2, high: float = 2) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape)


@pytest.mark.parametrize("dtype", [*UNSIGNED, *SIGNED])
def test_integers_are_computed_as_numpy_computes_them(dtype: type[np.integer]) -> None:
    a, b = integers(dtype, 0), integers(dtype, 1)[::-1].copy()
    with np.errstate(over="ignore"):
        wanted: dict[str, np.ndarray] = {
            "Add": a + b,
            "Sub": a - b,
            "Mul": a * b,
            "Max": np.maximum(a, b),
            "Min": np.minimum(a, b),
            "Greater": a > b,
            "GreaterOrEqual": a >= b,
            "Less": a < b,
            "LessOrEqual": a <= b,
            "Equal": a == b,
            "BitwiseAnd": a & b,
            "BitwiseOr": a | b,
            "BitwiseXor": a ^ b,
        }
        signs = {"Abs": np.abs(a), "Sign": np.sign(a), "BitwiseNot": ~a}
    for name, expected in wanted.items():
        np.testing.assert_array_equal(run(name, [a, b]).numpy(), expected, err_msg=name)
    for name, expected in signs.items():
        np.testing.assert_array_equal(run(name, [a]).numpy(), expected.astype(dtype), err_msg=name)


@pytest.mark.parametrize("dtype", [*UNSIGNED, *SIGNED])
def test_quotients_are_cut_toward_zero(dtype: type[np.integer]) -> None:
    a, b = integers(dtype, 2), integers(dtype, 3)
    a[a == np.iinfo(dtype).min] += 1  # its quotient by -1 is beyond the type
    small = np.where(b % 7 == 0, 3, b % 7).astype(dtype)
    for divisor in (np.where(b == 0, 1, b).astype(dtype), small):
        exact = [
            int(abs(int(x)) // abs(int(y))) * (1 if (x < 0) == (y < 0) else -1) for x, y in zip(a, divisor, strict=True)
        ]
        rests = [int(x) - q * int(y) for x, q, y in zip(a, exact, divisor, strict=True)]
        assert run("Div", [a, divisor]).tolist() == exact
        assert run("Mod", [a, divisor], fmod=1).tolist() == rests
        assert run("Mod", [a, divisor]).tolist() == [int(x) % int(y) for x, y in zip(a, divisor, strict=True)]


def test_a_division_of_integers_by_zero_is_said() -> None:
    with pytest.raises(TrainingFailed, match=r"The node 'node' \(Div\) could not be run in PyTorch"):
        run("Div", [np.array([1]), np.array([0])])


def test_the_remainder_of_floats_has_the_sign_that_the_specification_gives_it() -> None:
    infinity = np.inf
    a = np.array([0.0, -0.0, 5.5, 5.5, -5.5, infinity, 6.0, np.nan], np.float32)
    b = np.array([-3.0, 3.0, -infinity, infinity, 2.0, 2.0, -3.0, 1.0], np.float32)
    found = run("Mod", [a, b], opset=28).numpy()
    wanted = np.array([-0.0, 0.0, -infinity, 5.5, 0.5, np.nan, -0.0, np.nan], np.float32)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(
        np.signbit(found[:-1]), np.signbit(wanted[:-1]) | np.isnan(wanted[:-1]) & np.signbit(found[:-1])
    )
    np.testing.assert_array_equal(
        run("Mod", [a, b], fmod=1).numpy(), np.fmod(a, b, where=~np.isinf(a), out=np.full_like(a, np.nan))
    )


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
@pytest.mark.parametrize("dtype", UNSIGNED)
def test_bits_are_shifted_without_a_sign(dtype: type[np.integer], direction: str) -> None:
    x, width = integers(dtype, 4), np.iinfo(dtype).bits
    by = (np.arange(len(x)) % (width + 2)).astype(dtype)
    mask = (1 << width) - 1
    wanted = [
        (int(a) << int(n)) & mask if direction == "LEFT" else int(a) >> int(n) for a, n in zip(x, by, strict=True)
    ]
    assert run("BitShift", [x, by], direction=direction).tolist() == wanted


def test_bits_of_signed_numbers_are_shifted_with_their_sign() -> None:
    x, by = np.array([-8, -8, -1, 64, -8, 7], np.int8), np.array([1, 9, 100, 1, -1, -1], np.int8)
    assert run("BitShift", [x, by], opset=28, direction="RIGHT").tolist() == [-4, -1, -1, 32, -1, 0]
    assert run("BitShift", [x, by], opset=28, direction="LEFT").tolist() == [-16, 0, 0, -128, 0, 0]


@pytest.mark.parametrize("base", [np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("exponent", [np.int32, np.int64, np.float32, np.float64])
def test_a_power_has_the_type_of_its_base(base: type[np.number], exponent: type[np.number]) -> None:
    given = [np.arange(1, 7).reshape(2, 3).astype(base), np.array([[3, 2, 1]]).astype(exponent)]
    model = model_of("Pow", given, opset=15)
    found = computed(model, given)[0].numpy()
    assert found.dtype == base
    np.testing.assert_allclose(found, models.run(model, {"x0": given[0], "x1": given[1]})["y0"], rtol=1e-6)


@pytest.mark.parametrize("value", [2.0, 3.0, 0.5, -0.5, -2.0, 0.0, 1.7])
def test_a_power_that_is_one_number_is_the_same_as_several(value: float) -> None:
    x = floats(3, 4, low=0.1)
    for shape in ((), (1,), (1, 1), (4,), (1, 1, 1)):
        y = np.full(shape, value)
        np.testing.assert_allclose(run("Pow", [x, y], fixed=[1]).numpy(), np.power(x, y), rtol=1e-14)


def test_a_limit_that_is_trained_gets_a_gradient_and_is_read_again_after_each_step() -> None:
    x = np.array([0.5, 2.0, 3.0], np.float32)
    model = ir.from_proto(model_of("Clip", [x, None, np.array(1.0, np.float32)], fixed=[2]))
    graph = TorchGraph(model, lambda candidate: candidate.name == "x2")
    ((_, limit),) = graph.trained()
    found = graph({"x0": torch.from_numpy(x)})["y0"]
    found.sum().backward()
    assert limit.grad is not None
    assert limit.grad.item() == 2
    with torch.no_grad():
        limit.fill_(2.5)
        assert graph({"x0": torch.from_numpy(x)})["y0"].tolist() == [0.5, 2.0, 2.5]


@pytest.mark.parametrize(
    ("opset", "limits", "attributes"),
    [
        (6, [], {"min": -0.5, "max": 1.0}),
        (6, [], {"min": 0.0}),
        (6, [], {"max": 1.0}),
        (6, [], {}),
        (11, [-0.5, 1.0], {}),
        (13, [0.0, 6.0], {}),
        (13, [0.0], {}),
        (13, [None, 0.5], {}),
        (13, [1.0, -1.0], {}),
    ],
)
def test_clip_in_each_form(opset: int, limits: list[float | None], attributes: dict[str, float]) -> None:
    x = floats(4, 5).astype(np.float32)
    given = [x, *(None if limit is None else np.array(limit, np.float32) for limit in limits)]
    fixed = [place for place, value in enumerate(given) if place and value is not None]
    model = model_of("Clip", given, opset=opset, fixed=fixed, **attributes)
    np.testing.assert_array_equal(computed(model, given)[0].numpy(), models.run(model, {"x0": x})["y0"])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_integers_are_clipped(dtype: type[np.integer]) -> None:
    x, limits = integers(dtype, 5), np.quantile(integers(dtype, 6), [0.3, 0.8], method="nearest")
    low, high = np.array(limits[0], dtype), np.array(limits[1], dtype)
    np.testing.assert_array_equal(run("Clip", [x, low, high]).numpy(), np.clip(x, low, high))
    np.testing.assert_array_equal(run("Clip", [x, None, high]).numpy(), np.minimum(x, high))


@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize("negative", [0, 1])
def test_infinities_of_either_sign_are_found(positive: int, negative: int) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0.0], np.float32)
    for given in (x, x.astype(ml_dtypes.float8_e5m2)):
        found = run("IsInf", [given], opset=20, detect_positive=positive, detect_negative=negative)
        assert found.tolist() == [bool(positive), bool(negative), False, False]


NOTHING = float("nan")
SPECIAL = np.array([0.0, NOTHING, np.inf, -np.inf, 1e6, -1e6, 1.1], np.float32)
NEAR = {"e4m3fn": 1.125, "e4m3fnuz": 1.125, "e5m2": 1.0, "e5m2fnuz": 1.0}
GREATEST = {"e4m3fn": 448.0, "e4m3fnuz": 240.0, "e5m2": 57344.0, "e5m2fnuz": 57344.0}
TYPES = {
    "e4m3fn": TensorProto.FLOAT8E4M3FN,
    "e4m3fnuz": TensorProto.FLOAT8E4M3FNUZ,
    "e5m2": TensorProto.FLOAT8E5M2,
    "e5m2fnuz": TensorProto.FLOAT8E5M2FNUZ,
}


@pytest.mark.parametrize("name", list(TYPES))
def test_a_float8_is_saturated_or_not_as_the_tables_of_cast_say(name: str) -> None:
    top, near = GREATEST[name], NEAR[name]
    beyond = np.inf if name == "e5m2" else NOTHING
    for dtype in (np.float32, np.float16, np.float64):
        with np.errstate(over="ignore"):
            x = SPECIAL.astype(dtype)
        saturated = run("Cast", [x], opset=23, to=TYPES[name]).float().numpy()
        np.testing.assert_array_equal(saturated, [0, NOTHING, top, -top, top, -top, near])
        plain = run("Cast", [x], opset=23, to=TYPES[name], saturate=0).float().numpy()
        np.testing.assert_array_equal(plain, [0, NOTHING, beyond, -beyond, beyond, -beyond, near])


def test_what_rounds_to_the_greatest_float8_is_not_beyond_it() -> None:
    x = np.array([464.0, 464.25, -464.0], np.float32)
    found = run("Cast", [x], to=TYPES["e4m3fn"], saturate=0).float().numpy()
    np.testing.assert_array_equal(found, [448.0, NOTHING, -448.0])


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (TensorProto.INT4, [-8, 7, 0, -1, 2]),
        (TensorProto.UINT4, [8, 7, 0, 15, 2]),
        (TensorProto.INT2, [0, -1, 0, -1, -2]),
        (TensorProto.UINT2, [0, 3, 0, 3, 2]),
        (TensorProto.UINT8, [8, 7, 16, 255, 18]),
    ],
)
def test_bits_beyond_an_integer_are_discarded(target: int, wanted: list[int]) -> None:
    x = np.array([8, 7, 16, -1, 18], np.int32)
    assert run("Cast", [x], opset=25, to=target).tolist() == wanted


def test_the_older_way_to_broadcast_is_refused() -> None:
    given = [floats(2, 3).astype(np.float32), floats(2).astype(np.float32)]
    with pytest.raises(UnsupportedOperator, match="the operator of version 6 is not among those"):
        run("Add", given, opset=6, axis=0, broadcast=1)


def test_a_cast_of_texts_is_refused() -> None:
    with pytest.raises(UnsupportedOperator, match="no element type for STRING"):
        run("Cast", [np.ones(2, np.float32)], to=TensorProto.STRING)


def test_castlike_takes_the_type_of_a_tensor_that_the_file_says_nothing_of() -> None:
    model = model_of("CastLike", [np.array([1.5, 300.0], np.float32), np.zeros(1, np.int8)])
    del model.graph.input[1]
    found = ir.from_proto(model)
    found.graph.inputs.append(found.graph.node("node").inputs[1])
    graph = TorchGraph(found)
    x = torch.tensor([1.5, 500.0])
    assert graph({"x0": x, "x1": torch.zeros(1, dtype=torch.float16)})["y0"].dtype == torch.float16
    like = torch.zeros(1).to(torch.float8_e4m3fn)
    assert graph({"x0": x, "x1": like})["y0"].float().tolist() == [1.5, 448.0]


def test_bits_are_read_as_another_type() -> None:
    x = np.array([1.0, -2.5, np.inf], np.float32)
    assert run("BitCast", [x], opset=26, to=TensorProto.INT32).tolist() == x.view(np.int32).tolist()
    packed = np.array([-1, 7, -8], ml_dtypes.int4)
    assert run("BitCast", [packed], opset=26, to=TensorProto.UINT4).tolist() == [15, 7, 8]


BINARY: list[tuple[str, dict[str, Any]]] = [
    ("Add", {}),
    ("Sub", {}),
    ("Mul", {}),
    ("Div", {}),
    ("Pow", {}),
    ("Mod", {"fmod": 1}),
    ("Max", {}),
    ("Min", {}),
    ("Sum", {}),
    ("Mean", {}),
]


@pytest.mark.parametrize(("name", "attributes"), BINARY)
def test_gradients_of_two_tensors_that_broadcast(name: str, attributes: dict[str, Any]) -> None:
    assert gradients_agree(name, [floats(2, 3, low=0.5), floats(3, seed=1, low=0.6)], **attributes)


ANYWHERE = (
    "Neg",
    "Abs",
    "Exp",
    "Erf",
    "Sin",
    "Cos",
    "Atan",
    "Sinh",
    "Cosh",
    "Tanh",
    "Asinh",
    "Floor",
    "Ceil",
    "Round",
    "Sign",
)
INSIDE = ("Tan", "Asin", "Acos", "Atanh")
POSITIVE = ("Sqrt", "Log", "Reciprocal")


@pytest.mark.parametrize("name", [*ANYWHERE, *INSIDE, *POSITIVE, "Acosh"])
def test_gradients_of_functions(name: str) -> None:
    low, high = {"Acosh": (1.1, 3.0)}.get(
        name, (0.2, 2.0) if name in POSITIVE else (-0.9, 0.9) if name in INSIDE else (-2.0, 2.0)
    )
    assert gradients_agree(name, [floats(7, low=low, high=high)])


def test_the_magnitude_of_nothing_has_a_gradient_of_zero() -> None:
    nodes = [helper.make_node("Mul", ["x", "x"], ["square"]), helper.make_node("Sqrt", ["square"], ["y"])]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3]) for name in ("x", "y")]
    graph = TorchGraph(ir.from_proto(models.assemble(nodes, ports[:1], ports[1:])), nothing)
    x = torch.tensor([0.0, -3.0, 2.0], requires_grad=True)
    graph({"x": x})["y"].sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, -1.0, 1.0]
    assert graph({"x": x.detach()})["y"].tolist() == [0.0, 3.0, 2.0]


def test_gradients_of_choices() -> None:
    chosen = np.array([[True, False, True]])
    assert gradients_agree("Where", [chosen, floats(2, 3), floats(2, 1, seed=1)])
    assert gradients_agree("Clip", [floats(9), np.array(-0.5), np.array(0.7)])
    assert gradients_agree("Pow", [floats(5, low=0.3), np.array(3)])


def test_a_cast_between_floats_lets_the_gradient_through() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    graph = TorchGraph(ir.from_proto(model_of("Cast", [np.zeros(2, np.float32)], to=TensorProto.FLOAT16)))
    (graph({"x0": x})["y0"] * 3).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 3.0]
