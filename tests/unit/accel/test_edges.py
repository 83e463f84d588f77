"""Requests at the edge: each is answered with a figure that is true, or with a code that says what is wrong.

All go through a child process, so that what it says must also survive the way to its parent.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
from pydantic import ValidationError

from accel.child import call
from accel.errors import EngineFailed
from accel.evaluation.contract import Contract
from accel.events import ResultFile
from accel.report import BenchmarkReport, CompressReport, DatasetSummary, EvaluateReport
from accel.request import (
    BenchmarkRequest,
    CompressRequest,
    DatasetFile,
    EvaluateRequest,
    InspectDatasetRequest,
    InspectModelRequest,
    ModelFile,
)
from accel.techniques import adapter
from tests import hostile, models

ROWS = 20
X = np.random.default_rng(0).standard_normal((ROWS, 16)).astype(np.float32)
Y = np.zeros(ROWS, np.int64)


class Bench:
    """A folder to put files in, and the requests on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = 0

    def workspace(self) -> Path:
        self.runs += 1
        path = self.folder / f"work{self.runs}"
        path.mkdir()
        return path

    def model(self, proto: onnx.ModelProto, name: str = "m") -> ModelFile:
        return ModelFile(model_id=name, path=models.save(proto, self.folder / f"{name}.onnx"))

    def data(self, arrays: dict[str, np.ndarray], spec: dict | None = None) -> DatasetFile:
        path = self.folder / "data.npz"
        np.savez(path, **arrays)
        return DatasetFile.model_validate({"path": path, "spec": spec or {}})

    def evaluate(self, proto: onnx.ModelProto, arrays: dict[str, np.ndarray], *, spec=None, twin=False, **more):
        listed = [self.model(proto)] + ([self.model(proto, "twin")] if twin else [])
        request = EvaluateRequest(
            workspace=self.workspace(),
            models=tuple(listed),
            baseline_id="m",
            dataset=self.data(arrays, spec),
            **more,
        )
        report = call(request, timeout_s=60).report
        assert isinstance(report, EvaluateReport)
        return report

    def compress(
        self, proto: onnx.ModelProto, arrays: dict[str, np.ndarray] | None, *steps: dict, spec=None, **more
    ) -> tuple[CompressReport, tuple[ResultFile, ...]]:
        request = CompressRequest(
            workspace=self.workspace(),
            model=self.model(proto),
            dataset=None if arrays is None else self.data(arrays, spec),
            steps=tuple(adapter.validate_python(step) for step in steps or ({"technique": "optimize_graph"},)),
            result_ids=tuple(f"r{number}" for number in range(len(steps) or 1)),
            **{"measure_speed": False, **more},
        )
        done = call(request, timeout_s=60)
        assert isinstance(done.report, CompressReport)
        return done.report, done.files


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def refused(code: str, says: str, work: Callable[[], object]) -> None:
    with pytest.raises(EngineFailed, match=says) as caught:
        work()
    assert caught.value.code == code


@pytest.mark.parametrize("file", hostile.FILES[:8:3], ids=lambda file: file.name)
def test_hostile_model_through_the_process(bench: Bench, file: hostile.Hostile) -> None:
    path = bench.folder / "h.onnx"
    path.write_bytes(file.make())
    workspace = bench.workspace()
    refused(file.code, ".", lambda: call(InspectModelRequest(workspace=workspace, model=path), timeout_s=30))
    assert not list(workspace.iterdir()), "nothing is left behind"


def test_a_file_that_is_not_there(bench: Bench) -> None:
    request = InspectModelRequest(workspace=bench.workspace(), model=bench.folder / "gone.onnx")
    refused("bad_request", r"'gone\.onnx'", lambda: call(request, timeout_s=30))


