"""Ranges measured on samples: the same as computed at once, in memory that does not grow, refused where they mean nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from accel.errors import BadDataset
from accel.numerics.calibration import Calibrated, Statistics, TensorStatistics, calibrate
from accel.numerics.histogram import Histogram
from accel.numerics.ranges import Method
from accel.numerics.scales import ACTIVATIONS
from tests import models

VALUES = ["image", "r", "hr", "scores"]
Batch = dict[str, np.ndarray]


def images(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, 1, 8, 8)).astype(np.float32)


def batches(array: np.ndarray, size: int) -> Iterator[Batch]:
    for start in range(0, len(array), size):
        yield {"image": array[start : start + size]}


def calibrated(
    array: np.ndarray, folder: Path, *, size: int = 4, method: Method = "minmax", tolerance: float = 0.0
) -> Calibrated:
    return calibrate(
        ir.from_proto(models.convnet()),
        VALUES,
        batches(array, size),
        method=method,
        scheme=ACTIVATIONS,
        workspace=folder,
        tolerance=tolerance,
    )


def truth(array: np.ndarray) -> dict[str, np.ndarray]:
    proto = onnx.shape_inference.infer_shapes(models.convnet())
    proto.graph.output.extend(value for value in proto.graph.value_info if value.name in VALUES)
    return models.run(proto, {"image": array}) | {"image": array}


def assert_same(left: TensorStatistics, right: TensorStatistics) -> None:
    ours, theirs = left.histogram, right.histogram
    # Batches of another size are computed in another order: values next to a bin's edge may change the bin.
    assert (ours.bound, ours.total) == (theirs.bound, theirs.total)
    assert abs(ours.zeros - theirs.zeros) <= 0.01 * ours.total
    assert ours.low == pytest.approx(theirs.low, rel=1e-5)
    assert ours.high == pytest.approx(theirs.high, rel=1e-5)
    assert np.abs(ours.counts - theirs.counts).sum() <= 0.01 * ours.total + 4


@pytest.mark.parametrize("size", [1, 5, 40])
def test_ranges_are_those_of_all_values_at_once(size: int, tmp_path: Path) -> None:
    array = images(40)
    found = calibrated(array, tmp_path, size=size)
    for name, values in truth(array).items():
        low, high = found.ranges[name]
        assert low == pytest.approx(min(float(values.min()), 0), rel=1e-4)
        assert high == pytest.approx(max(float(values.max()), 0), rel=1e-4)
    assert found.statistics.samples == 40
    assert found.curve == ()
    assert not found.settled
    assert not list(tmp_path.iterdir())


def test_small_values_are_counted_whole(tmp_path: Path) -> None:
    array = images(12)
    found = calibrated(array, tmp_path)
    for name, values in truth(array).items():
        direct = TensorStatistics()
        direct.add(float(values.min()), float(values.max()), values)
        assert_same(found.statistics.tensors[name], direct)


def test_percentile_is_numpy_s(tmp_path: Path) -> None:
    array = images(64)
    found = calibrate(
        ir.from_proto(models.convnet()),
        VALUES,
        batches(array, 8),
        method="percentile",
        scheme=ACTIVATIONS,
        workspace=tmp_path,
        percentile=98.0,
    )
    for name, values in truth(array).items():
        histogram = found.statistics.tensors[name].histogram
        width = 2 * histogram.bound / len(histogram.counts)
        for side, percent, bound in ((0, 1, np.minimum), (1, 99, np.maximum)):
            # NumPy interpolates between neighbours; either of them, within a bin, is the percentile.
            neighbours = [float(np.percentile(values, percent, method=way)) for way in ("lower", "higher")]
            below, above = bound(neighbours, 0)
            assert below - width <= found.ranges[name][side] <= above + width


def test_moving_average_smooths_the_extremes_of_batches(tmp_path: Path) -> None:
    array = images(3)
    array[1] *= 10
    low, high = calibrated(array, tmp_path, size=1, method="moving_average").ranges["image"]
    expected = [float(array[0].min()), float(array[0].max())]
    for row in array[1:]:
        expected = [0.9 * expected[0] + 0.1 * float(row.min()), 0.9 * expected[1] + 0.1 * float(row.max())]
    assert (low, high) == pytest.approx(tuple(expected), rel=1e-5)


def test_statistics_of_two_workers_are_those_of_one(tmp_path: Path) -> None:
    array = images(24)
    array[20:] *= 7  # the second worker sees a wider range
    whole = calibrated(array, tmp_path).statistics
    for order in ((0, 1), (1, 0)):
        halves = [calibrated(half, tmp_path).statistics for half in (array[:12], array[12:])]
        merged = halves[order[0]]
        merged.merge(halves[order[1]])
        assert merged.samples == 24
        for name in VALUES:
            ours, theirs = merged.tensors[name], whole.tensors[name]
            assert (ours.histogram.low, ours.histogram.high) == (theirs.histogram.low, theirs.histogram.high)
            assert (ours.histogram.bound, ours.histogram.zeros) == (theirs.histogram.bound, theirs.histogram.zeros)
            np.testing.assert_array_equal(ours.histogram.counts, theirs.histogram.counts)


def test_merging_knows_values_that_only_one_worker_saw() -> None:
    seen = TensorStatistics()
    seen.add(-1.0, 2.0, np.float32([-1, 2]))
    bad = TensorStatistics()
    bad.add(np.inf, np.inf, np.float32([np.inf]))
    mine = Statistics({"a": TensorStatistics()}, 1)
    mine.merge(Statistics({"a": seen, "b": bad}, 2))
    assert mine.samples == 3
    assert mine.tensors["a"].average == (-1.0, 2.0)
    assert mine.tensors["a"].finite
    assert not mine.tensors["b"].finite


def test_the_average_of_two_workers_counts_what_each_saw() -> None:
    one, many = TensorStatistics(), TensorStatistics()
    one.add(-1.0, 1.0, np.float32([1]))
    many.add(-3.0, 3.0, np.float32([3]))
    one.merge(many)
    assert one.average == (-2.0, 2.0)
    assert many.average == (-3.0, 3.0)


def test_it_stops_when_the_scales_have_settled(tmp_path: Path) -> None:
    array = np.tile(images(8), (16, 1, 1, 1))  # after the first 16 there is nothing new
    drawn = []

    def counting() -> Iterator[Batch]:
        for batch in batches(array, 4):
            drawn.append(len(batch["image"]))
            yield batch

    found = calibrate(
        ir.from_proto(models.convnet()),
        VALUES,
        counting(),
        method="minmax",
        scheme=ACTIVATIONS,
        workspace=tmp_path,
        tolerance=0.01,
    )
    assert found.settled
    assert found.statistics.samples == sum(drawn) == 32
    assert [point.samples for point in found.curve] == [32]
    assert found.curve[0].largest_change == pytest.approx(0, abs=1e-6)


def test_the_curve_tells_how_far_scales_moved(tmp_path: Path) -> None:
    array = images(128)
    array[16:32] *= 2
    array[32:64] *= 4
    found = calibrated(array, tmp_path, size=16, tolerance=0.05)
    assert [point.samples for point in found.curve] == [32, 64, 128]
    widths = [np.ptp(array[:rows]) for rows in (16, 32, 64)]
    # The image is one of the values: its own change bounds the largest from below.
    assert found.curve[0].largest_change >= 1 - widths[0] / widths[1] - 1e-5
    assert found.curve[1].largest_change >= 1 - widths[1] / widths[2] - 1e-5
    assert all(0 <= point.median_change <= point.largest_change <= 1 for point in found.curve)
    assert found.settled == (found.curve[-1].largest_change <= 0.05)


def test_it_does_not_stop_while_one_scale_still_moves(tmp_path: Path) -> None:
    array = images(64) * np.linspace(1, 64, 64, dtype=np.float32).reshape(-1, 1, 1, 1)
    found = calibrated(array, tmp_path, size=8, tolerance=0.1)
    assert not found.settled
    assert found.statistics.samples == 64


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 5, 11])
def test_what_is_no_number_is_refused_with_its_place(wrong: float, row: int, tmp_path: Path) -> None:
    array = images(12)
    array[row, 0, 3, 3] = wrong
    with pytest.raises(BadDataset, match=rf"{wrong}.*'image'.*row {row} ") as caught:
        calibrated(array, tmp_path, size=4)
    assert caught.value.hint


def test_a_scalar_input_that_is_no_number_is_refused(tmp_path: Path) -> None:
    proto = models.assemble(
        [helper.make_node("Mul", ["x", "factor"], ["y"], "times")],
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("factor", TensorProto.FLOAT, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    batch = {"x": np.ones((2, 3), np.float32), "factor": np.array(np.nan, np.float32)}
    with pytest.raises(BadDataset, match="'factor'"):
        calibrate(ir.from_proto(proto), ["y"], [batch], method="minmax", scheme=ACTIVATIONS, workspace=tmp_path)


@pytest.mark.parametrize("method", ["minmax", "moving_average", "percentile", "entropy", "mse"])
def test_one_sample_is_enough_to_run(method: Method, tmp_path: Path) -> None:
    array = images(1)
    found = calibrated(array, tmp_path, method=method, tolerance=0.01)
    assert found.statistics.samples == 1
    low, high = found.ranges["image"]
    assert array.min() <= low < 0 < high <= array.max()


def test_no_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataset, match="no sample"):
        calibrated(images(0), tmp_path)


def test_zeros_are_ranges_of_zero(tmp_path: Path) -> None:
    found = calibrated(np.zeros((4, 1, 8, 8), np.float32), tmp_path, tolerance=0.1)
    assert found.ranges["image"] == (0, 0)


def masked(value: float) -> onnx.ModelProto:
    """Values that are infinite, or no numbers, inside: a mask as attention has it."""
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["above"], "test"),
        helper.make_node("Where", ["above", "x", "wrong"], ["masked"], "mask"),
        helper.make_node("Clip", ["masked", "zero", "six"], ["y"], "clip"),
    ]
    weights = {"zero": np.float32(0), "six": np.float32(6), "wrong": np.float32(value)}
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 16]) for name in ("x", "y")]
    return models.assemble(nodes, ports[:1], ports[1:], weights)


@pytest.mark.parametrize("value", [-np.inf, np.inf, np.nan])
def test_a_value_that_is_not_finite_inside_is_marked(value: float, tmp_path: Path) -> None:
    array = np.random.default_rng(1).standard_normal((8, 16)).astype(np.float32)
    found = calibrate(
        ir.from_proto(masked(value)),
        ["x", "masked"],
        [{"x": array[:4]}, {"x": array[4:]}],
        method="mse",
        scheme=ACTIVATIONS,
        workspace=tmp_path,
        tolerance=0.01,
    )
    assert found.statistics.tensors["x"].finite
    assert not found.statistics.tensors["masked"].finite
    assert np.isfinite(found.ranges["masked"]).all()


@pytest.mark.parametrize("place", [0, 4095, 8191, 70_001])
def test_one_place_that_is_no_number_moves_no_range(place: int, tmp_path: Path) -> None:
    # The sample of so large a value may miss the place; then the extremes pass over it.
    nodes = [
        helper.make_node("Sqrt", ["x"], ["root"], "root"),
        helper.make_node("Identity", ["root"], ["y"], "same"),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 80_000]) for name in ("x", "y")]
    array = np.ones((1, 80_000), np.float32)
    array[0, place] = -1
    found = calibrate(
        ir.from_proto(models.assemble(nodes, ports[:1], ports[1:])),
        ["root"],
        [{"x": array}],
        method="minmax",
        scheme=ACTIVATIONS,
        workspace=tmp_path,
    )
    seen = found.statistics.tensors["root"]
    assert not seen.finite or found.ranges["root"] == (0.0, 1.0)


def test_the_same_samples_give_the_same_statistics(tmp_path: Path) -> None:
    one, two = (calibrated(images(16), tmp_path, method="entropy") for _ in range(2))
    assert one.ranges == two.ranges
    for name in VALUES:
        first, second = one.statistics.tensors[name].histogram, two.statistics.tensors[name].histogram
        np.testing.assert_array_equal(first.counts, second.counts)


def test_it_tells_how_far_it_is(tmp_path: Path) -> None:
    told: list[tuple[object, ...]] = []
    calibrate(
        ir.from_proto(models.convnet()),
        VALUES,
        batches(images(6), 4),
        method="minmax",
        scheme=ACTIVATIONS,
        workspace=tmp_path,
        total=6,
        tell=lambda *what: told.append(what),
    )
    assert [what[1:3] for what in told] == [(4, 6), (6, 6)]


def test_extremes_are_exact_where_only_some_values_are_counted(tmp_path: Path) -> None:
    node = helper.make_node("Neg", ["x"], ["y"], "negative")
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 50_000]) for name in ("x", "y")]
    array = np.random.default_rng(2).standard_normal((6, 50_000)).astype(np.float32)
    array[4, 12_345] = 100
    found = calibrate(
        ir.from_proto(models.assemble([node], ports[:1], ports[1:])),
        ["y"],
        [{"x": row[None]} for row in array],
        method="minmax",
        scheme=ACTIVATIONS,
        workspace=tmp_path,
    )
    assert found.ranges["y"] == (-100.0, pytest.approx(float(-array.min())))
    histogram: Histogram = found.statistics.tensors["y"].histogram
    assert 0.8 * 6 * 8192 <= histogram.total <= 1.25 * 6 * 8192
    inside = (-array > -1) & (-array < 0)
    centres, counts = histogram.density()
    assert counts[(centres > -1) & (centres < 0)].sum() / histogram.total == pytest.approx(inside.mean(), abs=0.01)


MEMORY = """
import resource, sys, pathlib, tempfile
import accel, numpy as np, onnx_ir as ir
from accel.numerics.calibration import calibrate
from accel.numerics.scales import ACTIVATIONS
from tests import models

def batches(count):
    chance = np.random.default_rng(0)
    for _ in range(count // 8):
        yield {"image": chance.standard_normal((8, 1, 8, 8)).astype(np.float32)}

def peak(count):
    with tempfile.TemporaryDirectory() as folder:
        calibrate(ir.from_proto(models.convnet()), ["image", "c", "r", "hr", "scores"], batches(count), method="entropy",
                  scheme=ACTIVATIONS, workspace=pathlib.Path(folder))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

peak(32)
print(peak(32), peak(1024))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
def test_memory_does_not_grow_with_the_samples() -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", MEMORY], cwd=root, capture_output=True, text=True, check=True)
    few, many = map(int, done.stdout.split())
    # 1,024 samples of these values are 5 MB.
    assert many - few < 2_048, f"{few} kB for 32 samples, {many} kB for 1,024"
