from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.data.bind import bind
from accel.data.binding import (
    AddAxis,
    Binding,
    Cast,
    ColumnInput,
    ConstantInput,
    Embedding,
    Normalize,
    Pad,
    Reshape,
    Resize,
    Scale,
    Transpose,
)
from accel.data.dataset import open_dataset
from accel.data.spec import DatasetSpec
from accel.data.steps import apply_step, resize
from accel.errors import BindingMismatch, RuntimeFailed
from accel.runtimes.sessions import Port

F32 = np.dtype(np.float32)
IMAGE = Port("image", F32, ("batch", 1, 4, 4))
LOGITS = Port("logits", F32, ("batch", 3))


def dataset(tmp_path: Path, **arrays: np.ndarray):
    np.savez(tmp_path / "d.npz", **arrays)
    return open_dataset(tmp_path / "d.npz", DatasetSpec(), tmp_path)


def test_the_one_other_column_is_matched(tmp_path: Path) -> None:
    x = np.arange(5 * 16, dtype=np.float32).reshape(5, 1, 4, 4)
    data = dataset(tmp_path, pixels_test=x, y_test=np.zeros(5, np.int64))
    bound = bind([IMAGE], [LOGITS], data, "test", None)
    assert (len(bound), bound.output, bound.fixed_batch) == (5, "logits", None)
    batches = list(bound.batches(4, 3))
    assert [len(batch["image"]) for batch in batches] == [3, 1]
    np.testing.assert_array_equal(batches[0]["image"], x[:3])
    np.testing.assert_array_equal(bound.labels(), np.zeros(5))
    drawn = bound.draw(2, seed=1)
    assert len(drawn) == 2
    np.testing.assert_array_equal(drawn.feed(0, 2)["image"], bound.draw(2, seed=1).feed(0, 2)["image"])


def test_a_mismatch_names_both_shapes_and_its_hint_works(tmp_path: Path) -> None:
    data = dataset(tmp_path, x_test=np.full((2, 4, 4), 255, np.uint8), y_test=np.zeros(2, np.int64))
    with pytest.raises(BindingMismatch, match=r"float32 \[1, 4, 4\].*uint8 \[4, 4\]") as caught:
        bind([IMAGE], [LOGITS], data, "test", None)
    hint = caught.value.hint.partition("such as ")[2].rstrip(".")
    helped = Binding.model_validate(json.loads(hint)["binding"])
    feed = bind([IMAGE], [LOGITS], data, "test", helped).feed(0, 2)["image"]
    assert feed.shape == (2, 1, 4, 4)
    np.testing.assert_allclose(feed, 1.0)


def test_numbers_are_not_converted_silently(tmp_path: Path) -> None:
    data = dataset(tmp_path, x_test=np.zeros((2, 1, 4, 4), np.uint8), y_test=np.zeros(2, np.int64))
    with pytest.raises(BindingMismatch, match="not converted silently"):
        bind([IMAGE], [LOGITS], data, "test", None)
    port = Port("ids", np.dtype(np.int64), ("batch", 1, 4, 4))
    assert bind([port], [LOGITS], data, "test", None).feed(0, 2)["ids"].dtype == np.int64


def test_a_fixed_batch_is_filled(tmp_path: Path) -> None:
    data = dataset(tmp_path, x_test=np.arange(6, dtype=np.float32).reshape(6, 1), y_test=np.zeros(6, np.int64))
    bound = bind([Port("x", F32, (4, 1))], [LOGITS], data, "test", None)
    assert list(bound.spans(6, 32)) == [(0, 4), (4, 6)]
    np.testing.assert_array_equal(bound.feed(4, 6)["x"][:, 0], [4, 5, 5, 5])


