"""Where the time of a run goes, by ONNX Runtime's own profiler."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from accel.benchmark.kernel_times import LAYERS, Summary, read, trace
from accel.benchmark.profile import profile
from accel.errors import RuntimeFailed
from accel.report import Profile
from tests import models


def profiled(path: Path, *, write: Path | None = None, **settings: object) -> Profile:
    shapes = settings.get("shapes", {})
    assert isinstance(shapes, dict)
    found = profile(path, "onnxruntime:cpu", threads=1, batch_size=2, shapes=shapes, seed=0, trace=write)
    assert found is not None
    return found


def event(name: str, start: int, duration: int, *, category: str = "Node", operator: str = "Op") -> str:
    arguments = {"op_name": operator, "provider": "P", "node_index": "0", "activation_size": "8", "output_size": "4"}
    return json.dumps({
        "cat": category, "pid": 1, "tid": 2, "dur": duration, "ts": start, "ph": "X", "name": name,
        "args": arguments | {"input_type_shape": [{"float": [1, 2]}]} if category == "Node" else {},
    }) + ",\n"  # fmt: skip


def node(name: str, start: int, duration: int, operator: str = "Op") -> str:
    return event(f"{name}_kernel_time", start, duration, operator=operator)


def executed(start: int, duration: int) -> str:
    return event("SequentialExecutor::Execute", start, duration, category="Session")


def ended(start: int, duration: int) -> str:
    return event("model_run", start, duration, category="Session")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one folder that the engine may write to."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_the_time_of_a_network_is_told_by_operator_and_by_layer(workspace: Path) -> None:
    path = models.save(models.convnet(), workspace.parent / "convnet.onnx")
    found = profiled(path, write=workspace / "trace.json")
    operators = {row.operator: row for row in found.operators}
    assert {"Conv", "MaxPool", "FusedGemm", "Gemm"} <= set(operators)
    assert sum(row.share for row in found.operators) == pytest.approx(1)
    assert sum(row.milliseconds for row in found.operators) <= found.run_ms
    assert 1 <= found.runs <= 20
    assert all(row.provider == "CPUExecutionProvider" and row.calls == 1 for row in found.layers)
    hidden = next(row for row in found.layers if row.operator == "FusedGemm")
    assert hidden.activation_bytes == 2 * (128 + 64) * 4
    assert list(found.layers) == sorted(found.layers, key=lambda row: (-row.milliseconds, row.name))
    assert found.trace == "trace.json"
    assert [file.name for file in workspace.iterdir()] == ["trace.json"]
    events = json.loads((workspace / "trace.json").read_text())["traceEvents"]
    assert sum(part["name"] == "model_run" for part in events) == 3
    assert {row.name for row in found.layers} <= {part["name"] for part in events}


def test_what_a_branch_runs_is_counted_once(workspace: Path) -> None:
    found = profiled(models.save(models.branching(), workspace.parent / "branching.onnx"))
    assert {row.operator for row in found.operators} >= {"If", "Mul", "Gemm"}
    assert sum(row.milliseconds for row in found.operators) <= found.run_ms
    assert found.trace is None
    assert not list(workspace.iterdir())


def test_a_loop_counts_each_call_of_its_body(workspace: Path) -> None:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Sin", ["state"], ["next"], "turn"),
            helper.make_node("Identity", ["go"], ["again"], "same"),
        ],
        "body",
        [value("number", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("state", 1, ["n", 4096])],
        [value("again", TensorProto.BOOL, []), value("next", 1, ["n", 4096])],
    )
    loop = helper.make_node("Loop", ["times", "", "x"], ["y"], "loop", body=body)
    model = models.assemble([loop], [value("x", 1, ["n", 4096])], [value("y", 1, ["n", 4096])], {"times": np.int64(7)})
    found = profiled(models.save(model, workspace.parent / "loop.onnx"))
    calls = {row.operator: row.calls for row in found.operators}
    assert calls["Sin"] == 7
    assert calls["Loop"] == 1
    assert sum(row.milliseconds for row in found.operators) <= found.run_ms
    assert next(row for row in found.layers if row.name == "turn").milliseconds > 0


def test_open_dimensions_get_the_shapes_that_are_given(workspace: Path) -> None:
    path = models.save(models.framewise(), workspace.parent / "framewise.onnx")
    found = profiled(path, shapes={"x": (1, 50, 8)})
    first = next(row for row in found.layers if row.name.startswith("first"))
    assert first.activation_bytes == 50 * (8 + 32) * 4


def test_what_cannot_run_is_said_with_the_reason(workspace: Path) -> None:
    path = models.save(models.convnet(), workspace.parent / "convnet.onnx")
    with pytest.raises(RuntimeFailed, match="could not be profiled: onnxruntime:cpu could not run"):
        profiled(path, shapes={"image": (1, 3, 5, 5)})
    with pytest.raises(RuntimeFailed, match="could not load"):
        profiled(workspace / "missing.onnx")
    assert not list(workspace.iterdir())


def test_a_process_that_dies_is_said(workspace: Path) -> None:
    path = models.save(models.regression(), workspace.parent / "regression.onnx")
    with pytest.raises(RuntimeFailed, match="its process ended with exit code 1"):
        profiled(path, write=workspace / "no such folder" / "trace.json")


def test_other_frameworks_have_no_profile(tmp_path: Path) -> None:
    assert profile(tmp_path, "torch:cpu", threads=1, batch_size=1, shapes={}, seed=0, trace=None) is None


def test_a_node_with_a_sub_graph_counts_without_it() -> None:
    lines = [
        "[\n",
        node("inner", 12, 20), node("deep", 40, 5), executed(39, 8), node("middle", 36, 14, "If"), executed(11, 45),
        node("outer", 10, 50, "Loop"), node("next", 61, 3), executed(9, 60), ended(8, 70),
        "]\n",
    ]  # fmt: skip
    (run,) = read(lines)
    assert {kernel.node: kernel.own_us for kernel in run.kernels} == {
        "inner": 20, "deep": 5, "middle": 9, "outer": 50 - 20 - 14, "next": 3,
    }  # fmt: skip
    assert run.duration_us == 70


def test_lines_that_were_cut_off_and_runs_that_did_not_end_are_left_out() -> None:
    lines = [node("a", 1, 2), ended(0, 4), node("a", 11, 2), ended(10, 4), node("a", 21, 2), '{"cat" : "Node","pi']
    assert len(list(read(lines))) == 2


def test_medians_are_over_runs_and_a_node_that_did_not_run_took_no_time() -> None:
    summary = Summary()
    for run in read([
        node("a", 1, 10), node("b", 20, 1), ended(0, 30),
        node("a", 1, 20), node("a", 30, 4), ended(0, 40),
        node("a", 1, 12), ended(0, 32),
    ]):  # fmt: skip
        summary.add(run)
    found = summary.profile()
    assert found is not None
    assert found.runs == 3
    assert found.run_ms == 0.032
    a, b = found.layers
    assert (a.name, a.milliseconds, a.calls, a.activation_bytes) == ("a", 0.012, 1, 12)
    assert (b.name, b.milliseconds, b.calls) == ("b", 0.0, 0)
    assert Summary().profile() is None


def test_only_the_most_expensive_layers_are_kept() -> None:
    summary = Summary()
    for run in read([*(node(f"n{i}", 100 * i, i) for i in range(LAYERS + 5)), ended(0, 10_000)]):
        summary.add(run)
    found = summary.profile()
    assert found is not None
    assert [row.name for row in found.layers] == [f"n{i}" for i in range(LAYERS + 4, 4, -1)]
    assert found.operators[0].milliseconds == sum(range(LAYERS + 5)) / 1e3


NAMES = ['with "quotes"', "back\\slash", "é/è", "line\nbreak"]


@pytest.mark.parametrize("limit", [100_000, 900, 500, 260, 60])
def test_a_trace_is_bounded_and_keeps_names_and_times(limit: int) -> None:
    lines = [line for start in (0, 1000, 2000, 3000) for line in (
        *(node(name, start + 10 * i, i + 1) for i, name in enumerate(NAMES)), ended(start, 100),
    )]  # fmt: skip
    text = trace(list(read(lines)), limit)
    assert len(text.encode()) <= limit
    events = json.loads(text)["traceEvents"]
    assert {(part["name"], part["dur"]) for part in events} <= {
        *((n, i + 1) for i, n in enumerate(NAMES)),
        ("model_run", 100),
    }
    if limit == 100_000:
        assert sum(part["name"] == "model_run" for part in events) == 3
        assert events[0]["args"]["op_name"] == "Op"
        assert min(part["ts"] for part in events) == 1000


def test_a_trace_of_nothing_is_empty() -> None:
    assert json.loads(trace([]))["traceEvents"] == []


Tree = list["Tree"]
trees: st.SearchStrategy[Tree] = st.recursive(st.just([]), lambda inner: st.lists(inner, max_size=3), max_leaves=12)


@given(st.lists(trees, max_size=4))
def test_own_times_add_up_to_those_of_the_outermost_nodes(forest: list[Tree]) -> None:
    lines: list[str] = []

    def written(tree: Tree, start: int) -> int:
        """Write a node and what runs in it; its duration."""
        now = start + 2
        for inner in tree:
            now += written(inner, now + 1) + 1
        if tree:
            lines.append(executed(start + 1, now - start))
        lines.append(node("n", start, now + 2 - start))
        return now + 2 - start

    now, outermost = 1, 0
    for tree in forest:
        duration = written(tree, now)
        outermost += duration
        now += duration + 1
    lines += [executed(0, now), ended(0, now)]
    (run,) = read(lines)
    assert sum(kernel.own_us for kernel in run.kernels) == outermost


def test_names_that_are_no_plain_text_survive(workspace: Path) -> None:
    model = models.constant_mlp()
    products = [part for part in model.graph.node if part.op_type == "MatMul"]
    for part, name in zip(products, NAMES, strict=False):
        part.name = name
    onnx.save(model, workspace.parent / "odd.onnx")
    assert {row.name for row in profiled(workspace.parent / "odd.onnx").layers} & set(NAMES)
