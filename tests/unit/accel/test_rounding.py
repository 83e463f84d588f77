"""Rounding: never further than half a step, and the cleverer ways leave less error than the plain one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.numerics import rounding
from accel.numerics.scales import Scheme

SCHEMES = st.builds(
    lambda bits, symmetric: Scheme(bits, signed=symmetric, symmetric=symmetric), st.integers(2, 8), st.booleans()
)


def matrices(rows: int, columns: int, seed: int, kind: str) -> np.ndarray:
    chance = np.random.default_rng(seed)
    if kind == "constant":
        return np.full((rows, columns), np.float32(chance.standard_normal()))
    if kind == "zero":
        return np.zeros((rows, columns), np.float32)
    return (chance.standard_t(3, (rows, columns)) * 10.0 ** chance.integers(-3, 3)).astype(np.float32)


MATRICES = st.builds(
    matrices,
    st.integers(0, 9),
    st.integers(0, 70),
    st.integers(0, 99),
    st.sampled_from(["heavy-tailed", "constant", "zero"]),
)
BLOCKS = st.none() | st.integers(1, 80)


def inputs(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Correlated, as real activations are."""
    chance = np.random.default_rng(seed)
    mixing = chance.standard_normal((columns, columns)) * 0.3 + np.eye(columns)
    return (np.abs(chance.standard_normal((rows, columns))) @ mixing).astype(np.float32)


def gram(x: np.ndarray) -> np.ndarray:
    return (x.T @ x)[None]