def test_an_answer_has_one_row_of_numbers_for_each_row_of_the_batch(tmp_path: Path) -> None:
    data = dataset(tmp_path, x_test=np.zeros((6, 1), np.float32), y_test=np.zeros(6, np.int64))
    bound = bind([Port("x", F32, (4, 1))], [LOGITS], data, "test", None)
    scores = np.arange(8.0).reshape(4, 2)
    np.testing.assert_array_equal(bound.answer({"logits": scores}, 2), scores[:2])
    with pytest.raises(RuntimeFailed, match=r"not have one row for each sample.*\[9, 4, 3\] for a batch of 4"):
        bound.answer({"logits": np.zeros((9, 4, 3))}, 2)  # steps before samples
    for nothing in ({}, {"logits": np.float32(1)}, {"logits": np.array(["cat"] * 4, object)}):
        with pytest.raises(RuntimeFailed, match="does not hold numbers"):
            bound.answer(nothing, 4)


def test_constants_and_missing_names(tmp_path: Path) -> None:
    data = dataset(tmp_path, x_test=np.zeros((2, 3), np.float32), y_test=np.zeros(2, np.int64))
    ports = [Port("x", F32, ("batch", 3)), Port("state", F32, (1, 2))]
    binding = Binding(inputs={"state": ConstantInput(constant=0.5, shape=(1, 2))})
    np.testing.assert_array_equal(bind(ports, [LOGITS], data, "test", binding).feed(0, 2)["state"], [[0.5, 0.5]])
    wrong = {
        "the constant has": Binding(inputs={"state": ConstantInput(constant=0, shape=(3,))}),
        "no input 'nothing'": Binding(inputs={"nothing": ColumnInput(column="x")}),
        "to the column 'z'": Binding(inputs={"x": ColumnInput(column="z"), **binding.inputs}),
        "no output 'z'": Binding(inputs=binding.inputs, output="z"),
        "target 'z'": Binding(inputs=binding.inputs, target="z"),
        "matches no column": Binding(),
    }
    for says, wrong_binding in wrong.items():
        with pytest.raises(BindingMismatch, match=says):
            bind(ports, [LOGITS], data, "test", wrong_binding)


def test_a_step_that_does_not_fit_is_named(tmp_path: Path) -> None:
    data = dataset(tmp_path, x_test=np.zeros((2, 3), np.float32), y_test=np.zeros(2, np.int64))
    binding = Binding(inputs={"x": ColumnInput(column="x", steps=(Reshape(shape=(5, 5)),))})
    with pytest.raises(BindingMismatch, match=r"'reshape'.*does not fit"):
        bind([Port("x", F32, ("batch", 3))], [LOGITS], data, "test", binding)


def test_steps_do_what_they_say() -> None:
    batch = np.arange(2 * 3 * 2 * 2, dtype=np.uint8).reshape(2, 3, 2, 2)
    as_float = batch.astype(np.float32)
    np.testing.assert_allclose(apply_step(Scale(multiply=0.5, add=1), batch), as_float * 0.5 + 1)
    normalized = apply_step(Normalize(mean=(1, 2, 3), std=(1, 2, 4)), batch)
    np.testing.assert_allclose(normalized[:, 2], (as_float[:, 2] - 3) / 4)
    np.testing.assert_allclose(apply_step(Normalize(mean=(1,), std=(2,)), batch), (as_float - 1) / 2)
    np.testing.assert_array_equal(apply_step(Transpose(axes=(1, 2, 0)), batch), batch.transpose(0, 2, 3, 1))
    assert apply_step(Reshape(shape=(-1,)), batch).shape == (2, 12)
    assert apply_step(AddAxis(axis=1), batch).shape == (2, 1, 3, 2, 2)
    padded = apply_step(Pad(widths=((0, 0), (1, 0), (0, 2)), value=9), batch)
    assert padded.shape == (2, 3, 3, 4)
    assert (padded[:, :, 0] == 9).all()
    assert apply_step(Cast(dtype="int32"), batch).dtype == np.int32
    assert apply_step(Resize(height=4, width=1), batch).shape == (2, 3, 4, 1)
    with pytest.raises(ValueError, match="std"):
        apply_step(Normalize(mean=(0,), std=(0,)), batch)