def test_a_target_that_does_not_vary_has_no_r2(bench: Bench) -> None:
    arrays = {"x_test": X, "y_test": np.full((ROWS, 1), 2.0)}
    report = bench.evaluate(models.regression(), arrays)
    assert set(report.models[0].metrics) == {"mae", "rmse"}
    refused(
        "bad_dataset", "r2 is no number", lambda: bench.evaluate(models.regression(), arrays, metrics=("mae", "r2"))
    )
    refused(
        "bad_dataset",
        "r2 is no number",
        lambda: bench.compress(models.regression(), arrays, contract=Contract(metric="r2")),
    )


def test_what_is_no_number(bench: Bench) -> None:
    """It is reported and breaks the contract; of a target it is refused."""
    broken = X.copy()
    broken[3] = np.nan
    arrays = {"x_test": broken, "y_test": Y}
    report = bench.evaluate(models.constant_mlp(), arrays, twin=True, contract=Contract(max_drop=0.5))
    baseline, twin = report.models
    assert (baseline.not_finite, twin.not_finite) == (1, 1)
    assert any("no finite number for 1 of 20 samples" in warning for warning in baseline.warnings)
    assert baseline.metrics["accuracy"].value <= 0.95
    assert "log_loss" not in baseline.metrics
    assert twin.against_baseline is not None
    assert twin.against_baseline.verdict is not None
    assert twin.against_baseline.verdict.outcome == "not_met"

    broken[3] = np.inf
    positive = models.linear(np.ones((16, 1), np.float32))
    report = bench.evaluate(positive, {"x_test": broken, "y_test": np.zeros((ROWS, 1))}, twin=True)
    assert [(model.not_finite, model.metrics, model.error) for model in report.models] == [(1, {}, None)] * 2
    assert any("not finite for 1 of 20" in warning for warning in report.models[0].warnings)
    assert report.models[1].against_baseline is not None
    assert report.models[1].against_baseline.drop is None

    unknown = np.full((ROWS, 1), np.nan)
    refused("bad_dataset", "finite", lambda: bench.evaluate(models.regression(), {"x_test": X, "y_test": unknown}))


def test_texts_as_labels(bench: Bench) -> None:
    words = np.array(["cat"] * ROWS)
    for work in (bench.evaluate, bench.compress):
        refused(
            "labels_out_of_range",
            "whole numbers",
            lambda w=work: w(models.constant_mlp(), {"x_test": X, "y_test": words}),
        )
    refused(
        "binding_mismatch",
        "needs numbers",
        lambda: bench.evaluate(models.regression(), {"x_test": X, "y_test": words}, spec={"task": "regression"}),
    )


def test_splits_without_rows(bench: Bench) -> None:
    none = {"x_test": X[:0], "y_test": Y[:0]}
    refused("bad_dataset", "no rows", lambda: bench.evaluate(models.constant_mlp(), none))
    refused("bad_dataset", "no rows", lambda: bench.compress(models.constant_mlp(), none))
    refused(
        "bad_dataset",
        "no rows",
        lambda: bench.compress(
            models.constant_mlp(), {"x": X, "y": Y}, spec={"splits": {"fractions": {"a": 0.5, "b": 0.5}}}
        ),
    )
    # With an empty train, test is divided between calibrating, choosing and judging; the report says so.
    arrays = {"x_train": X[:0], "y_train": Y[:0], "x_test": X, "y_test": Y}
    report, _ = bench.compress(models.constant_mlp(), arrays, {"technique": "quantize_static"})
    assert any("one split, `test`" in note for note in report.steps[0].notes)


def test_agreement_is_with_the_baseline_not_with_the_labels(bench: Bench) -> None:
    """Labels that are all wrong do not matter to a model that says what its baseline says."""
    proto = models.constant_mlp()
    (scores,) = models.run(proto, {"x": X}).values()
    wrong = (scores.argmax(1) + 1) % models.CLASSES
    contract = Contract(metric="agreement", max_drop=0.2)
    report = bench.evaluate(proto, {"x_test": X, "y_test": wrong}, twin=True, contract=contract, metrics=("agreement",))
    twin = report.models[1]
    assert [model.metrics["agreement"].value for model in report.models] == [1, 1]
    assert twin.against_baseline is not None
    assert twin.against_baseline.drop.value == 0
    assert twin.against_baseline.verdict is not None
    assert twin.against_baseline.verdict.outcome == "met"


