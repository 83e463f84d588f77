"""Pools over windows, channels and regions: ONNX Runtime's results in every form, and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

from accel.errors import UnsupportedOperator
from accel.graph.torch_graph.graph import TorchGraph, nothing
from tests.one_node import computed, gradients_agree, model_of, run
from tests.onnxruntime_reference import assert_agrees
from tests.torch_kernels import kernels_of

CHANCE = np.random.default_rng(11)
POOLS = ["MaxPool", "AveragePool", "LpPool"]
OPSETS = {"MaxPool": 12, "AveragePool": 19, "LpPool": 18}
REGIONS = [[1, 1, 6, 5], [0, 0, 9, 9], [-3, -2, 2, 3], [5, 5, 20, 14], [3, 3, 2, 1], [30, 30, 40, 40]]


def values(*shape: int) -> np.ndarray:
    return CHANCE.standard_normal(shape).astype(np.float32)


def distinct(*shape: int) -> np.ndarray:
    """No two values are so near that a step of finite differences changes which is the greater."""
    return CHANCE.permutation(np.prod(shape)).reshape(shape) / 10 - 1.05


@pytest.mark.parametrize("ceil", [0, 1])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 2, 2], [2, 2, 2, 2]])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (3, 1), (2, 2)])
@pytest.mark.parametrize("operator", POOLS)
def test_explicit_padding(operator: str, stride: int, dilation: int, pads: list[int], ceil: int) -> None:
    options = {"kernel_shape": [3, 3], "strides": [stride, stride], "dilations": [dilation, dilation]}
    for include in (0, 1) if operator == "AveragePool" else (None,):
        chosen = options if include is None else options | {"count_include_pad": include}
        assert_agrees(operator, [values(1, 2, 7, 8)], opset=OPSETS[operator], pads=pads, ceil_mode=ceil, **chosen)


@pytest.mark.parametrize("automatic", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(("kernel", "stride"), [(2, 1), (3, 2), (4, 3)])
@pytest.mark.parametrize("operator", POOLS)
def test_automatic_padding(operator: str, kernel: int, stride: int, automatic: str) -> None:
    options = {"kernel_shape": [kernel, kernel], "strides": [stride, stride], "auto_pad": automatic}
    assert_agrees(operator, [values(1, 2, 7, 8)], opset=OPSETS[operator], **options)


@pytest.mark.parametrize("sizes", [(9,), (6, 7), (4, 5, 6)])
@pytest.mark.parametrize("opset", [8, 11, 22])
@pytest.mark.parametrize("operator", POOLS)
def test_one_two_and_three_axes(operator: str, opset: int, sizes: tuple[int, ...]) -> None:
    rank = len(sizes)
    options = {"kernel_shape": [2] * rank, "strides": [2] * rank, "pads": [1] * rank + [0] * rank}
    assert_agrees(operator, [values(2, 3, *sizes)], opset=opset, **options)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 1]])
def test_places_of_the_greatest(pads: list[int], order: int) -> None:
    options = {"kernel_shape": [2, 3], "strides": [2, 1], "pads": pads, "storage_order": order}
    assert_agrees("MaxPool", [values(2, 3, 6, 7)], opset=12, outputs=2, **options)
    assert_agrees("MaxPool", [values(2, 3, 6)], opset=12, outputs=2, kernel_shape=[2], storage_order=order)
    assert_agrees("MaxPool", [values(1, 2, 4, 5, 6)], opset=12, outputs=2, kernel_shape=[2, 3, 2], storage_order=order)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_greatest_of_integers(rank: int, dtype: Any) -> None:
    x = (values(2, 2, *[5] * rank) * 40).astype(dtype)
    assert_agrees("MaxPool", [x], opset=12, kernel_shape=[2] * rank)
    assert_agrees(
        "MaxPool", [x - np.int8(100).astype(dtype)], opset=12, kernel_shape=[2] * rank, pads=[1, *[0] * (2 * rank - 1)]
    )


def test_what_was_pooled_goes_back_to_where_it_was() -> None:
    x = np.abs(values(2, 3, 5, 7)) + 1
    options = {"kernel_shape": [2, 2], "strides": [2, 2]}
    pooled, places = computed(model_of("MaxPool", [x], outputs=2, **options), [x])
    given = [pooled.numpy(), places.numpy(), np.array(x.shape)]
    back = run("MaxUnpool", given, **options)
    there = back != 0
    assert int(there.sum()) == pooled.numel()
    assert torch.equal(back[there], torch.from_numpy(x)[there])
    assert_agrees("MaxUnpool", given, opset=11, **options)  # 5 rows do not follow from 2, only from the third input
    assert_agrees(
        "MaxUnpool", [values(1, 1, 2, 2), np.array([[[[0, 2], [3, 1]]]])], opset=11, pads=[1, 0, 0, 1], **options
    )


@pytest.mark.parametrize("operator", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
def test_global(operator: str) -> None:
    for shape in ((2, 3, 4), (2, 3, 4, 5), (2, 3, 2, 3, 4)):
        assert_agrees(operator, [values(*shape)], opset=17)
    bare = np.abs(values(2, 3))
    assert torch.equal(run(operator, [bare]), torch.from_numpy(bare))  # one value of each channel


def test_the_order_of_early_norms_is_any_real_number() -> None:
    x = values(1, 1, 4)
    expected = (np.abs(x).reshape(1, 1, 2, 2) ** 1.5).sum(3) ** (1 / 1.5)
    found = run("LpPool", [x], opset=1, p=1.5, kernel_shape=[2], strides=[2])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    everything = run("GlobalLpPool", [x], opset=1, p=1.5)
    np.testing.assert_allclose(everything.item(), (np.abs(x) ** 1.5).sum() ** (1 / 1.5), rtol=1e-5)


@pytest.mark.parametrize("bins", [[1, 1], [2, 3], [4, 4]])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_greatest_of_regions(scale: float, bins: list[int]) -> None:
    regions = np.array([[place % 2, *edges] for place, edges in enumerate(REGIONS)], np.float32)
    assert_agrees("MaxRoiPool", [values(2, 3, 10, 12), regions], opset=17, pooled_shape=bins, spatial_scale=scale)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize(
    ("opset", "options"),
    [
        (10, {}),
        (16, {}),
        (16, {"coordinate_transformation_mode": "output_half_pixel"}),
        (16, {"coordinate_transformation_mode": "half_pixel"}),
    ],
)
def test_regions_between_elements(opset: int, options: dict, ratio: int, mode: str) -> None:
    regions = np.array([*REGIONS, [2.5, 2.5, 2.5, 2.5], [4.2, 1.1, 7.9, 8.8]], np.float32)
    given = [values(2, 3, 10, 12), regions, np.arange(len(regions)) % 2]
    sizes = {"output_height": 3, "output_width": 2, "sampling_ratio": ratio, "spatial_scale": 0.75}
    assert_agrees("RoiAlign", given, opset=opset, mode=mode, **sizes, **options)


def test_no_regions_give_no_rows() -> None:
    x = values(1, 3, 4, 4)
    align = run("RoiAlign", [x, np.zeros((0, 4), np.float32), np.zeros(0, np.int64)], output_height=2, output_width=2)
    greatest = run("MaxRoiPool", [x, np.zeros((0, 5), np.float32)], pooled_shape=[2, 2])
    assert align.shape == greatest.shape == (0, 3, 2, 2)


@pytest.mark.parametrize(
    ("operator", "options"),
    [
        ("MaxPool", {"kernel_shape": [2, 3], "pads": [0, 1, 1, 0]}),
        ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 1], "auto_pad": "SAME_LOWER"}),
        ("AveragePool", {"kernel_shape": [2, 3], "pads": [0, 1, 1, 0], "count_include_pad": 1}),
        ("AveragePool", {"kernel_shape": [2, 2], "dilations": [2, 2], "ceil_mode": 1, "strides": [2, 2]}),
        ("LpPool", {"kernel_shape": [2, 2], "p": 3}),
        ("GlobalAveragePool", {}),
        ("GlobalMaxPool", {}),
        ("GlobalLpPool", {}),
    ],
)
def test_gradients(operator: str, options: dict) -> None:
    assert gradients_agree(operator, [distinct(1, 2, 4, 5)], **options)


def test_gradients_of_what_is_put_back_and_of_regions() -> None:
    assert gradients_agree("MaxUnpool", [distinct(1, 1, 2), np.array([[[0, 3]]])], kernel_shape=[2], strides=[2])
    x, images = distinct(2, 2, 5, 6), np.array([1, 0])
    inner = np.array([[0.3, 0.4, 3.2, 3.9], [1.2, 0.7, 2.9, 4.1]])
    sizes = {"output_height": 2, "output_width": 2, "sampling_ratio": 2}
    assert gradients_agree("RoiAlign", [x, inner, images], **sizes)  # the regions have gradients, too
    assert gradients_agree("MaxRoiPool", [x, np.array([[0, 0, 0, 3, 3]], np.float32)], pooled_shape=[2, 2])


def test_the_gradient_of_the_norm_of_zeros_is_zero() -> None:
    for operator, options in (("LpPool", {"kernel_shape": [2]}), ("GlobalLpPool", {})):
        graph = TorchGraph(ir.from_proto(model_of(operator, [values(1, 1, 4)], **options)), nothing)
        x = torch.zeros(1, 1, 4, requires_grad=True)
        graph({"x0": x})["y0"].sum().backward()
        assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize(("operator", "kernel"), [("MaxPool", "aten::max_pool2d"), ("AveragePool", "aten::avg_pool2d")])
def test_a_plain_one_is_one_kernel(operator: str, kernel: str) -> None:
    x = values(1, 2, 6, 6)
    options = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}
    assert kernels_of(model_of(operator, [x], **options), [x]) == [kernel]


def test_a_kernel_of_four_axes_is_refused() -> None:
    with pytest.raises(UnsupportedOperator, match=r"'node' \(MaxPool\).*4 axes"):
        run("MaxPool", [values(1, 1, 2, 2, 2, 2)], kernel_shape=[2] * 4)