def naive_resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = image.shape
    out = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, rows - 1), min(x0 + 1, columns - 1)
            top = image[y0, x0] * (1 - (x - x0)) + image[y0, x1] * (x - x0)
            low = image[y1, x0] * (1 - (x - x0)) + image[y1, x1] * (x - x0)
            out[i, j] = top * (1 - (y - y0)) + low * (y - y0)
    return out


sizes = st.integers(1, 7)


@given(sizes, sizes, sizes, sizes)
def test_resize_equals_the_formula(rows: int, columns: int, height: int, width: int) -> None:
    image = np.random.default_rng(rows * 7 + columns).standard_normal((rows, columns)).astype(np.float32)
    np.testing.assert_allclose(resize(image[None], height, width)[0], naive_resize(image, height, width), atol=1e-5)


def test_groups_are_numbered_whatever_they_are_called(tmp_path: Path) -> None:
    x, y = np.zeros((5, 1, 4, 4), np.float32), np.zeros(5, np.int64)
    for names in (
        np.array(["eve", "bob", "eve", "ann", "bob"]),
        np.array([[7], [-1], [7], [-9], [-1]]),
        np.array([2.5, 1, 2.5, 0, 1]),
    ):
        data = dataset(tmp_path, pixels_test=x, who_test=names, y_test=y)
        bound = bind([IMAGE], [LOGITS], data, "test", Binding(group="who"))
        assert bound.feeds[0].column == "pixels", "a group is no input"
        assert bound.groups() is not None
        np.testing.assert_array_equal(bound.groups(), [2, 1, 2, 0, 1])
        np.testing.assert_array_equal(bound.select(np.array([4, 3])).groups(), [1, 0])
    assert bind([IMAGE], [LOGITS], dataset(tmp_path, x_test=x, y_test=y), "test", None).groups() is None
    with pytest.raises(BindingMismatch, match="group 'whom' is no column"):
        bind([IMAGE], [LOGITS], data, "test", Binding(group="whom"))
    with pytest.raises(BindingMismatch, match=r"shape \[1, 4, 4\]; one value"):
        bind([IMAGE], [LOGITS], data, "test", Binding(group="pixels"))


def test_the_second_of_each_pair_has_inputs_of_its_own(tmp_path: Path) -> None:
    one, two = np.arange(20, dtype=np.float32).reshape(2, 5, 2)
    data = dataset(tmp_path, a_test=one, b_test=two, score_test=np.zeros(5))
    ports = [Port("x", F32, (4, 2)), Port("scale", F32, (1,))]
    inputs = {"scale": ConstantInput(constant=2, shape=(1,))}
    decoder = Embedding(second={"x": ColumnInput(column="b", steps=(Scale(multiply=10),))})
    bound = bind(ports, [LOGITS], data, "test", Binding(inputs=inputs, decoder=decoder, target="score"))
    first, second = bound.runs(3, 5)
    np.testing.assert_array_equal(first["x"], one[[3, 4, 4, 4]])
    np.testing.assert_array_equal(second["x"], 10 * two[[3, 4, 4, 4]])
    assert second["scale"] == first["scale"] == 2
    np.testing.assert_array_equal(bound.select(np.array([2])).runs(0, 1)[1]["x"][0], 10 * two[2])
    alone = bind(ports, [LOGITS], data, "test", Binding(inputs=inputs | {"x": ColumnInput(column="a")}))
    assert len(alone.runs(0, 2)) == 1
    with pytest.raises(BindingMismatch, match="no input 'z'"):
        bind(
            ports,
            [LOGITS],
            data,
            "test",
            Binding(inputs=inputs, decoder=Embedding(second={"z": ColumnInput(column="b")})),
        )
    with pytest.raises(BindingMismatch, match=r"'x'.*float32 \[2\].*float64 \[\]"):
        bind(
            ports,
            [LOGITS],
            data,
            "test",
            Binding(
                inputs=inputs | {"x": ColumnInput(column="a")},
                decoder=Embedding(second={"x": ColumnInput(column="score")}),
            ),
        )
