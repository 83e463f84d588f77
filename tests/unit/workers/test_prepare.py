"""What the engine is asked for a spec."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from accel.report import EvaluatedModel, EvaluateReport, SplitsUsed, StepReport
from accel.request import BenchmarkRequest, CompressRequest, EvaluateRequest
from accel.sandbox import Limits
from store import job_files, leases
from store.errors import NotFound
from store.ids import new_id
from store.job_files import JobFile
from store.leases import Lease, Results
from store.specs import adapter
from tests.models import convnet
from tests.rows import COMPARISON, ENVIRONMENT, REPORT, claimed, results
from tests.stack import Stack
from workers.prepare import WorkRequest, prepare

LIMITS = Limits(memory_bytes=1 << 30)


def prepared(store: Stack, folder: Path, **spec: object) -> WorkRequest:
    with store.database.read() as session:
        return prepare(
            Lease(new_id(), new_id(), 1, adapter.validate_python(spec)), session, store.files, folder, LIMITS
        )


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


def finished(store: Stack, job_id: UUID, model_ids: list[UUID], content: bytes) -> None:
    """Play the worker of an evaluation: one file of predictions, which is that of each model."""
    path = store.folder / "predictions"
    path.write_bytes(content)
    file = JobFile("predictions.npz", "application/x-npz", *store.files.keep(path))
    models = tuple(
        EvaluatedModel(model_id=str(m), runtime="onnxruntime:cpu", samples=1, metrics={}, predictions=file.name)
        for m in model_ids
    )
    report = EvaluateReport(split="test", baseline_id=str(model_ids[0]), models=models, environment=ENVIRONMENT)
    lease = claimed(store.database, job_id)
    with store.database.write() as session:
        leases.finish(session, lease, Results(report, files=(file,)))


def test_what_was_predicted_before_is_given_unless_it_is_not_wanted_or_gone(
    store: Stack, dataset_id: UUID, tmp_path: Path
) -> None:
    first, second, base = (store.model(convnet(seed=seed), f"m{seed}") for seed in (7, 8, 9))
    asked = {"kind": "evaluate", "model_ids": [first, second], "dataset_id": dataset_id}
    before = store.submit("evaluate", model_ids=[base, first], dataset_id=dataset_id)
    finished(store, before, [base, first], b"kept")
    folders = iter([tmp_path / str(number) for number in range(9)])

    def given(**more: object) -> dict[str, bytes | None]:
        folder = next(folders)
        folder.mkdir()
        request = prepared(store, folder, **asked, **more)
        assert isinstance(request, EvaluateRequest)
        assert request.baseline_id == str(more.get("baseline_id", first))
        return {m.model_id: m.predictions and m.predictions.read_bytes() for m in request.models}

    assert given() == {str(first): b"kept", str(second): None}
    assert given(baseline_id=base) == {str(base): b"kept", str(first): b"kept", str(second): None}
    assert given(reuse=False) == {str(first): None, str(second): None}
    assert given(split="train") == {str(first): None, str(second): None}
    newer = store.submit("evaluate", model_ids=[first], dataset_id=dataset_id)
    finished(store, newer, [first], b"newer")
    assert given()[str(first)] == b"newer"
    with store.database.read() as session:
        (file,) = job_files.of_job(session, newer)
    place = store.files.local_path(file.sha256)
    assert place is not None
    place.unlink()
    assert given()[str(first)] is None


def test_choices_by_a_split_are_told(store: Stack, model_id: UUID, dataset_id: UUID, tmp_path: Path) -> None:
    steps = [{"technique": "mixed_precision"}]
    job_id = store.submit("compress", model_id=model_id, dataset_id=dataset_id, steps=steps)
    (made,), lease = results(model_id).models, claimed(store.database, job_id)
    sha256, _ = store.files.keep(store.folder / "tiny.onnx")
    step = StepReport(
        technique="mixed_precision", parameters={}, model_id=str(made.id), parent_id=str(model_id), size_bytes=1,
        seconds=1, peak_memory_bytes=1, comparison=COMPARISON,
    )  # fmt: skip
    splits = SplitsUsed(calibrated_on="train", chosen_by="train", judged_on="test")
    report = REPORT.model_copy(update={"steps": (step,), "splits": splits})
    with store.database.write() as session:
        leases.finish(session, lease, Results(report, models=(replace(made, sha256=sha256),)))
    request = prepared(store, tmp_path, kind="evaluate", model_ids=[model_id, made.id], dataset_id=dataset_id)
    assert isinstance(request, EvaluateRequest)
    assert [model.tuned_on for model in request.models] == [(), ("train",)]


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
