"""Each finding of the calibration doctor fires on a case that is made for it, and is silent on its clean twin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from accel.data import doctor
from accel.data.bind import Bound, bind
from accel.data.dataset import open_dataset
from accel.data.doctor import examine
from accel.data.preprocessing import compare_answers
from accel.data.spec import DatasetSpec
from accel.report.quantization import Finding, Settling
from accel.runtimes.sessions import Port
from tests.models import _value, assemble

NODE = helper.make_node
F32 = np.dtype(np.float32)
SIZE = 12


def bound(folder: Path, name: str, x: np.ndarray, y: np.ndarray | None = None) -> Bound:
    """Rows that are fed as they are, from a file of their own."""
    home = folder / name
    home.mkdir()
    arrays = {"x_test": x} | ({} if y is None else {"y_test": y})
    np.savez(home / "d.npz", allow_pickle=False, **arrays)
    port = Port("x", x.dtype, ("batch", *x.shape[1:]))
    return bind(
        [port], [Port("scores", F32, ("batch", 3))], open_dataset(home / "d.npz", DatasetSpec(), home), "test", None
    )


def model(nodes: Sequence[onnx.NodeProto], weights: dict[str, np.ndarray], shape: Sequence[int]) -> ir.Model:
    return ir.from_proto(
        assemble(nodes, [_value("x", ["n", *shape])], [_value(nodes[-1].output[0], ["n", None])], weights)
    )


def plain(features: int = 4) -> ir.Model:
    """A layer that says nothing about its input."""
    return model(
        [NODE("MatMul", ["x", "w"], ["scores"], "layer")], {"w": np.ones((features, 3), np.float32)}, [features]
    )


def rows(count: int = 32, features: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, features)).astype(np.float32)


def diagnosis(
    calibration: Bound,
    folder: Path,
    *,
    of: ir.Model | None = None,
    judged: Bound | None = None,
    samples: int = 1000,
    curve: Sequence[Settling] = (),
) -> dict[str, Finding]:
    found = examine(calibration, judged, of or plain(), samples, workspace=folder, curve=curve)
    assert all(finding.hint and finding.message.endswith(".") for finding in found)
    return {finding.code: finding for finding in found}


def test_good_samples_give_no_finding(tmp_path: Path) -> None:
    y = np.tile(np.arange(4), 8)
    calibration, judged = bound(tmp_path, "a", rows(), y), bound(tmp_path, "b", rows(seed=1), y)
    assert diagnosis(calibration, tmp_path, judged=judged) == {}
    assert diagnosis(calibration.select(np.arange(0)), tmp_path) == {}


def test_copies_are_counted(tmp_path: Path) -> None:
    x = rows(40)
    x[1] = x[0]
    assert diagnosis(bound(tmp_path, "few", x), tmp_path)["duplicates"].severity == "info"
    x[20:30] = x[0]
    found = diagnosis(bound(tmp_path, "many", x), tmp_path)["duplicates"]
    assert (found.severity, found.message) == ("warning", "11 of 40 calibration samples (28%) are copies of others.")
    assert (
        "duplicates" not in diagnosis(bound(tmp_path, "later", x), tmp_path, samples=20)
        or x[1].tolist() == x[0].tolist()
    )


def test_only_the_rows_that_were_used_are_looked_at(tmp_path: Path) -> None:
    x = rows(40)
    x[30:] = x[0]
    calibration = bound(tmp_path, "a", x)
    assert "duplicates" not in diagnosis(calibration, tmp_path, samples=30)
    assert "duplicates" in diagnosis(calibration, tmp_path, samples=31)


def test_rows_of_another_file_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calibration, x = bound(tmp_path, "a", rows()), rows(100, seed=1)
    x[::20] = rows()[:5]
    judged = bound(tmp_path, "b", x)
    found = diagnosis(calibration, tmp_path, judged=judged)["evaluation_leakage"]
    assert found.severity == "warning"
    assert found.message.startswith("5 of 32 calibration samples have a copy")
    assert "looked at" not in found.message
    monkeypatch.setattr(doctor, "_HASHED_BYTES", 10 * 16)
    part = diagnosis(calibration, tmp_path, judged=judged)["evaluation_leakage"].message
    assert "(10 of its 100 rows were looked at)" in part


def test_rows_of_one_split_leak_unless_it_was_divided(tmp_path: Path) -> None:
    whole = bound(tmp_path, "a", rows(64))
    first, second = whole.select(np.arange(32)), whole.select(np.arange(32, 64))
    assert diagnosis(first, tmp_path, judged=second) == {}
    found = diagnosis(first, tmp_path, judged=whole)["evaluation_leakage"]
    assert (found.severity, found.message[:32]) == ("warning", "32 of 32 calibration samples are")


def test_copies_across_a_divided_split_are_only_told(tmp_path: Path) -> None:
    x = rows(64)
    x[40] = x[3]
    whole = bound(tmp_path, "a", x)
    found = diagnosis(whole.select(np.arange(32)), tmp_path, judged=whole.select(np.arange(32, 64)))
    assert found["evaluation_leakage"].severity == "info"


def test_too_few_samples(tmp_path: Path) -> None:
    calibration = bound(tmp_path, "a", rows(32))
    assert "too_few_samples" in diagnosis(calibration, tmp_path, samples=15)
    assert "too_few_samples" not in diagnosis(calibration, tmp_path, samples=16)
    only = diagnosis(bound(tmp_path, "b", rows(1)), tmp_path)["too_few_samples"].message
    assert only == "Ranges were measured on 1 sample, and there are only 1."


def moved(samples: int, change: float) -> Settling:
    return Settling(samples=samples, median_change=change, largest_change=0.5)


def test_scales_that_still_move_tell_how_many_samples_would_do(tmp_path: Path) -> None:
    calibration = bound(tmp_path, "a", rows(128))
    settled = [
        Settling(samples=32, median_change=0.1, largest_change=0.5),
        Settling(samples=64, median_change=0.04, largest_change=0.5),
    ]
    assert diagnosis(calibration, tmp_path, curve=settled) == {}
    # Halving the change takes twice the samples here, so that 0.1 becomes 0.05 at 256.
    moving = [
        Settling(samples=32, median_change=0.4, largest_change=0.5),
        Settling(samples=64, median_change=0.2, largest_change=0.5),
        Settling(samples=128, median_change=0.1, largest_change=0.5),
    ]
    found = diagnosis(calibration, tmp_path, curve=moving)["too_few_samples"]
    assert "set `samples` to 260" in found.hint
    # With one point the change is taken to fall with the square root.
    found = diagnosis(calibration, tmp_path, curve=[Settling(samples=128, median_change=0.1, largest_change=0.5)])[
        "too_few_samples"
    ]
    assert "set `samples` to 520" in found.hint


def test_ordered_labels_are_noticed(tmp_path: Path) -> None:
    ordered = np.repeat(np.arange(10), 20)
    mixed = np.tile(np.arange(10), 20)
    judged = bound(tmp_path, "judged", rows(200, seed=9), mixed)
    found = diagnosis(bound(tmp_path, "a", rows(200), ordered), tmp_path, judged=judged, samples=40)["one_class"]
    assert "cover 2 of 10 classes" in found.message
    assert "one_class" in diagnosis(bound(tmp_path, "b", rows(200), ordered), tmp_path, samples=40)
    assert diagnosis(bound(tmp_path, "c", rows(200), mixed), tmp_path, judged=judged, samples=40) == {}


def test_rare_classes_and_other_targets_are_no_order(tmp_path: Path) -> None:
    rare = np.zeros(200, np.int64)
    rare[7], rare[150] = 1, 2
    calibration = bound(tmp_path, "a", rows(200), rare)
    assert diagnosis(calibration, tmp_path, samples=100) == {}
    for name, target in (
        ("floats", np.zeros(32)),
        ("one", np.zeros(32, np.int64)),
        ("rows", np.zeros((32, 2), np.int64)),
    ):
        assert diagnosis(bound(tmp_path, name, rows(32), target), tmp_path) == {}


def pictures(count: int = 40, seed: int = 0) -> np.ndarray:
    """Smooth pictures in colour with bytes, redder than blue: [count, 3, size, size]."""
    random = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(SIZE), np.arange(SIZE))
    waves = random.uniform(-0.3, 0.3, (count, 1, 2)) + random.uniform(-0.1, 0.1, (count, 3, 2))
    phase = np.einsum("ncd,dhw->nchw", waves, np.stack([x, y]))
    tint = np.array([190, 120, 60]).reshape(1, 3, 1, 1)
    waved: np.ndarray = tint + 60 * np.sin(phase + random.uniform(0, 6, (count, 1, 1, 1)))
    pixels: np.ndarray = np.rint(waved).clip(0, 255).astype(np.float32)
    return pixels


def convolution(*, batch_norm: bool) -> ir.Model:
    """A Conv over three colours, trained on pixels from 0 to 1 as far as its batch norm knows."""
    w = np.random.default_rng(7).standard_normal((6, 3, 1, 1)).astype(np.float32)
    nodes, weights = [NODE("Conv", ["x", "w"], ["c"], "conv", kernel_shape=[1, 1])], {"w": w}
    if batch_norm:
        seen = np.einsum("oc,nchw->nohw", w[:, :, 0, 0], pictures(400, seed=5) / 255)
        weights |= {
            "scale": np.ones(6, np.float32),
            "shift": np.zeros(6, np.float32),
            "mean": seen.mean((0, 2, 3)),
            "variance": seen.var((0, 2, 3)),
        }
        nodes.append(NODE("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["b"], "bn"))
    nodes.append(NODE("Relu", [nodes[-1].output[0]], ["scores"], "relu"))
    return model(nodes, weights, [3, SIZE, SIZE])


def mismatch(x: np.ndarray, of: ir.Model, folder: Path, name: str = "a") -> Finding | None:
    return diagnosis(bound(folder, name, x.astype(np.float32)), folder, of=of).get("preprocessing_mismatch")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda x: x, "Pixels from 0 to 1 would fit better"),
        (lambda x: x / 127.5 - 1, "Pixels from 0 to 1 would fit better"),
        (lambda x: x[:, ::-1] / 255, "Channels in the opposite order"),
        (lambda x: x / 255 / 20, "Compare the steps"),
        (lambda x: 3 + x / 255, "Compare the steps"),
    ],
)
def test_a_batch_norm_knows_what_was_fed_in_the_training(change: object, says: str, tmp_path: Path) -> None:
    of = convolution(batch_norm=True)
    assert mismatch(pictures() / 255, of, tmp_path) is None
    found = mismatch(change(pictures()), of, tmp_path, "wrong")  # type: ignore[operator]
    assert found is not None
    assert found.severity == "warning"
    assert says in found.hint


def test_darker_pictures_are_no_mismatch(tmp_path: Path) -> None:
    assert mismatch(pictures() / 255 * 0.6, convolution(batch_norm=True), tmp_path) is None


def test_pictures_that_were_reshaped_instead_of_transposed(tmp_path: Path) -> None:
    of, good = convolution(batch_norm=False), pictures() / 255
    assert mismatch(good, of, tmp_path) is None
    reshaped = np.ascontiguousarray(good.transpose(0, 2, 3, 1)).reshape(good.shape)
    found = mismatch(reshaped, of, tmp_path, "wrong")
    assert found is not None
    assert "transpose" in found.hint


def test_raw_bytes_before_a_convolution(tmp_path: Path) -> None:
    of = convolution(batch_norm=False)
    found = mismatch(pictures(), of, tmp_path)
    assert found is not None
    assert "Whole numbers" in found.message
    small = convolution(batch_norm=False)
    weight = small.graph.initializers["w"]
    weight.const_value = ir.tensor(weight.const_value.numpy() / 255, name="w")  # type: ignore[union-attr]
    assert mismatch(pictures(), small, tmp_path, "trained_so") is None


def normalising(*operators: tuple[str, np.ndarray]) -> ir.Model:
    nodes, weights, last = [], {"w": np.ones((4, 3), np.float32)}, "x"
    for place, (operator, number) in enumerate(operators):
        weights[f"k{place}"] = number.astype(np.float32)
        nodes.append(NODE(operator, [last, f"k{place}"], [f"v{place}"], f"{operator.lower()}_{place}"))
        last = f"v{place}"
    return model([*nodes, NODE("MatMul", [last, "w"], ["scores"], "layer")], weights, [4])


def test_a_graph_that_normalises_tells_what_it_expects(tmp_path: Path) -> None:
    mean, spread = np.array([100, -50, 3, 8]), np.array([20, 10, 1, 2])
    of = normalising(("Sub", mean), ("Div", spread))
    assert mismatch(rows(64) * spread + mean, of, tmp_path) is None
    assert mismatch(rows(64) * spread * 0.5 + mean + spread, of, tmp_path, "shifted") is None
    twice = mismatch(rows(64), of, tmp_path, "twice")
    assert twice is not None
    assert "normalised already" in twice.hint
    small = mismatch((rows(64) * spread + mean) / 255, of, tmp_path, "small")
    assert small is not None
    assert "'sub_0'" in small.message


def test_a_graph_that_only_scales(tmp_path: Path) -> None:
    of = normalising(("Mul", np.array(1 / 255)))
    bytes_ = np.random.default_rng(0).integers(0, 256, (32, 4)).astype(np.float32)
    assert mismatch(bytes_, of, tmp_path) is None
    found = mismatch(bytes_ / 255, of, tmp_path, "twice")
    assert found is not None
    assert "scaled twice" in found.hint


def test_constant_and_huge_values(tmp_path: Path) -> None:
    found = mismatch(np.full((32, 4), 7), plain(), tmp_path)
    assert found is not None
    assert "always 7" in found.message
    found = mismatch(rows() * 1e5, plain(), tmp_path, "huge")
    assert found is not None
    assert "nothing scales them before MatMul" in found.message


def test_grey_pictures_are_told_not_warned_about(tmp_path: Path) -> None:
    grey = np.repeat(pictures()[:, :1] / 255, 3, axis=1)
    found = mismatch(grey, convolution(batch_norm=False), tmp_path)
    assert found is not None
    assert found.severity == "info"


def test_whole_numbers_for_an_integer_input_are_left_alone(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).integers(0, 30000, (32, 4)).astype(np.int64)
    table = assemble(
        [NODE("Gather", ["table", "x"], ["scores"], "gather")],
        [_value("x", ["n", 4], onnx.TensorProto.INT64)],
        [_value("scores", ["n", 4, 3])],
        {"table": np.ones((30000, 3), np.float32)},
    )
    assert diagnosis(bound(tmp_path, "a", ids), tmp_path, of=ir.from_proto(table)) == {}


def classifier() -> ir.Model:
    """Says which of the three colours is strongest; it wants pixels from -1 to 1, and saturates beyond."""
    weights = {
        "w": np.array([[6, -3, -3], [-3, 8, -3], [-3, -3, 12]], np.float32).reshape(3, 3, 1, 1),
        "b": np.array([-3, 0, 5], np.float32),
        "zero": np.array(-6, np.float32),
        "six": np.array(6, np.float32),
    }
    nodes = [
        NODE("Conv", ["x", "w", "b"], ["c"], "conv", kernel_shape=[1, 1]),
        NODE("Clip", ["c", "zero", "six"], ["k"], "clip"),
        NODE("GlobalAveragePool", ["k"], ["p"], "pool"),
        NODE("Flatten", ["p"], ["scores"], "flatten"),
    ]
    return model(nodes, weights, [3, SIZE, SIZE])


def colours(count: int = 96) -> np.ndarray:
    """Pictures in the three colours that the classifier tells apart, [count, 3, size, size] from -1 to 1."""
    random = np.random.default_rng(2)
    strongest = random.integers(0, 3, count)
    level = np.array([0.5, 0.0, -0.4]) + np.where(np.arange(3) == strongest[:, None], 0.5, -0.5)
    return np.clip(level[:, :, None, None] + random.normal(0, 0.05, (count, 3, SIZE, SIZE)), -1, 1).astype(np.float32)


def test_answers_tell_which_preprocessing_the_model_knows(tmp_path: Path) -> None:
    of, good = classifier(), colours()
    assert compare_answers(bound(tmp_path, "right", good), of, 96, tmp_path) == ()
    (found,) = compare_answers(bound(tmp_path, "swapped", good[:, ::-1]), of, 96, tmp_path)
    assert found.code == "preprocessing_mismatch"
    assert "channels in the opposite order" in found.message
    (found,) = compare_answers(bound(tmp_path, "bytes", np.rint((good + 1) * 127.5)), of, 96, tmp_path)
    assert "pixels from -1 to 1" in found.message
    assert not list(tmp_path.glob("*.onnx"))


def test_answers_are_not_compared_where_there_is_nothing_to_compare(tmp_path: Path) -> None:
    assert compare_answers(bound(tmp_path, "few", colours(20)), classifier(), 96, tmp_path) == ()
    assert compare_answers(bound(tmp_path, "features", rows(96)), plain(), 96, tmp_path) == ()
