"""Reductions: axes in each form, integers, nothing to reduce, gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests import models
from tests.one_node import computed, gradients_agree, graph_of, model_of, run

X = np.random.default_rng(0).uniform(0.2, 3, (2, 3, 4))
REDUCTIONS: dict[str, Callable[..., np.ndarray]] = {
    "ReduceL1": lambda x, **along: np.abs(x).sum(**along),
    "ReduceL2": lambda x, **along: np.sqrt((x * x).sum(**along)),
    "ReduceLogSum": lambda x, **along: np.log(x.sum(**along)),
    "ReduceLogSumExp": lambda x, **along: np.log(np.exp(x).sum(**along)),
    "ReduceMax": np.max,
    "ReduceMean": np.mean,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceSum": np.sum,
    "ReduceSumSquare": lambda x, **along: (x * x).sum(**along),
}
AXES: list[tuple[int, ...] | None] = [None, (1,), (0, 2), (-1,), (2, 0, 1)]


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_axes_as_an_attribute_and_as_an_input(name: str, axes: tuple[int, ...] | None, keep: int) -> None:
    expected = REDUCTIONS[name](X, axis=axes, keepdims=bool(keep))
    attributes = {} if axes is None else {"axes": list(axes)}
    older = run(name, [X], opset=11, keepdims=keep, **attributes)
    given = [X] if axes is None else [X, np.array(axes)]
    newer = run(name, given, opset=20, keepdims=keep)
    fixed = run(name, given, opset=20, keepdims=keep, fixed=range(1, len(given)))
    for found in (older, newer, fixed):
        assert tuple(found.shape) == np.shape(expected)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_along_no_axes_each_element_is_reduced_for_itself(name: str) -> None:
    alone = REDUCTIONS[name](X[..., None], axis=-1)
    for axes in ([], [np.zeros(0, np.int64)]):
        found = run(name, [X, *axes], opset=20, noop_with_empty_axes=1)
        np.testing.assert_allclose(found.numpy(), alone, rtol=1e-12)
    everything = run(name, [X, np.zeros(0, np.int64)], opset=20, keepdims=0)
    np.testing.assert_allclose(everything.numpy(), REDUCTIONS[name](X), rtol=1e-12)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_number_is_reduced(name: str) -> None:
    found = run(name, [np.array(2.0)], opset=20)
    assert found.shape == ()
    np.testing.assert_allclose(found.numpy(), REDUCTIONS[name](np.array([2.0])))


@pytest.mark.parametrize("name", REDUCTIONS)
def test_gradients(name: str) -> None:
    assert gradients_agree(name, [X, np.array([0, 2])], opset=20)
    assert gradients_agree(name, [X[0]], opset=20, noop_with_empty_axes=1)


def test_the_gradient_of_a_norm_of_zeros_is_zero() -> None:
    graph, x = (
        graph_of("ReduceL2", [np.zeros((2, 3))], opset=20),
        torch.zeros(2, 3, dtype=torch.float64, requires_grad=True),
    )
    graph({"x0": x})["y0"].sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum().item() == 0


@pytest.mark.parametrize(
    "name", ["ReduceL1", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare"]
)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integers_are_reduced_as_onnx_runtime_reduces_them(name: str, dtype: type[np.integer]) -> None:
    x = np.random.default_rng(1).integers(-9, 9, (2, 3, 4)).astype(dtype)
    x[x == 0] = 1
    model = model_of(name, [x], opset=11, axes=[1])
    found = computed(model, [x])[0].numpy()
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, models.run(model, {"x0": x})["y0"])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.uint64, np.int8])
def test_integers_that_pytorch_does_not_order(dtype: type[np.integer]) -> None:
    limits = np.iinfo(dtype)
    x = np.random.default_rng(2).integers(limits.min, limits.max, (5, 7), dtype=dtype, endpoint=True)
    x[:, 3] = x[:, 5] = limits.max
    x[:, 2] = x[:, 4] = limits.min
    np.testing.assert_array_equal(run("ReduceMax", [x, np.array([1])], keepdims=0).numpy(), x.max(1))
    np.testing.assert_array_equal(run("ReduceMin", [x, np.array([0])], keepdims=0).numpy(), x.min(0))
    assert run("ArgMax", [x], axis=1, keepdims=0).tolist() == [3] * 5
    assert run("ArgMax", [x], axis=-1, keepdims=0, select_last_index=1).tolist() == [5] * 5
    assert run("ArgMin", [x], axis=1).tolist() == [[2]] * 5
    assert run("ArgMin", [x], axis=1, select_last_index=1).tolist() == [[4]] * 5


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_unsigned_sums_wrap_around(dtype: type[np.integer]) -> None:
    x = np.random.default_rng(3).integers(0, np.iinfo(dtype).max, (4, 6), dtype=dtype)
    np.testing.assert_array_equal(run("ReduceSum", [x, np.array([1])], keepdims=0).numpy(), x.sum(1, dtype=dtype))
    np.testing.assert_array_equal(run("ReduceProd", [x, np.array([1])], keepdims=0).numpy(), x.prod(1, dtype=dtype))
    np.testing.assert_array_equal(run("ReduceMean", [x // 64]).numpy(), [[(x // 64).astype(object).sum() // 24]])
    np.testing.assert_array_equal(run("CumSum", [x, np.array(1)]).numpy(), x.cumsum(1, dtype=dtype))


@pytest.mark.parametrize(
    ("dtype", "least", "greatest"),
    [
        (np.float32, -np.inf, np.inf),
        (np.int8, -128, 127),
        (np.uint64, 0, 2**64 - 1),
        (np.bool_, False, True),
    ],
)
def test_the_extremes_of_nothing(dtype: type[np.generic], least: Any, greatest: Any) -> None:
    x = np.zeros((2, 0, 3), dtype)
    assert run("ReduceMax", [x, np.array([1])], keepdims=0).tolist() == [[least] * 3] * 2
    assert run("ReduceMin", [x, np.array([1])], keepdims=0).tolist() == [[greatest] * 3] * 2
    assert run("ReduceMax", [x, np.array([2])]).shape == (2, 0, 1)


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_cumulative_sums_and_products(axis: int, reverse: int, exclusive: int) -> None:
    given = [X.astype(np.float32), np.array(axis, np.int64)]
    attributes = {"reverse": reverse, "exclusive": exclusive}
    model = model_of("CumSum", given, opset=14, **attributes)
    expected = models.run(model, {"x0": given[0], "x1": given[1]})["y0"]
    np.testing.assert_allclose(computed(model, given)[0].numpy(), expected, rtol=1e-5)
    turned = np.flip(X, axis) if reverse else X
    products = np.cumprod(turned, axis) / (turned if exclusive else 1)
    found = run("CumProd", [X, given[1]], opset=26, **attributes).numpy()
    np.testing.assert_allclose(found, np.flip(products, axis) if reverse else products, rtol=1e-12)
    assert gradients_agree("CumSum", [X[:, :, 0], np.array(axis)], **attributes)
    assert gradients_agree("CumProd", [X[:, :, 0], np.array(axis)], opset=26, **attributes)
