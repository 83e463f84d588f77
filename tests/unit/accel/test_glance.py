"""What is said of a result that is slower than its original."""

from __future__ import annotations

import pytest

from accel.benchmark.glance import remarks
from accel.report import Estimate

FASTER, SLOWER, SAME = (Estimate(value=value, low=value - 0.05, high=value + 0.05) for value in (1.5, 0.7, 0.98))


def not_asked() -> dict[str, Estimate]:
    raise AssertionError("other runtimes are measured only where it is needed")


@pytest.mark.parametrize("many", [FASTER, SAME])
def test_nothing_is_said_of_a_result_that_is_not_slower(many: Estimate) -> None:
    assert remarks("onnxruntime:cpu", 2, FASTER, many, 1.0, not_asked) == ()


def test_more_threads_can_turn_a_gain_into_a_loss() -> None:
    (said,) = remarks("onnxruntime:cpu", 4, FASTER, SLOWER, 1.0, not_asked)
    assert said.startswith(
        "With 4 threads the result is slower: 0.70 times as fast as the original, and 1.50 times with one."
    )


def test_a_tiny_model_is_better_kept() -> None:
    (said,) = remarks("onnxruntime:cpu", 2, SLOWER, SLOWER, 0.012, not_asked)
    assert "12 microseconds" in said


@pytest.mark.parametrize(
    ("there", "advice"), [(FASTER, "faster on other (1.50 times): run it there"), (SLOWER, "Run the original")]
)
def test_another_runtime_is_recommended_where_it_is_faster(there: Estimate, advice: str) -> None:
    (said,) = remarks("onnxruntime:cpu", 2, SLOWER, FASTER, 1.0, lambda: {"other": there})
    assert said.startswith("The result is slower: 0.70 times")
    assert advice in said