@given(MATRICES, SCHEMES, BLOCKS)
@settings(max_examples=80, deadline=None)
def test_nearest_stays_within_half_a_step(matrix: np.ndarray, scheme: Scheme, block: int | None) -> None:
    found = rounding.nearest(matrix, scheme, block)
    assert found.integers.shape == matrix.shape
    assert found.integers.dtype == scheme.dtype
    if not matrix.size:
        return
    assert found.integers.min() >= scheme.low
    assert found.integers.max() <= scheme.high
    scale, _ = found.spread()
    # With a zero point, the range moves by up to half a step so that 0 is exact.
    share = 0.5 if scheme.symmetric else 1.0
    slack = 1e-5 * np.abs(matrix).max(initial=0)
    assert (np.abs(found.floats() - matrix) <= share * scale + slack).all()
    assert found.parameters.scale.shape == (len(matrix), -(-matrix.shape[1] // found.block))


@given(MATRICES, SCHEMES, BLOCKS)
@settings(max_examples=40, deadline=None)
def test_half_quadratic_is_never_worse_than_nearest(matrix: np.ndarray, scheme: Scheme, block: int | None) -> None:
    plain = rounding.nearest(matrix, scheme, block)
    found = rounding.half_quadratic(matrix, scheme, block)
    assert found.integers.dtype == scheme.dtype
    if not matrix.size:
        return
    assert found.integers.min() >= scheme.low
    assert found.integers.max() <= scheme.high
    assert (found.parameters.scale > 0).all()
    starts = np.arange(0, matrix.shape[1], found.block)
    before, after = (
        np.add.reduceat(np.square(part.floats() - matrix, dtype=np.float64), starts, 1) for part in (plain, found)
    )
    assert (after <= before * (1 + 1e-4) + 1e-9 * np.square(matrix).max()).all()


@pytest.mark.parametrize(("bits", "gain"), [(2, 0.75), (3, 0.85), (4, 0.97)])
def test_half_quadratic_pays_at_few_bits(bits: int, gain: float) -> None:
    matrix = matrices(64, 128, 1, "heavy-tailed")
    scheme = Scheme(bits)
    before, after = (
        np.square(method(matrix, scheme, 64).floats() - matrix).sum()
        for method in (rounding.nearest, rounding.half_quadratic)
    )
    assert after < gain * before


def test_half_quadratic_of_a_large_matrix_is_that_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = matrices(30, 20, 2, "heavy-tailed")
    whole = rounding.half_quadratic(matrix, Scheme(3), 8)
    monkeypatch.setattr(rounding, "_CHUNK", 100)
    np.testing.assert_array_equal(rounding.half_quadratic(matrix, Scheme(3), 8).integers, whole.integers)


def test_errors_of_two_equal_inputs_cancel_out() -> None:
    """Both weights are 0.4 steps, both inputs are always equal: 0 and 0 give 0.8 too little, 1 and 0 only 0.2 too much."""
    matrix, scale, zero = np.float32([[0.4, 0.4]]), np.float32(1), np.int32(0)
    seen = np.float32([[[1, 1], [1, 1]]])
    for found in (
        rounding.gptq(matrix, scale, zero, seen, limits=(-7, 7)),
        rounding.search(matrix, np.zeros((1, 2), np.int8), scale, zero, seen, limits=(-7, 7)),
    ):
        assert sorted(found[0].tolist()) == [0, 1]


def test_uncorrelated_inputs_change_nothing() -> None:
    matrix = matrices(5, 40, 3, "heavy-tailed")
    plain = rounding.nearest(matrix, Scheme(4), 16)
    limits = (plain.scheme.low, plain.scheme.high)
    apart = np.diag(np.arange(1.0, 41.0))[None]
    np.testing.assert_array_equal(rounding.gptq(matrix, *plain.spread(), apart, limits=limits), plain.integers)
    np.testing.assert_array_equal(
        rounding.search(matrix, plain.integers, *plain.spread(), apart, limits=limits), plain.integers
    )


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("bits", "block"), [(8, None), (4, 32), (3, 7), (2, 32)])
def test_gptq_and_search_leave_less_error_on_inputs_that_they_did_not_see(
    bits: int, block: int | None, symmetric: bool
) -> None:
    matrix = matrices(24, 150, 4, "normal").clip(-3, 3)
    scheme = Scheme(bits, signed=symmetric, symmetric=symmetric)
    plain = rounding.nearest(matrix, scheme, block)
    both = inputs(1200, 150)
    seen, unseen = gram(both[:1000]), gram(both[1000:])
    limits = (scheme.low, scheme.high)
    scale, zero = plain.spread()

    def error(integers: np.ndarray) -> float:
        return rounding.output_error((integers.astype(np.int32) - zero) * scale - matrix, unseen)

    compensated = rounding.gptq(matrix, scale, zero, seen, limits=limits)
    searched = rounding.search(matrix, plain.integers, scale, zero, seen, limits=limits)
    assert error(compensated) < 0.7 * error(plain.integers)
    assert error(searched) < 0.8 * error(plain.integers)
    for found in (compensated, searched):
        assert found.min() >= scheme.low
        assert found.max() <= scheme.high


@given(st.integers(0, 200), st.integers(1, 9), st.sampled_from([2, 3, 4, 8]))
@settings(max_examples=25, deadline=None)
def test_search_ends_where_no_single_change_helps(seed: int, columns: int, bits: int) -> None:
    matrix = matrices(3, columns, seed, "normal")
    plain = rounding.nearest(matrix, Scheme(bits))
    scale, zero = plain.spread()
    seen = gram(inputs(30, columns, seed))
    regular = rounding._regular(seen, rounding.DAMPING)
    limits = (plain.scheme.low, plain.scheme.high)
    found = rounding.search(matrix, plain.integers, scale, zero, seen, limits=limits, iterations=200)

    def errors(integers: np.ndarray) -> np.ndarray:
        off = (integers - zero) * scale.astype(np.float64) - matrix
        return np.einsum("ij,jk,ik->i", off, regular[0], off)

    best = errors(found.astype(np.int64))
    assert (best <= errors(plain.integers.astype(np.int64)) * (1 + 1e-9)).all()
    exact = matrix / scale
    for column, step in itertools.product(range(columns), (-1, 1)):
        other = found.astype(np.int64)
        other[:, column] += step
        allowed = (np.floor(exact) <= other) & (other <= np.ceil(exact)) & (other >= limits[0]) & (other <= limits[1])
        assert (errors(other) >= best * (1 - 1e-9))[allowed[:, column]].all()
    assert (np.abs(found - exact) < 1 + 1e-5).all()


def test_groups_are_rounded_each_on_its_own() -> None:
    matrix = matrices(6, 200, 5, "normal")
    plain = rounding.nearest(matrix, Scheme(3), 50)
    scale, zero = plain.spread()
    seen = np.concatenate([gram(inputs(400, 200, seed)) for seed in range(3)])
    limits = (-3, 3)
    together = (
        rounding.gptq(matrix, scale, zero, seen, limits=limits),
        rounding.search(matrix, plain.integers, scale, zero, seen, limits=limits),
    )
    for group in range(3):
        rows = slice(2 * group, 2 * group + 2)
        part = (matrix[rows], scale[rows], zero[rows], seen[group : group + 1])
        np.testing.assert_array_equal(together[0][rows], rounding.gptq(*part, limits=limits))
        apart = rounding.search(part[0], plain.integers[rows], *part[1:], limits=limits)
        np.testing.assert_array_equal(together[1][rows], apart)


def test_the_error_is_that_of_the_output() -> None:
    off, x = matrices(4, 6, 6, "normal"), inputs(50, 6)
    assert rounding.output_error(off, gram(x)) == pytest.approx(
        float(np.square(x @ off.T, dtype=np.float64).sum()), 1e-4
    )


def test_inputs_that_never_occur_are_rounded_to_the_nearest() -> None:
    matrix = matrices(3, 10, 7, "normal")
    plain = rounding.nearest(matrix, Scheme(4))
    silent = np.zeros((1, 10, 10), np.float32)
    np.testing.assert_array_equal(rounding.gptq(matrix, *plain.spread(), silent, limits=(-7, 7)), plain.integers)
    found = rounding.search(matrix, plain.integers, *plain.spread(), silent, limits=(-7, 7))
    np.testing.assert_array_equal(found, plain.integers)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_what_is_empty_stays_empty(shape: tuple[int, int]) -> None:
    matrix, seen = np.zeros(shape, np.float32), np.zeros((1, shape[1], shape[1]), np.float32)
    plain = rounding.nearest(matrix, Scheme(4), 2)
    assert rounding.gptq(matrix, *plain.spread(), seen, limits=(-7, 7)).shape == shape
    assert rounding.search(matrix, plain.integers, *plain.spread(), seen, limits=(-7, 7)).shape == shape
