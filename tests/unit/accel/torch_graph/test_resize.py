"""Resizing and sampling: ONNX Runtime's results in every form, PyTorch's kernels where they do the same, and gradients."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from accel.errors import TrainingFailed, UnsupportedOperator
from accel.graph.torch_graph.graph import TorchGraph, nothing
from tests.one_node import gradients_agree, model_of, run
from tests.onnxruntime_reference import assert_agrees
from tests.torch_kernels import kernels_of

CHANCE = np.random.default_rng(17)
COORDINATES = [
    "half_pixel",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "half_pixel_symmetric",
    "tf_crop_and_resize",
]
SIZES = [(8, 8), (5, 7), (1, 1), (10, 3), (2, 12)]
SCALES = [(2, 2), (1.5, 1.5), (0.5, 0.5), (0.6, 0.7), (1 / 3, 0.9), (2.3, 1.7)]
ROI = np.array([0, 0, 0.1, 0.2, 1, 1, 0.8, 1.1], np.float32)


def values(*shape: int) -> np.ndarray:
    return CHANCE.standard_normal(shape).astype(np.float32)


def floats(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_nearest(coordinates: str, rounding: str) -> None:
    options = {"mode": "nearest", "coordinate_transformation_mode": coordinates, "nearest_mode": rounding, "opset": 19}
    x = values(1, 2, 4, 6)
    for sizes in SIZES:
        assert_agrees("Resize", [x, ROI, None, np.array([1, 2, *sizes])], **options)
    for scales in SCALES:
        assert_agrees("Resize", [x, ROI, floats(1, 1, *scales)], **options)


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("linear", {}),
        ("linear", {"antialias": 1}),
        ("cubic", {}),
        ("cubic", {"cubic_coeff_a": -0.5}),
        ("cubic", {"exclude_outside": 1}),
        ("cubic", {"antialias": 1}),
        ("cubic", {"antialias": 1, "exclude_outside": 1, "cubic_coeff_a": -0.5}),
    ],
)
@pytest.mark.parametrize("coordinates", COORDINATES)
def test_between_elements(coordinates: str, mode: str, options: dict) -> None:
    options = {"mode": mode, "coordinate_transformation_mode": coordinates, "extrapolation_value": 9.0, **options}
    x = values(1, 2, 4, 6)
    for sizes in SIZES:
        assert_agrees("Resize", [x, ROI, None, np.array([1, 2, *sizes])], opset=19, **options)
    for scales in SCALES:
        assert_agrees("Resize", [x, ROI, floats(1, 1, *scales)], opset=19, **options)


def test_corners_are_aligned_by_the_length_that_results() -> None:
    # as the specification's text has it; 4 * 0.6 is 2 elements, so the second is the last one
    x = np.array([[[[1, 2, 3, 4], [5, 6, 7, 8]]]], np.float32)
    options = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    assert run("Resize", [x, None, floats(1, 1, 0.6, 0.6)], **options).flatten().tolist() == [1, 4]


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("axes", [[2, 3], [3, 2]])
def test_proportions_are_kept(axes: list[int], policy: str) -> None:
    given = [values(1, 2, 5, 6), None, None, np.array([7, 9])]
    assert_agrees("Resize", given, opset=19, mode="linear", axes=axes, keep_aspect_ratio_policy=policy)


def test_axes_from_the_back() -> None:
    x = values(1, 2, 5, 6)
    found = run("Resize", [x, None, None, np.array([12, 10])], axes=[-1, -2], mode="linear")
    expected = run("Resize", [x, None, None, np.array([1, 2, 10, 12])], mode="linear")
    assert torch.equal(found, expected)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", SCALES)
def test_early_forms(scales: tuple[float, float], mode: str) -> None:
    x, factors = values(1, 2, 4, 6), floats(1, 1, *scales)
    assert_agrees("Resize", [x, factors], opset=10, mode=mode)
    assert_agrees("Resize", [x, floats(), factors], opset=11, mode=mode)
    if mode == "nearest":
        options = {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"}
        assert_agrees("Resize", [x, floats(), factors], opset=11, **options)
    if min(scales) >= 1:
        assert_agrees("Upsample", [x, factors], opset=9, mode=mode)
        assert_agrees("Upsample", [x], opset=7, mode=mode, scales=[float(factor) for factor in factors])
        first = "bilinear" if mode == "linear" else mode
        by_name = run("Upsample", [x], opset=6, mode=first, height_scale=float(scales[0]), width_scale=float(scales[1]))
        assert torch.equal(by_name, run("Upsample", [x, factors], opset=9, mode=mode))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(
    ("shape", "scales"),
    [
        ((1, 2, 9), (1, 1, 1.5)),
        ((1, 1, 3, 4, 5), (1, 1, 2, 1.5, 2)),
        ((4, 5), (2, 1.5)),
        ((1, 4, 5, 2), (1, 2, 1.5, 1)),
    ],
)
def test_other_axes(shape: tuple[int, ...], scales: tuple[float, ...], mode: str) -> None:
    assert_agrees("Resize", [values(*shape), floats(), floats(*scales)], opset=13, mode=mode)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_integers(dtype: type) -> None:
    x = np.abs(values(1, 2, 5, 6) * 40).astype(dtype)
    for mode in ("nearest", "linear"):
        assert_agrees("Resize", [x, None, floats(1, 1, 1.7, 0.6)], opset=19, mode=mode)


@pytest.mark.parametrize(
    ("options", "scale", "kernel"),
    [
        (
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
            2,
            "upsample_nearest2d",
        ),
        ({"mode": "nearest", "nearest_mode": "round_prefer_ceil"}, 0.5, "_upsample_nearest_exact2d"),
        ({"mode": "linear"}, 2, "upsample_bilinear2d"),
        ({"mode": "linear", "coordinate_transformation_mode": "align_corners"}, 1.5, "upsample_bilinear2d"),
        ({"mode": "cubic"}, 0.5, "upsample_bicubic2d"),
    ],
)
def test_what_pytorch_has_a_kernel_for_is_one_kernel(options: dict, scale: float, kernel: str) -> None:
    given = [values(1, 2, 4, 6), None, floats(1, 1, scale, scale)]
    assert kernels_of(model_of("Resize", given, fixed=(2,), **options), given)[-1] == f"aten::{kernel}"


def test_what_was_run_for_inference_first_can_be_trained() -> None:
    given = [values(1, 1, 4, 4), None, floats(1, 1, 1.3, 1.3)]  # 5.2 elements: not what PyTorch's kernel does
    graph = TorchGraph(ir.from_proto(model_of("Resize", given, mode="linear")), nothing)
    feeds = {"x0": torch.from_numpy(given[0]), "x2": torch.from_numpy(given[2])}
    with torch.inference_mode():
        first = graph(feeds)["y0"]
    x = feeds["x0"].clone().requires_grad_()
    again = graph(feeds | {"x0": x})["y0"]
    again.sum().backward()
    assert torch.equal(first, again)
    assert float(x.grad.sum()) == pytest.approx(25)  # the weights of each of the 5 * 5 sum to one


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "nearest", "nearest_mode": "ceil"},
        {"mode": "linear"},
        {"mode": "linear", "antialias": 1},
        {"mode": "cubic", "exclude_outside": 1},
        {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"},
    ],
)
def test_gradients(options: dict) -> None:
    for scales in ((1.3, 0.6), (2, 2)):
        assert gradients_agree("Resize", [CHANCE.standard_normal((1, 1, 3, 4)), ROI, floats(1, 1, *scales)], **options)


def test_what_is_unknown() -> None:
    x = values(1, 1, 2, 2)
    for attribute in ("mode", "coordinate_transformation_mode", "nearest_mode", "keep_aspect_ratio_policy"):
        with pytest.raises(UnsupportedOperator, match=rf"'node' \(Resize\).*{attribute} 'odd'"):
            run("Resize", [x, None, floats(1, 1, 2, 2)], **{attribute: "odd"})
    with pytest.raises(TrainingFailed, match="neither sizes nor scales"):
        run("Resize", [x], opset=19)


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_sampled_by_a_grid(mode: str, padding: str, align: int) -> None:
    options = {"padding_mode": padding, "align_corners": align}
    grid = (CHANCE.random((2, 4, 3, 2)) * 3 - 1.5).astype(np.float32)
    x = values(2, 3, 5, 6)
    assert_agrees("GridSample", [x, grid], opset=20, mode=mode, **options)
    early = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    assert_agrees("GridSample", [x, grid], opset=16, mode=early, **options)
    if mode != "cubic":
        volume = (CHANCE.random((2, 4, 3, 2, 3)) * 3 - 1.5).astype(np.float32)
        assert_agrees("GridSample", [values(2, 3, 5, 6, 7), volume], opset=20, mode=mode, **options)


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_a_line_is_an_image_of_equal_rows(mode: str) -> None:
    x, along = values(2, 3, 7), (CHANCE.random((2, 5, 1)) * 2 - 1).astype(np.float32)
    image = np.repeat(x[:, :, None], 9, 2)
    grid = np.concatenate([along, np.zeros_like(along)], 2)[:, None]
    expected = run("GridSample", [image, grid], mode=mode, padding_mode="border")[:, :, 0]
    found = run("GridSample", [x, along], mode=mode, padding_mode="border")
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [np.float16, np.int32])
def test_sampled_in_other_types(dtype: type) -> None:
    x, grid = (values(1, 2, 9, 90) * 9).astype(dtype), (CHANCE.random((1, 3, 4, 2)) * 2 - 1).astype(np.float32)
    found = run("GridSample", [x, grid])
    expected = run("GridSample", [x.astype(np.float32), grid])
    assert torch.equal(found, expected.to(found.dtype))


def test_a_volume_by_cubes_is_refused() -> None:
    with pytest.raises(TrainingFailed, match=r"'node' \(GridSample\).*5 axes"):
        run("GridSample", [values(1, 1, 2, 2, 2), values(1, 1, 1, 1, 3)], mode="cubic")


@pytest.mark.parametrize("align", [0, 1])
def test_grids_of_affine_maps(align: int) -> None:
    assert_agrees("AffineGrid", [values(2, 2, 3), np.array([2, 3, 4, 5])], opset=20, align_corners=align)
    assert_agrees("AffineGrid", [values(2, 3, 4), np.array([2, 3, 4, 5, 6])], opset=20, align_corners=align)


def test_gradients_of_sampling() -> None:
    grid = CHANCE.random((1, 2, 2, 2)) * 1.2 - 0.6
    assert gradients_agree("GridSample", [CHANCE.standard_normal((1, 1, 3, 4)), grid], mode="cubic")
    assert gradients_agree("AffineGrid", [CHANCE.standard_normal((1, 2, 3)), np.array([1, 1, 2, 3])])