@pytest.mark.parametrize("labelled", [True, False])
def test_a_contract_on_agreement_is_judged_with_and_without_labels(bench: Bench, labelled: bool) -> None:
    x = np.random.default_rng(1).standard_normal((300, 16)).astype(np.float32)
    arrays = {"x_test": x, "y_test": np.zeros(300, np.int64)} if labelled else {"x_test": x}
    contract = Contract(metric="agreement", max_drop=0.1)
    report, _ = bench.compress(models.constant_mlp(), arrays, {"technique": "quantize_dynamic"}, contract=contract)
    assert report.verdict is not None
    assert report.verdict.outcome == "met", report.verdict.explanation
    assert report.comparison.metric == "agreement"
    assert report.comparison.parent_metric is not None
    assert report.comparison.parent_metric.value == 1
    assert report.comparison.result_metric is not None
    assert report.comparison.result_metric.value == pytest.approx(report.comparison.agreement)


def test_zero_flips_on_few_samples_prove_nothing(bench: Bench) -> None:
    report = bench.evaluate(
        models.constant_mlp(), {"x_test": X, "y_test": Y}, twin=True, contract=Contract(max_drop=0.01)
    )
    against = report.models[1].against_baseline
    assert against is not None
    assert (against.flips, against.p_value) == (0, 1.0)
    assert against.verdict is not None
    assert against.verdict.outcome == "inconclusive"
    assert (against.verdict.samples_needed or 0) > ROWS


def test_a_contract_that_is_broken_is_said(bench: Bench) -> None:
    """The result is handed out all the same: the verdict is the answer."""
    proto = models.regression()
    (y,) = models.run(proto, {"x": X}).values()
    report, files = bench.compress(
        proto,
        {"x_test": X, "y_test": y},
        {"technique": "quantize_dynamic", "per_channel": False},
        contract=Contract(metric="rmse", max_drop=0),
    )
    assert report.verdict is not None
    assert report.verdict.outcome == "not_met"
    assert files[0].path.exists()


def test_a_result_whose_values_overflow_is_broken(bench: Bench) -> None:
    """Inputs beyond 65,504 are infinite in 16 bits: what the original computes, the result does not."""
    refused(
        "result_broken",
        "convert_float16 .*not finite",
        lambda: bench.compress(
            models.linear(np.ones((16, 3), np.float32)),
            {"x_test": np.full((ROWS, 16), 1e6, np.float32)},
            {"technique": "convert_float16", "keep_io_types": False},
        ),
    )


def test_half_floats_at_the_door_are_compared_too(bench: Bench) -> None:
    """A result whose inputs are of another float type is fed in that type."""
    report, files = bench.compress(
        models.constant_mlp(), {"x_test": X, "y_test": Y}, {"technique": "convert_float16", "keep_io_types": False}
    )
    assert [port.dtype for port in files[0].summary.inputs] == ["float16"]
    assert 0 < report.comparison.max_abs_difference < 0.1


def test_infinity_that_was_there_before_is_no_break(bench: Bench) -> None:
    """A mask of minus infinity is what some models put out; it is compared where both are finite."""
    x = X.copy()
    x[3] = np.inf
    report, _ = bench.compress(models.linear(np.ones((16, 2), np.float32)), {"x_test": x})
    assert report.comparison.max_abs_difference == 0


