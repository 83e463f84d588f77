"""Convolutions: ONNX Runtime's results in every form, gradients, and one kernel on the plain way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from accel.errors import TrainingFailed, UnsupportedOperator
from tests.one_node import computed, gradients_agree, model_of, run
from tests.onnxruntime_reference import assert_agrees
from tests.torch_kernels import kernels_of

CHANCE = np.random.default_rng(7)


def values(*shape: int) -> np.ndarray:
    return CHANCE.standard_normal(shape).astype(np.float32)


def wide(*shape: int) -> np.ndarray:
    return CHANCE.standard_normal(shape)


@pytest.mark.parametrize("automatic", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 1), (3, 2), (4, 3), (2, 3)])
@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_automatic_padding(operator: str, kernel: int, stride: int, automatic: str) -> None:
    given = [values(1, 2, 7, 8), values(2, 2, kernel, kernel), values(2)]
    assert_agrees(operator, given, opset=17, strides=[stride, stride], auto_pad=automatic)


def test_automatic_padding_of_a_dilated_kernel() -> None:
    # 3 * 2 - 2 = 5 elements wide: two of padding on each side, so that the output is as large as the input
    kernel = np.zeros((1, 1, 3), np.float32)
    kernel[0, 0] = [1, 10, 100]
    y = run("Conv", [np.arange(1, 6, dtype=np.float32).reshape(1, 1, 5), kernel], auto_pad="SAME_UPPER", dilations=[2])
    assert y.flatten().tolist() == [310, 420, 531, 42, 53]


@pytest.mark.parametrize("pads", [[1, 1, 1, 1], [0, 1, 2, 1], [2, 0, 0, 1]])
@pytest.mark.parametrize("group", [1, 2])
def test_explicit_padding(pads: list[int], group: int) -> None:
    assert_agrees(
        "Conv", [values(2, 4, 6, 7), values(6, 4 // group, 3, 2), values(6)], opset=17, pads=pads, group=group
    )
    given = [values(2, 4, 6, 7), values(4, 3, 3, 2), values(3 * group)]
    for beyond in ([0, 0], [1, 0], [1, 1]):
        assert_agrees("ConvTranspose", given, opset=17, pads=pads, group=group, strides=[2, 2], output_padding=beyond)


@pytest.mark.parametrize("sizes", [(9,), (5, 6), (3, 4, 5)])
@pytest.mark.parametrize("opset", [7, 11, 22])
def test_one_two_and_three_axes(sizes: tuple[int, ...], opset: int) -> None:
    rank = len(sizes)
    assert_agrees("Conv", [values(2, 4, *sizes), values(6, 4, *[2] * rank)], opset=opset, dilations=[2] * rank)
    assert_agrees("ConvTranspose", [values(2, 4, *sizes), values(4, 3, *[2] * rank)], opset=opset, dilations=[2] * rank)


@pytest.mark.parametrize("automatic", ["NOTSET", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("shape", [[10, 8], [11, 12], [9, 13]])
def test_transposed_to_a_shape(shape: list[int], automatic: str) -> None:
    given = [values(1, 2, 5, 6), values(2, 3, 3, 3), values(3)]
    assert_agrees("ConvTranspose", given, opset=17, strides=[2, 2], output_shape=shape, auto_pad=automatic)


@pytest.mark.parametrize(
    ("activation", "parameters"),
    [
        ("Relu", []),
        ("Tanh", []),
        ("Sigmoid", []),
        ("LeakyRelu", [0.2]),
        ("Clip", [-0.5, 0.5]),
        ("HardSigmoid", [0.3, 0.4]),
    ],
)
@pytest.mark.parametrize("added", [False, True])
def test_fused(activation: str, parameters: list[float], added: bool) -> None:
    given = [values(1, 2, 5, 6), values(3, 2, 3, 3), values(3), *([values(1, 3, 5, 6)] if added else [])]
    options = {"activation_params": parameters} if parameters else {}
    assert_agrees(
        "FusedConv", given, opset=17, domain="com.microsoft", pads=[1, 1, 1, 1], activation=activation, **options
    )


def test_fused_with_an_activation_that_is_unknown() -> None:
    with pytest.raises(UnsupportedOperator, match=r"'node' \(com.microsoft.FusedConv\).*'Wave'"):
        run("FusedConv", [values(1, 1, 3), values(1, 1, 2)], domain="com.microsoft", activation="Wave")


def test_causal_in_steps_is_causal_at_once() -> None:
    x, weight, bias = values(2, 3, 9), values(3, 1, 4), values(3)
    options = {"opset": 27, "outputs": 2, "activation": "silu"}
    whole, _ = computed(model_of("CausalConvWithState", [x, weight, bias], **options), [x, weight, bias])
    state, parts = None, []
    for piece in np.split(x, [2, 3, 7], 2):  # shorter than the kernel, too
        given = [piece, weight, bias, state]
        part, carried = computed(model_of("CausalConvWithState", given, **options), given)
        state = carried.numpy()
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 2), whole)


def test_deformable_without_offsets_is_a_convolution() -> None:
    x, weight, bias = values(2, 4, 6, 7), values(6, 2, 3, 2), values(6)
    options = {"opset": 19, "group": 2, "strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2]}
    plain = run("Conv", [x, weight, bias], **options)
    offsets = np.zeros((2, 2 * 2 * 6, *plain.shape[2:]), np.float32)
    found = run("DeformConv", [x, weight, offsets, bias], offset_group=2, **options)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)


def test_deformable_in_space_moves_by_whole_elements() -> None:
    x, weight = values(1, 1, 4, 5, 6), values(1, 1, 1, 1, 1)
    offsets = np.zeros((1, 3, 4, 5, 6), np.float32)
    offsets[0, 0], offsets[0, 2] = 1, -2  # one further down the first axis, two back along the last
    expected = torch.zeros(1, 1, 4, 5, 6)
    expected[0, 0, :3, :, 2:] = torch.from_numpy(x)[0, 0, 1:, :, :-2] * float(weight.item())
    torch.testing.assert_close(run("DeformConv", [x, weight, offsets], opset=22), expected, rtol=1e-4, atol=1e-5)


def test_deformable() -> None:
    given = [values(2, 4, 7, 8), values(6, 2, 3, 3), values(2, 36, 4, 4), values(6), values(2, 18, 4, 4)]
    options = {"offset_group": 2, "group": 2, "pads": [1, 0, 1, 1], "strides": [2, 2], "kernel_shape": [3, 3]}
    assert_agrees("DeformConv", given, opset=19, **options)


def test_deformable_of_16_bits() -> None:
    given = [values(1, 2, 3, 90), values(1, 2, 1, 1), values(1, 2, 3, 90)]
    half = [value.astype(np.float16) for value in given]
    found = run("DeformConv", half, opset=19)
    expected = run("DeformConv", [value.astype(np.float32) for value in half], opset=19)
    torch.testing.assert_close(found.float(), expected, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize(
    ("operator", "shapes", "options"),
    [
        ("Conv", [(1, 2, 4, 5), (2, 1, 2, 3), (2,)], {"auto_pad": "SAME_LOWER", "group": 2, "strides": [2, 1]}),
        ("Conv", [(1, 2, 5), (2, 2, 2)], {"pads": [2, 1]}),
        ("ConvTranspose", [(1, 2, 3, 2), (2, 2, 2, 3), (2,)], {"strides": [2, 1], "pads": [1, 0, 0, 1]}),
        ("ConvTranspose", [(1, 2, 3), (2, 2, 2)], {"output_shape": [7], "strides": [2]}),
        ("CausalConvWithState", [(1, 2, 3), (2, 1, 3), (2,), (1, 2, 2)], {"opset": 27, "activation": "swish"}),
        ("DeformConv", [(1, 2, 4, 4), (2, 2, 2, 2), (1, 8, 3, 3), (2,), (1, 4, 3, 3)], {}),
    ],
)
def test_gradients(operator: str, shapes: list[tuple[int, ...]], options: dict) -> None:
    assert gradients_agree(operator, [wide(*shape) for shape in shapes], **options)


@pytest.mark.parametrize("options", [{}, {"pads": [1, 1, 1, 1]}, {"auto_pad": "VALID", "group": 2}])
def test_a_plain_one_is_one_kernel(options: dict) -> None:
    given = [values(1, 2, 5, 5), values(2, 2 // options.get("group", 1), 3, 3), values(2)]
    assert kernels_of(model_of("Conv", given, **options), given) == ["aten::convolution"]


def test_padding_that_is_unknown() -> None:
    with pytest.raises(UnsupportedOperator, match=r"'node' \(Conv\).*auto_pad 'SOME'"):
        run("Conv", [values(1, 1, 3), values(1, 1, 2)], auto_pad="SOME")


def test_four_axes_are_refused() -> None:
    with pytest.raises(TrainingFailed, match=r"'node' \(Conv\)"):
        run("Conv", [values(1, 1, 3, 3, 3, 3), values(1, 1, 2, 2, 2, 2)])
