"""What is refused before any engine runs, and where the error points."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from accel.evaluation.contract import METRICS
from store import jobs
from store.database import Database
from store.errors import BindingMismatch, Contradiction
from store.ids import new_id
from store.specs import adapter
from tests.databases import fresh
from tests.rows import DATASET, a_dataset, a_model, compress


@pytest.fixture
def kept(tmp_path) -> Database:
    made = fresh("sqlite", tmp_path)
    yield made
    made.dispose()


def submit(database: Database, spec: Any) -> None:
    with database.write() as session:
        jobs.submit(session, spec, max_attempts=3)


def evaluate(database: Database, task: str | None = None, **more: Any) -> None:
    summary = DATASET.model_copy(update={"task": task})
    asked = {"model_ids": [a_model(database)], "dataset_id": a_dataset(database, f"{task}", summary), **more}
    submit(database, adapter.validate_python({"kind": "evaluate", **asked}))


def reading(decoder: str) -> dict[str, Any]:
    return {"decoder": {"decoder": decoder}}


@pytest.mark.parametrize(
    ("task", "more", "pointer", "said"),
    [
        (None, {"binding": reading("ctc_greedy"), "metrics": ["accuracy", "f1"]}, "/metrics/1", "f1"),
        (None, {"binding": reading("threshold"), "contract": {"metric": "rmse"}}, "/contract/metric", "decisions"),
        (None, {"binding": reading("embedding"), "metrics": ["accuracy"]}, "/metrics/0", "vectors"),
        (None, {"metrics": ["f1"]}, "/metrics/0", "a class for each sample or values"),
        ("classification", {"metrics": ["rmse"]}, "/metrics/0", "classification"),
        ("regression", {"contract": {}}, "/contract/metric", "regression"),
    ],
)
def test_a_metric_that_does_not_apply_is_refused(
    kept: Database, task: str | None, more: dict[str, Any], pointer: str, said: str
) -> None:
    with pytest.raises(BindingMismatch, match=said) as caught:
        evaluate(kept, task, **more)
    assert caught.value.pointer == pointer
    assert caught.value.hint.startswith("Use ")


def test_the_hint_names_the_decoder_that_would_do(kept: Database) -> None:
    with pytest.raises(BindingMismatch) as caught:
        evaluate(kept, metrics=["exact_match"])
    assert '{"decoder": {"decoder": "threshold"}}' in caught.value.hint


@pytest.mark.parametrize("decoder", ["ctc_greedy", "threshold", "embedding"])
def test_metrics_of_a_decoder_are_taken(kept: Database, decoder: str) -> None:
    evaluate(kept, "classification", binding=reading(decoder), metrics=METRICS[decoder])


def test_metrics_of_a_task_are_taken(kept: Database) -> None:
    evaluate(kept, "classification", metrics=METRICS["classes"])
    evaluate(kept, "regression", metrics=METRICS["values"])
    evaluate(kept, None, metrics=["rmse", "accuracy"])


def test_contracts_of_a_recipe_are_looked_at(kept: Database) -> None:
    model_id, dataset_id = a_model(kept), a_dataset(kept)
    steps = [{"technique": "optimize_graph"}, {"technique": "quantize_static", "contract": {"metric": "cosine"}}]
    with pytest.raises(BindingMismatch) as caught:
        submit(kept, compress(model_id, dataset_id=dataset_id, steps=steps))
    assert caught.value.pointer == "/steps/1/contract/metric"
    submit(kept, compress(model_id, dataset_id=dataset_id, steps=steps, binding=reading("embedding")))


def test_a_benchmark_must_be_able_to_end_before_its_deadline(kept: Database) -> None:
    model_id = a_model(kept)

    def benchmark(**more: Any) -> None:
        submit(kept, adapter.validate_python({"kind": "benchmark", "model_ids": [model_id], **more}))

    benchmark(budget_seconds=30, deadline_seconds=30)
    benchmark(deadline_seconds=5, preflight=True)
    with pytest.raises(Contradiction, match=r"budget_seconds is 60, .* deadline_seconds") as caught:
        benchmark(deadline_seconds=30)
    assert caught.value.pointer == "/deadline_seconds"
    assert "deadline_seconds of 120 or more, or budget_seconds of 30 or less" in caught.value.hint
    with pytest.raises(Contradiction, match="64 settings"):
        benchmark(batch_sizes=list(range(1, 9)), threads=list(range(1, 9)))


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"scenario": "server"}, "bound_ms"),
        ({"bound_ms": 3}, "bound_ms"),
        ({"scenario": "server", "bound_ms": 0}, "bound_ms"),
        ({"instances": [2]}, "instances"),
        ({"scenario": "offline", "instances": [2, 2]}, "instances"),
        ({"threads": [1, 1]}, "threads"),
        ({"runtimes": ["torch:cpu", "torch:cpu"]}, "runtimes"),
        ({"baseline_id": str(new_id())}, "baseline_id"),
    ],
)
def test_fields_that_do_not_go_together_are_pointed_to(wrong: dict[str, Any], pointer: str) -> None:
    with pytest.raises(ValidationError) as caught:
        adapter.validate_python({"kind": "benchmark", "model_ids": [str(new_id())], **wrong})
    (error,) = caught.value.errors()
    assert error["loc"][1] == pointer


@pytest.mark.parametrize(
    "twice", [{"metrics": ["accuracy"] * 2}, {"corruptions": [{"corruption": "blur", "severity": 2}] * 2}]
)
def test_what_is_asked_twice_is_refused(twice: dict[str, Any]) -> None:
    asked = {"kind": "evaluate", "model_ids": [str(new_id())], "dataset_id": str(new_id()), **twice}
    with pytest.raises(ValidationError, match="twice"):
        adapter.validate_python(asked)