def test_a_quantized_result_comes_with_its_speed(bench: Bench) -> None:
    arrays = {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}
    report, _ = bench.compress(models.constant_mlp(), arrays, {"technique": "quantize_static"}, measure_speed=True)
    found = report.comparison.speedup
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low <= found.value <= found.high
    slower = [warning for warning in report.comparison.warnings if warning.startswith("The result is slower")]
    assert bool(slower) == (found.high < 1)
    assert all("keep the original" in warning for warning in slower)
    report, _ = bench.compress(models.constant_mlp(), arrays, {"technique": "optimize_graph"}, measure_speed=True)
    assert report.comparison.speedup is None


def test_a_step_keeps_its_own_contract(bench: Bench) -> None:
    arrays = {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}
    step = {"technique": "quantize_static", "contract": {"metric": "agreement", "max_drop": 0.5}}
    report, _ = bench.compress(models.constant_mlp(), arrays, step)
    verdict = report.steps[0].verdict
    assert verdict is not None
    assert verdict.contract.max_drop == 0.5
    assert verdict.outcome == "met"
    assert report.verdict is None
    refused("dataset_required", "contract is judged on data", lambda: bench.compress(models.constant_mlp(), None, step))


@pytest.mark.parametrize(
    "technique", ["quantize_dynamic", "quantize_weights", "quantize_fixed_point", "quantize_static"]
)
def test_every_quantizing_step_takes_a_contract_and_says_what_would_lose_less(bench: Bench, technique: str) -> None:
    chance = np.random.default_rng(8)
    features = chance.standard_normal((400, 16)).astype(np.float32)
    (scores,) = models.run(models.constant_mlp(), {"x": features}).values()
    arrays = {"x_train": features[:100], "x_test": features[100:]}
    arrays |= {"y_train": scores[:100].argmax(1), "y_test": scores[100:].argmax(1)}
    bits = {"quantize_weights": {"bits": 2, "method": "nearest"}, "quantize_fixed_point": {"fraction_bits": 0}}
    harsh = {"quantize_static": {"weight_bits": 2, "keep_snr_db": None}} | bits
    step = {"technique": technique, **harsh.get(technique, {}), "contract": {"metric": "agreement", "max_drop": 0.0001}}
    report, _ = bench.compress(models.constant_mlp(), arrays, step)
    verdict = report.steps[0].verdict
    assert verdict is not None
    lost = [note for note in report.steps[0].notes if "would lose less" in note]
    assert bool(lost) == (verdict.outcome == "not_met")
    if technique in bits:
        assert verdict.outcome == "not_met"
        assert '"exclude": [' in lost[0]


def test_compressing_twice_gives_the_same_bytes_and_figures(bench: Bench) -> None:
    arrays = {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y}
    steps = ({"technique": "optimize_graph"}, {"technique": "quantize_static", "samples": 8})
    runs = [bench.compress(models.constant_mlp(), arrays, *steps, seed=3) for _ in range(2)]
    assert runs[0][0].comparison == runs[1][0].comparison
    for first, second in zip(runs[0][1], runs[1][1], strict=True):
        assert first.path.read_bytes() == second.path.read_bytes()
        assert first.path != second.path


def test_requests_that_contradict_themselves(bench: Bench) -> None:
    model, step = bench.model(models.linear(np.ones((2, 2), np.float32))), adapter.validate_python(
        {"technique": "optimize_graph"}
    )  # fmt: skip
    for names in (("a", "b"), (), ("../a",), ("/a",), (".",), ("a\n",), ("a/b",)):
        with pytest.raises(ValidationError):
            CompressRequest(model=model, steps=(step,), result_ids=names)
    with pytest.raises(ValidationError, match="each another"):
        CompressRequest(model=model, steps=(step, step), result_ids=("a", "a"))
    with pytest.raises(ValidationError, match="baseline_id"):
        BenchmarkRequest(models=(model,), baseline_id="other")
    with pytest.raises(ValidationError, match="baseline_id"):
        EvaluateRequest(models=(model,), baseline_id="other", dataset=DatasetFile(path=Path("d.npz")))


