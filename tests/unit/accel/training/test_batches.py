"""Rows in batches: how an epoch is cut, in which order rows come, and what each process gets."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.data.bind import Bound, bind
from accel.data.dataset import open_dataset
from accel.data.spec import DatasetSpec
from accel.errors import TrainingFailed
from accel.runtimes.sessions import Port
from accel.training.augment import Augmenter
from accel.training.augmentation import AnyAugmentation, Mixup, Noise
from accel.training.batches import Batch, Layout, Part, Stream
from accel.training.prefetch import prefetched

ROWS = 103
ALONE = Part()


@pytest.fixture
def bound(tmp_path: Path) -> Bound:
    """Rows whose only feature, and whose label, is their number."""
    numbers = np.arange(ROWS)
    np.savez(tmp_path / "d.npz", x_train=numbers[:, None].astype(np.float32), y_train=numbers)
    dataset = open_dataset(tmp_path / "d.npz", DatasetSpec(), tmp_path)
    float32 = np.dtype(np.float32)
    return bind([Port("x", float32, ("n", 1))], [Port("y", float32, ("n", 4))], dataset, "train", None)


def stream(
    bound: Bound, *, part: Part = ALONE, per_step: int | None = 1, by: tuple[AnyAugmentation, ...] = ()
) -> Stream:
    layout = Layout.of(len(bound), 16, per_step=per_step, processes=part.of)
    return Stream(bound, layout, 5, Augmenter.of(by, bound, 5), part)


@given(rows=st.integers(1, 5000), size=st.integers(1, 600), per_step=st.integers(1, 9))
def test_an_epoch_is_cut_evenly(rows: int, size: int, per_step: int) -> None:
    if rows < size:
        with pytest.raises(TrainingFailed, match="larger than"):
            Layout.of(rows, size, per_step=per_step)
        return
    layout = Layout.of(rows, size, per_step=per_step)
    bounds = [layout.bounds(batch) for batch in range(layout.batches)]
    sizes = [stop - start for start, stop in bounds]
    assert bounds[0][0] == 0
    assert bounds[-1][1] == rows
    assert all(one[1] == two[0] for one, two in itertools.pairwise(bounds))
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert sum(layout.rows_of_step(step) for step in range(layout.steps)) == rows


def test_a_batch_larger_than_the_dataset_says_so() -> None:
    with pytest.raises(TrainingFailed, match="A batch of 64 rows is larger than the 40 rows") as caught:
        Layout.of(40, 64, per_step=1)
    assert "40 at most" in caught.value.hint
    assert Layout.of(40, 64, per_step=None) == Layout(40, 1, 1)


def test_too_many_processes_say_so() -> None:
    with pytest.raises(TrainingFailed, match="3 rows cannot be shared out between 4 processes"):
        Layout.of(3, 3, per_step=1, processes=4)


def test_every_row_comes_once_in_another_order_each_epoch(bound: Bound) -> None:
    orders = []
    for epoch in range(2):
        batches = list(stream(bound).epoch(epoch))
        for batch in batches:
            assert batch.targets is not None
            assert (batch.feeds["x"][:, 0] == batch.targets).all()
        orders.append(np.concatenate([batch.targets for batch in batches]))
        assert sorted(orders[-1]) == list(range(ROWS))
    assert (orders[0] != orders[1]).mean() > 0.9
    assert (orders[0] != np.arange(ROWS)).mean() > 0.9


def test_an_epoch_goes_on_from_any_batch(bound: Bound) -> None:
    by = (Noise(), Mixup())
    whole = list(stream(bound, by=by).epoch(3))
    rest = list(stream(bound, by=by).epoch(3, first=4))
    assert [batch.number for batch in rest] == [batch.number for batch in whole[4:]]
    for one, two in zip(rest, whole[4:], strict=True):
        assert (one.feeds["x"] == two.feeds["x"]).all()


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_out_every_batch(bound: Bound, processes: int) -> None:
    by = (Noise(), Mixup())
    whole = list(stream(bound, by=by).epoch(1))
    parts = [list(stream(bound, part=Part(rank, processes), by=by).epoch(1)) for rank in range(processes)]
    for number, batch in enumerate(whole):
        found = [part[number] for part in parts]
        assert np.array_equal(np.concatenate([one.feeds["x"] for one in found]), batch.feeds["x"])
        assert np.array_equal(np.concatenate([one.targets for one in found]), batch.targets)
        blends = [one.blend for one in (*found, batch)]
        assert len({blend.share for blend in blends if blend is not None}) == 1
        others = np.concatenate([one.blend.targets for one in found if one.blend is not None])
        assert batch.blend is not None
        assert np.array_equal(others, batch.blend.targets)
        assert sum(one.rows for one in found) == batch.rows


def test_steps_know_their_rows(bound: Bound) -> None:
    batches = list(stream(bound, per_step=3).epoch(0))
    assert [batch.step for batch in batches] == [0, 0, 0, 1, 1, 1, 2]
    assert [batch.ends_step for batch in batches] == [False, False, True, False, False, True, True]
    for step in range(3):
        assert sum(b.rows for b in batches if b.step == step) == next(b.step_rows for b in batches if b.step == step)
    (all_rows,) = {batch.step_rows for batch in stream(bound, per_step=None).epoch(0)}
    assert all_rows == ROWS


def test_mixup_blends_targets_with_inputs(bound: Bound) -> None:
    for batch in stream(bound, by=(Mixup(alpha=1.0),)).epoch(0):
        assert batch.blend is not None
        assert batch.targets is not None
        assert batch.blend.targets is not None
        assert (batch.targets != batch.blend.targets).all()
        blended = batch.blend.share * batch.targets + (1 - batch.blend.share) * batch.blend.targets
        assert np.allclose(batch.feeds["x"][:, 0], blended)


def test_reading_ahead_is_bounded_and_in_order() -> None:
    made = []
    full = threading.Event()

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            if number == 2:
                full.set()
            yield number

    with prefetched(items(), depth=3) as found:
        assert full.wait(10)
        assert len(made) <= 3
        assert list(found) == list(range(100))


def test_the_thread_ends_with_the_block() -> None:
    before = threading.active_count()
    with prefetched(iter(range(10**9))) as found:
        assert next(found) == 0
    assert threading.active_count() == before


def test_an_error_of_the_thread_comes_where_its_item_would() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise TrainingFailed("broken")

    with prefetched(items()) as found:
        assert next(found) == 1
        with pytest.raises(TrainingFailed, match="broken"):
            next(found)


def test_a_stream_without_targets(bound: Bound) -> None:
    from dataclasses import replace

    batches: list[Batch] = list(stream(replace(bound, target=None), by=(Mixup(),)).epoch(0))
    assert all(batch.targets is None for batch in batches)
    assert all(batch.blend is not None and batch.blend.targets is None for batch in batches)
