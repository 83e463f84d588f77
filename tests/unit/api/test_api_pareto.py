"""The Pareto set, and the advice that follows from a comparison."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.evaluation.contract import Contract, Verdict
from api.comparison import Comparison, comparison_of
from api.comparison.pareto import coordinates, front
from tests.comparisons import CPU, MET, OPENVINO, SMALL, baseline, entry, evaluation, measurement, table

NOT_MET = MET.model_copy(update={"outcome": "not_met"})
coordinate = st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]) | st.floats(-1e6, 1e6)


def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


@given(st.lists(st.tuples(coordinate, coordinate, coordinate), max_size=30))
def test_nothing_in_the_set_is_beaten_and_all_else_is_by_one_of_it(points: list[tuple[float, float, float]]) -> None:
    beaten_by = front(points)
    assert sorted(beaten_by) == list(range(len(points)))
    for place, by in beaten_by.items():
        if by is None:
            assert not any(beats(other, points[place]) for other in points)
        else:
            assert beats(points[by], points[place])
            assert beaten_by[by] is None


@given(st.permutations(range(6)))
def test_order_does_not_matter(order: list[int]) -> None:
    points = [(0, 3), (1, 1), (1, 1), (3, 0), (2, 2), (3, 3)]
    found = front([points[place] for place in order])
    assert {order[place] for place, by in found.items() if by is None} == {0, 1, 2, 3}


row = st.tuples(
    st.sampled_from([CPU, OPENVINO]),
    st.none() | st.sampled_from([0.7, 0.8, 0.9]),
    st.none() | st.sampled_from([0.5, 1.0, 2.0]),
    st.sampled_from([1_000, 2_000, 4_000]),
    st.sampled_from(["here", "there"]),
    st.sampled_from(["test", "hard"]),
)


@given(st.lists(row, min_size=1, max_size=12))
def test_every_complete_row_is_in_one_set_of_its_own_kind(rows: list[tuple]) -> None:
    models = [
        entry(
            UUID(int=10 + number),
            f"m{number}",
            size_bytes=size,
            evaluations=() if value is None else (evaluation(value, runtime=runtime, split=split),),
            measurements=() if median is None else (measurement(median, runtime=runtime, environment=where),),
        )
        for number, (runtime, value, median, size, where, split) in enumerate(rows)
    ]
    found = comparison_of(table(baseline(evaluations=(), measurements=()), *models, jobs=()))
    told = [place for one in found.pareto for place in (*one.rows, *(beaten.row for beaten in one.dominated))]
    complete = [place for place, each in enumerate(found.rows) if coordinates(each) is not None]
    assert sorted(told) == complete, "each complete row in one set, no other row in any"
    for one in found.pareto:
        there = [found.rows[place] for place in (*one.rows, *(beaten.row for beaten in one.dominated))]
        assert len({(each.runtime, each.contest) for each in there}) == 1
        for place in one.rows:
            assert not any(beats(point, coordinates(found.rows[place])) for point in map(coordinates, there))


def test_less_is_better_where_the_metric_is_an_error() -> None:
    small = entry(SMALL, "small", evaluations=(evaluation(0.2, metric="mae"),), measurements=(measurement(2.0),))
    found = comparison_of(table(baseline(evaluations=(evaluation(0.3, metric="mae"),)), small))
    (one,) = found.pareto
    assert (one.rows, one.objectives[0].direction) == ((1,), "minimise")


def advice(*candidates: tuple[float, float | None, Verdict | None, int]) -> Comparison:
    """Candidates by latency, speed-up, verdict and size beside a baseline of 2 ms and 4 MB."""
    made = [
        entry(
            UUID(int=10 + number),
            f"m{number}",
            size_bytes=size,
            evaluations=(evaluation(0.895, drop=0.005, verdict=verdict),),
            measurements=(measurement(median, speedup=speedup),),
        )
        for number, (median, speedup, verdict, size) in enumerate(candidates)
    ]
    return comparison_of(table(baseline(), *made))


@pytest.mark.parametrize(
    ("candidates", "row", "reason", "words"),
    [
        ([(1.0, 2.0, MET, 1_000_000), (0.5, 4.0, NOT_MET, 900_000)], 1, "fastest_that_met", "Take m0: 2.00×"),  # noqa: RUF001
        ([(1.0, 2.0, MET, 10), (0.8, 2.5, MET, 4_000_000)], 2, "fastest_that_met", "Take m1"),
        ([(2.0, 1.01, MET, 1_000_000)], 1, "smallest_that_met", "for its size: 25 %"),
        ([(2.6, 0.8, MET, 4_000_000)], 0, "baseline", "Keep resnet"),
        ([(0.5, 4.0, NOT_MET, 1_000_000)], None, "none_met", "m0 did not meet its contract"),
        ([(0.5, 4.0, NOT_MET, 1), (0.4, 5.0, NOT_MET, 1)], None, "none_met", "m0 and m1 did not meet their contract"),
        ([(0.5, 4.0, None, 1_000_000)], None, "no_contract", "The fastest is m0: 4.00×"),  # noqa: RUF001
    ],
)
def test_advice(candidates: list, row: int | None, reason: str, words: str) -> None:
    found = advice(*candidates).advice
    assert (found.row, found.reason) == (row, reason)
    assert words in found.headline
    assert found.headline.count("\n") == 0


def test_a_baseline_that_is_faster_on_another_runtime_is_kept() -> None:
    small = entry(
        SMALL,
        "small",
        size_bytes=4_000_000,
        evaluations=(evaluation(0.895, drop=0.005, verdict=MET),),
        measurements=(measurement(1.0, speedup=2.0),),
    )
    found = comparison_of(
        table(baseline(measurements=(measurement(2.0), measurement(0.4, runtime=OPENVINO))), small)
    ).advice
    assert (found.row, found.headline[:38]) == (1, f"Keep resnet on {OPENVINO}: no"[:38])


def test_a_model_that_met_its_contract_without_a_speed_is_taken_for_its_size() -> None:
    verdict = Verdict(outcome="met", contract=Contract(), explanation="Met.")
    small = entry(SMALL, "small", evaluations=(evaluation(0.9, drop=0.0, verdict=verdict),))
    found = comparison_of(table(baseline(measurements=()), small)).advice
    assert (found.row, found.reason) == (1, "smallest_that_met")
    assert "its speed was not measured" in found.headline
