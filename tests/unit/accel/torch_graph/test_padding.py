"""Padding and cutting: ONNX Runtime's results in every form, and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from accel.errors import UnsupportedOperator
from tests.one_node import gradients_agree, model_of, run
from tests.onnxruntime_reference import assert_agrees
from tests.torch_kernels import kernels_of

CHANCE = np.random.default_rng(13)
MODES = ["constant", "reflect", "edge", "wrap"]
PADS = [
    [0, 0, 1, 2, 0, 0, 2, 1],
    [1, 0, 1, 2, 0, 2, 2, 1],  # batch and channels, too
    [0, 0, -1, 2, 0, 0, 2, -1],
    [0, 0, -1, -1, 0, 0, 0, 0],
]


def values(*shape: int) -> np.ndarray:
    return CHANCE.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("pads", PADS)
@pytest.mark.parametrize("mode", MODES)
def test_each_mode(mode: str, pads: list[int]) -> None:
    given = [values(2, 3, 5, 6), np.array(pads)]
    if mode == "constant":
        given.append(np.array(1.5, np.float32))
    assert_agrees("Pad", given, opset=19, mode=mode)


@pytest.mark.parametrize("mode", MODES[:3])
def test_amounts_as_an_attribute(mode: str) -> None:
    options = {"value": -2.5} if mode == "constant" else {}
    for pads in PADS:
        assert_agrees("Pad", [values(2, 3, 5, 6)], opset=9, mode=mode, pads=pads, **options)


def test_amounts_by_their_first_name() -> None:
    x = values(2, 3)
    found = run("Pad", [x], opset=1, paddings=[0, 1, 1, 0], value=4.0)
    np.testing.assert_array_equal(found, np.pad(x, ((0, 1), (1, 0)), constant_values=4))


@pytest.mark.parametrize("mode", MODES)
def test_some_axes(mode: str) -> None:
    given = [values(2, 3, 5, 6), np.array([1, 2, 2, 1]), None, np.array([-1, 2])]
    assert_agrees("Pad", given, opset=19, mode=mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.int8, np.uint8, np.bool_, np.float64])
def test_each_type(dtype: type, mode: str) -> None:
    x = (values(1, 1, 4, 5) * 9).astype(dtype)
    assert_agrees("Pad", [x, np.array([0, 0, 1, 2, 0, 0, 2, 1])], opset=19, mode=mode)


def test_reflection_over_more_than_the_input() -> None:
    x = values(1, 1, 3)
    found = run("Pad", [x, np.array([0, 0, 5, 0, 0, 7])], mode="reflect")
    np.testing.assert_array_equal(found, np.pad(x, ((0, 0), (0, 0), (5, 7)), mode="reflect"))


@pytest.mark.parametrize("shape", [[2, 3], [7, 9], [4, 8], [5, 6]])
def test_the_middle(shape: list[int]) -> None:
    assert_agrees("CenterCropPad", [values(1, 5, 6), np.array(shape)], opset=18, axes=[1, -1])
    assert_agrees("CenterCropPad", [values(5, 6), np.array(shape)], opset=18)


@pytest.mark.parametrize("pads", [[0, 0, 1, 0, 0, 1], [1, 0, -1, 0, 0, 2]])
@pytest.mark.parametrize("mode", MODES)
def test_gradients(mode: str, pads: list[int]) -> None:
    x = CHANCE.standard_normal((1, 2, 3))
    value = [np.array(0.5)] if mode == "constant" else []
    assert gradients_agree("Pad", [x, np.array(pads), *value], mode=mode)


def test_gradients_of_the_middle() -> None:
    assert gradients_agree("CenterCropPad", [CHANCE.standard_normal((3, 4)), np.array([5, 2])])


def test_what_pytorch_has_a_kernel_for_is_one_kernel() -> None:
    given = [values(1, 2, 4, 5), np.array([0, 0, 1, 2, 0, 0, 2, 1])]
    assert kernels_of(model_of("Pad", given, mode="reflect"), given)[-1] == "aten::pad"
    assert kernels_of(model_of("Pad", given, mode="edge"), given)[-1] == "aten::pad"


def test_a_mode_that_is_unknown() -> None:
    with pytest.raises(UnsupportedOperator, match=r"'node' \(Pad\).*mode 'mirror'"):
        run("Pad", [values(3), np.array([1, 1])], mode="mirror")


def test_no_padding_gives_the_same() -> None:
    x = values(2, 3)
    for mode in MODES:
        assert torch.equal(run("Pad", [x, np.array([0, 0, 0, 0])], mode=mode), torch.from_numpy(x))
