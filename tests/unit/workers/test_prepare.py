"""What the engine is asked for a spec."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from accel.request import BenchmarkRequest, CompressRequest, EvaluateRequest
from accel.sandbox import Limits
from store.errors import NotFound
from store.ids import new_id
from store.specs import adapter
from tests.stack import Stack
from workers.prepare import WorkRequest, prepare

LIMITS = Limits(memory_bytes=1 << 30)


def prepared(store: Stack, folder: Path, **spec: object) -> WorkRequest:
    with store.database.read() as session:
        return prepare(adapter.validate_python(spec), session, store.files, folder, LIMITS)


def test_a_compression_names_files_and_one_result_a_step(
    store: Stack, model_id: UUID, dataset_id: UUID, tmp_path: Path
) -> None:
    steps = [{"technique": "optimize_graph"}, {"technique": "quantize_static"}]
    request = prepared(
        store,
        tmp_path,
        kind="compress",
        model_id=model_id,
        dataset_id=dataset_id,
        steps=steps,
        seed=7,
        contract={"max_drop": 0.1},
    )
    assert isinstance(request, CompressRequest)
    assert (request.workspace, request.limits, request.seed) == (tmp_path / "work", LIMITS, 7)
    assert list(request.workspace.iterdir()) == []
    assert request.model.model_id == str(model_id)
    assert request.model.path.read_bytes() == (store.folder / "tiny.onnx").read_bytes()
    assert request.dataset is not None
    assert request.dataset.path.is_file()
    assert len({UUID(result) for result in request.result_ids}) == 2
    assert request.contract is not None
    assert request.contract.max_drop == 0.1


def test_a_compression_without_data_has_none(store: Stack, model_id: UUID, tmp_path: Path) -> None:
    request = prepared(
        store, tmp_path, kind="compress", model_id=model_id, steps=[{"technique": "optimize_graph"}], seed=0
    )
    assert isinstance(request, CompressRequest)
    assert request.dataset is None


def test_an_evaluation_has_the_first_model_for_its_baseline(
    store: Stack, model_id: UUID, dataset_id: UUID, tmp_path: Path
) -> None:
    request = prepared(
        store, tmp_path, kind="evaluate", model_ids=[model_id], dataset_id=dataset_id, split="train", batch_size=3
    )
    assert isinstance(request, EvaluateRequest)
    assert request.baseline_id == str(model_id)
    assert (request.split, request.batch_size) == ("train", 3)


def test_a_benchmark_keeps_every_setting(store: Stack, model_id: UUID, tmp_path: Path) -> None:
    request = prepared(
        store,
        tmp_path,
        kind="benchmark",
        model_ids=[model_id],
        runtimes=["onnxruntime:cpu"],
        batch_sizes=[1, 8],
        threads=[1, 2],
        rounds=3,
        seconds_per_round=0.25,
        shapes={"image": [1, 8, 8]},
    )
    assert isinstance(request, BenchmarkRequest)
    assert (request.batch_sizes, request.threads, request.rounds, request.seconds_per_round) == (
        (1, 8),
        (1, 2),
        3,
        0.25,
    )
    assert request.runtimes == ("onnxruntime:cpu",)
    assert request.shapes == {"image": (1, 8, 8)}


def test_a_model_that_is_gone_is_named(store: Stack, tmp_path: Path) -> None:
    gone = new_id()
    with pytest.raises(NotFound, match=str(gone)):
        prepared(store, tmp_path, kind="benchmark", model_ids=[gone])
