"""Integers in place of floats: within half a step, the same as ONNX Runtime's, for every shape and every size of number."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from accel.numerics.scales import (
    PER_TENSOR,
    Granularity,
    Parameters,
    Scheme,
    dequantize,
    extremes,
    noise_db,
    parameters,
    quantize,
    quantize_tensor,
    spread,
)
from tests import models

SCHEMES = st.builds(Scheme, bits=st.integers(2, 16), signed=st.booleans(), symmetric=st.booleans())
SHAPES = st.lists(st.integers(0, 7), min_size=1, max_size=4).map(tuple)
MAGNITUDES = st.sampled_from([1.0, 1e-3, 1e38, 1e-38, 1e-44, 0.0])
TINY = float(np.finfo(np.float32).tiny)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[np.ndarray, Granularity]:
    shape = draw(SHAPES)
    axis = draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    block = None if axis is None else draw(st.none() | st.integers(1, 9))
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    low = draw(st.sampled_from([-1.0, 0.0, 0.5, -0.25]))
    high = draw(st.sampled_from([1.0, 0.75, low]))
    array = chance.uniform(min(low, high), max(low, high), shape) * draw(MAGNITUDES)
    return array.astype(np.float32), Granularity(axis, block)


def in_onnx_runtime(array: np.ndarray, found: Parameters, scheme: Scheme, granularity: Granularity) -> np.ndarray:
    """What QuantizeLinear of ONNX Runtime makes of an array."""
    elements = {"int8": TensorProto.INT8, "uint8": TensorProto.UINT8}
    elements |= {"int16": TensorProto.INT16, "uint16": TensorProto.UINT16}
    attributes = {} if granularity.axis is None else {"axis": granularity.axis}
    attributes |= {} if granularity.block is None else {"block_size": granularity.block}
    node = helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantize", **attributes)
    ports = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, array.shape),
        helper.make_tensor_value_info("q", elements[scheme.dtype.name], array.shape),
    ]
    weights = {"s": found.scale, "z": found.zero_point.astype(scheme.dtype)}
    proto = models.assemble([node], ports[:1], ports[1:], weights, opset=21)
    proto.ir_version = 10
    return models.run(proto, {"x": array})["q"]


@given(tensors(), SCHEMES)
def test_the_way_there_and_back_loses_at_most_half_a_step(made: tuple[np.ndarray, Granularity], scheme: Scheme) -> None:
    array, granularity = made
    integers, found = quantize_tensor(array, scheme, granularity)
    assert integers.shape == array.shape
    assert integers.dtype == scheme.dtype
    assert integers.size == 0 or scheme.low <= integers.min() <= integers.max() <= scheme.high
    back = dequantize(integers, found, granularity)
    assert back.dtype == np.float32
    step = np.broadcast_to(spread(found.scale, array.shape, granularity), array.shape).astype(np.float64)
    # In 16 bits the float32 of the result is itself 2^-8 of a step away.
    assert (np.abs(back.astype(np.float64) - array) <= step * (0.5 + 2**-7)).all()


@given(tensors(), SCHEMES)
def test_scales_are_positive_finite_and_zero_is_exact(made: tuple[np.ndarray, Granularity], scheme: Scheme) -> None:
    array, granularity = made
    found = parameters(*extremes(array, granularity), scheme)
    assert found.scale.dtype == np.float32
    assert found.zero_point.dtype == np.int32
    assert found.scale.shape == found.zero_point.shape
    assert np.isfinite(found.scale).all()
    assert (found.scale >= TINY).all()
    assert ((found.zero_point >= scheme.low) & (found.zero_point <= scheme.high)).all()
    zeros = np.zeros_like(array)
    assert not dequantize(quantize(zeros, found, scheme, granularity), found, granularity).any()


@given(tensors())
def test_groups_have_the_extremes_of_a_plain_loop(made: tuple[np.ndarray, Granularity]) -> None:
    array, granularity = made
    low, high = extremes(array, granularity)
    if granularity.axis is None:
        groups = {(): array}
    else:
        axis = granularity.axis % array.ndim
        cut = granularity.block or 1
        count = -(-array.shape[axis] // cut)
        parts = [array.take(range(i * cut, min((i + 1) * cut, array.shape[axis])), axis) for i in range(count)]
        if granularity.block is None:
            groups = {(i,): part for i, part in enumerate(parts)}
        else:
            moved = [np.moveaxis(part, axis, -1) for part in parts]
            others = [size for a, size in enumerate(array.shape) if a != axis]
            groups = {
                (*index[:axis], i, *index[axis:]): part[index]
                for i, part in enumerate(moved)
                for index in np.ndindex(*others)
            }
    assert low.size == high.size == len(groups)
    for index, group in groups.items():
        assert low[index] == (group.min() if group.size else 0)
        assert high[index] == (group.max() if group.size else 0)


@given(
    st.integers(0, 2**32),
    st.sampled_from([8, 16]),
    st.booleans(),
    st.sampled_from([PER_TENSOR, Granularity(0), Granularity(-1), Granularity(1, 3), Granularity(0, 4)]),
)
def test_integers_are_those_of_onnx_runtime(seed: int, bits: int, signed: bool, granularity: Granularity) -> None:
    chance = np.random.default_rng(seed)
    array = (chance.standard_normal((6, 10, 5)) * 10 ** chance.uniform(-3, 3)).astype(np.float32)
    scheme = Scheme(bits, signed=signed, symmetric=False)
    low, high = extremes(array, granularity)
    found = parameters(low * 0.7, high * 0.7, scheme)  # so that some values saturate
    ours = quantize(array, found, scheme, granularity)
    np.testing.assert_array_equal(ours, in_onnx_runtime(array, found, scheme, granularity))
    assert (ours == scheme.high).any()


@pytest.mark.parametrize("bits", [8, 16])
def test_quotients_next_to_a_tie_round_as_in_onnx_runtime(bits: int) -> None:
    # A quotient that is a tie in float32 but not in float64: runtimes divide in float32.
    scheme = Scheme(bits, signed=False, symmetric=False)
    chance = np.random.default_rng(3)
    scale = np.float32(0.1)
    ties = (chance.integers(0, scheme.high, 4096) + 0.5).astype(np.float32) * scale
    array = np.concatenate([ties, np.nextafter(ties, np.float32(0)), np.nextafter(ties, np.float32(1e9))])
    found = Parameters(np.asarray(scale), np.asarray(0, np.int32))
    ours = quantize(array, found, scheme)
    theirs = in_onnx_runtime(array, found, scheme, PER_TENSOR)
    assert int((ours != theirs).sum()) == 0


def test_ties_go_to_the_even_integer() -> None:
    found = Parameters(np.float32([2.0]).reshape(()), np.asarray(0, np.int32))
    assert quantize(np.float32([1, 3, 5, -1, -3]), found, Scheme()).tolist() == [0, 2, 2, 0, -2]


def test_a_scalar_is_a_tensor_too() -> None:
    integers, found = quantize_tensor(np.array(-3.0, np.float32), Scheme())
    assert integers.shape == ()
    assert int(integers) == -127
    assert dequantize(integers, found) == pytest.approx(-3.0)


@pytest.mark.parametrize(
    ("scheme", "low", "high", "dtype"),
    [
        (Scheme(8, signed=True, symmetric=True), -127, 127, "int8"),
        (Scheme(8, signed=True, symmetric=False), -128, 127, "int8"),
        (Scheme(8, signed=False, symmetric=False), 0, 255, "uint8"),
        (Scheme(7, signed=True, symmetric=True), -63, 63, "int8"),
        (Scheme(4, signed=False, symmetric=False), 0, 15, "uint8"),
        (Scheme(2, signed=True, symmetric=True), -1, 1, "int8"),
        (Scheme(16, signed=False, symmetric=False), 0, 65535, "uint16"),
        (Scheme(9, signed=True, symmetric=True), -255, 255, "int16"),
    ],
)
def test_the_integers_of_a_scheme(scheme: Scheme, low: int, high: int, dtype: str) -> None:
    assert (scheme.low, scheme.high, scheme.dtype.name) == (low, high, dtype)


@given(SCHEMES, st.floats(0, 2**126, width=32), st.floats(0, 2**126, width=32))
def test_a_range_is_covered(scheme: Scheme, below: float, above: float) -> None:
    found = parameters(-below, above, scheme)
    ends = np.array([-below, above], np.float32)
    back = dequantize(quantize(ends, found, scheme), found).astype(np.float64)
    assert (np.abs(back - ends) <= float(found.scale) * (0.5 + 2**-7)).all()


def test_ranges_that_leave_out_zero_are_widened_to_it() -> None:
    found = parameters([2.0, -4.0], [4.0, -2.0], Scheme(8, signed=False, symmetric=False))
    assert found.zero_point.tolist() == [0, 255]
    np.testing.assert_allclose(found.scale, np.float32(4 / 255))


def test_a_symmetric_scheme_has_its_zero_in_the_middle_and_mirrors() -> None:
    array = np.random.default_rng(1).standard_normal((4, 33)).astype(np.float32)
    scheme = Scheme(8, signed=True, symmetric=True)
    there, found = quantize_tensor(array, scheme, Granularity(0))
    mirrored, same = quantize_tensor(-array, scheme, Granularity(0))
    assert not found.zero_point.any()
    np.testing.assert_array_equal(there, -mirrored)
    np.testing.assert_array_equal(found.scale, same.scale)
    assert (np.abs(there).max(1) == 127).all()
    _, unsigned = quantize_tensor(array, Scheme(8, signed=False, symmetric=True))
    assert int(unsigned.zero_point) == 128


def test_a_group_of_zeros_does_not_disturb_its_neighbours() -> None:
    array = np.float32([[0, 0, 0], [1, -2, 4]])
    integers, found = quantize_tensor(array, Scheme(), Granularity(0))
    assert found.scale[0] == 1
    np.testing.assert_array_equal(integers, [[0, 0, 0], [32, -64, 127]])


def test_the_array_that_is_given_stays_as_it_was() -> None:
    array = np.random.default_rng(2).standard_normal((5, 5))
    before = array.copy()
    integers, found = quantize_tensor(array, Scheme())
    kept = integers.copy()
    dequantize(integers, found)
    np.testing.assert_array_equal(array, before)
    np.testing.assert_array_equal(integers, kept)


def test_integers_of_four_bits_are_understood_as_onnx_keeps_them() -> None:
    integers = np.int8([[-7, 7, 3]])
    packed = ir.Tensor(integers.astype(ir.DataType.INT4.numpy()), dtype=ir.DataType.INT4).numpy()
    found = Parameters(np.float32([0.5]), np.int32([0]))
    np.testing.assert_array_equal(dequantize(packed, found, Granularity(0)), [[-3.5, 3.5, 1.5]])


def test_noise_in_decibels() -> None:
    assert noise_db(np.float32([3, 4]), np.float32([3, 4.5])) == pytest.approx(20)  # 25 / 0.25
    assert noise_db(np.float32([1, 2]), np.float32([1, 2])) is None
    assert noise_db(np.float32([0, 0]), np.float32([1, 0])) is None
    assert noise_db(np.float32([]), np.float32([])) is None


@pytest.mark.parametrize("bits", [4, 6, 8, 10])
def test_a_bit_more_is_six_decibels_more(bits: int) -> None:
    array = np.random.default_rng(5).uniform(-1, 1, 20_000).astype(np.float32)

    def noise(width: int) -> float:
        integers, found = quantize_tensor(array, Scheme(width, signed=False, symmetric=False))
        return noise_db(array, dequantize(integers, found)) or 0

    assert noise(bits + 1) - noise(bits) == pytest.approx(6.02, abs=0.6)
