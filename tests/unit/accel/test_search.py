"""The search for the smallest set of layers that must stay in float."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from accel.numerics.search import smallest

NAMES = tuple(f"layer{number}" for number in range(24))
COSTS = st.lists(st.floats(0, 1, allow_subnormal=False), min_size=2, max_size=24)


def additive(costs: dict[str, float]) -> tuple[list[frozenset[str]], object]:
    """A loss that is the sum of what each layer in integers costs, and the list of what was tried."""
    calls: list[frozenset[str]] = []

    def loss(choice: frozenset[str]) -> float:
        calls.append(choice)
        return sum(cost for name, cost in costs.items() if name not in choice)

    return calls, loss


@given(COSTS, st.floats(0, 2))
def test_what_it_says_is_met_is_met_and_nothing_is_tried_twice(values: list[float], bound: float) -> None:
    costs = dict(zip(NAMES, values, strict=False))
    calls, loss = additive(costs)
    ranked = sorted(costs, key=lambda name: -costs[name])
    found = smallest(ranked, loss, bound, budget=1000)  # type: ignore[arg-type]
    assert len(calls) == len(set(calls)) == len(found.tried)
    assert found.met == (found.best.loss <= bound)
    assert all(len(candidate.in_float) < len(costs) for candidate in found.tried), "everything in float is no result"
    if found.met:
        # With a true ranking and losses that add up, no smaller set keeps the bound.
        fewer = frozenset(ranked[: len(found.best.in_float) - 1])
        assert not found.best.in_float or sum(costs[n] for n in costs if n not in fewer) > bound
    else:
        assert found.best.loss == min(candidate.loss for candidate in found.tried)


def test_nothing_stays_where_nothing_must() -> None:
    calls, loss = additive(dict.fromkeys(NAMES, 0.0))
    found = smallest(NAMES, loss, 0.1)  # type: ignore[arg-type]
    assert found.met
    assert found.best.in_float == frozenset()
    assert len(calls) == 1


def test_a_layer_that_the_ranking_overrates_is_given_back() -> None:
    costs = dict.fromkeys(NAMES, 0.0) | {"layer9": 1.0, "layer3": 1.0}
    calls, loss = additive(costs)
    found = smallest(NAMES, loss, 0.5)  # type: ignore[arg-type]
    assert found.best.in_float == {"layer9", "layer3"}
    assert found.met
    assert len(calls) <= len(NAMES), "no trial for each layer of the model"


def test_the_budget_is_kept() -> None:
    calls, loss = additive(dict.fromkeys(NAMES, 1.0))
    found = smallest(NAMES, loss, 3.5, budget=4)  # type: ignore[arg-type]
    assert len(calls) <= 4
    assert len(found.tried) == len(calls)