def wild(code_point: int) -> np.ndarray:
    """A text that numpy holds although its first character is none."""
    codes = np.array(["ab", "cd"]).view(np.uint32).copy()
    codes[0] = code_point
    return codes.view("<U2")


@pytest.mark.parametrize("code_point", [0xD800, 0x110000, 0x7FFFFFFF, 0xFFFFFFFF], ids=hex)
def test_class_names_that_are_no_text(bench: Bench, code_point: int) -> None:
    data = bench.data({"x_test": X, "y_test": Y, "class_names": wild(code_point)})
    request = InspectDatasetRequest(workspace=bench.workspace(), dataset=data)
    refused("bad_dataset", "class_names", lambda: call(request, timeout_s=30))


def test_class_names_of_any_language_pass(bench: Bench) -> None:
    names = ("Straße", "猫", "🐈", "")
    data = bench.data({"x_test": X, "y_test": Y, "class_names": np.array(names)})
    report = call(InspectDatasetRequest(workspace=bench.workspace(), dataset=data), timeout_s=30).report
    assert isinstance(report, DatasetSummary)
    assert report.class_names == names


def test_a_benchmark_survives_the_way_to_its_parent(bench: Bench) -> None:
    """A candidate that cannot run the shapes is reported; of the others every sample is in the file."""
    request = BenchmarkRequest(
        workspace=bench.workspace(),
        models=(bench.model(models.convnet()), bench.model(models.embedding(), "tokens")),
        baseline_id="m",
        runtimes=("onnxruntime:cpu",),
        starts=2,
        rounds=3,
        seconds_per_round=0.01,
        shapes={"ids": (1, 7)},
    )
    done = call(request, timeout_s=60)
    report = done.report
    assert isinstance(report, BenchmarkReport)
    first, second = report.measurements
    assert first.error is None
    assert first.latency_ms is not None
    samples = pl.read_parquet(next(one.path for one in done.attachments if one.name == report.samples))
    assert first.latency_ms.count == len(samples.filter(pl.col("phase") == "measured", pl.col("model_id") == "m"))
    assert second.error
    assert second.latency_ms is second.speedup is None


def test_class_scores_may_have_axes_of_size_1_behind_them(bench: Bench) -> None:
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["flat"]),
        onnx.helper.make_node("Unsqueeze", ["flat", "axes"], ["scores"]),
    ]
    weights = {"w": np.eye(16, 3, dtype=np.float32), "axes": np.array([2, 3])}
    shapes = ([models._value("x", ["n", 16])], [models._value("scores", ["n", 3, 1, 1])])
    arrays = {"x_test": X, "y_test": X[:, :3].argmax(1)}
    report, _ = bench.compress(models.assemble(nodes, *shapes, weights), arrays, contract=Contract(max_drop=0.5))
    assert report.comparison.metric == "accuracy"
    assert report.verdict is not None
    assert report.verdict.outcome == "met"


def test_an_output_without_rows_is_compared_whole(bench: Bench) -> None:
    """A loss beside the scores, and a state whose first axis is no batch."""
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["scores"]),
        onnx.helper.make_node("ReduceMean", ["scores"], ["loss"], keepdims=0),
        onnx.helper.make_node("Expand", ["scores", "shape"], ["state"]),
    ]
    weights = {"w": np.eye(16, 3, dtype=np.float32), "shape": np.array([2, 1, 1])}
    outputs = [
        models._value(name, shape) for name, shape in (("scores", ["n", 3]), ("loss", []), ("state", [2, "n", 3]))
    ]
    proto = models.assemble(nodes, [models._value("x", ["n", 16])], outputs, weights)
    report, _ = bench.compress(proto, {"x_test": X, "y_test": X[:, :3].argmax(1)}, {"technique": "convert_float16"})
    assert report.comparison.agreement == 1
    assert 0 < report.comparison.max_abs_difference < 0.01
