"""Names and plug-ins of runtimes: real libraries, found where an operator or a package puts them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from pydantic import TypeAdapter

from accel.benchmark.run import benchmark, usable
from accel.child import call
from accel.errors import RuntimeUnavailable
from accel.report import BenchmarkReport, HostSummary
from accel.request import BenchmarkRequest, DescribeHostRequest, ModelFile
from accel.runtimes import torch as pytorch
from accel.runtimes.discover import discover, measured_unasked
from accel.runtimes.names import RuntimeName, device_queue, runtime_of
from accel.runtimes.plugins import GROUP, SETTING, configured, folders, plugins
from accel.runtimes.providers import Provider, provider_of, providers
from accel.runtimes.sessions import can_run, open_session
from tests import models

OPENVINO = "OpenVINOExecutionProvider"
NAME: TypeAdapter[str] = TypeAdapter(RuntimeName)


def libc(folder: Path) -> Path:
    """A shared library that is no plug-in."""
    import _ctypes

    return Path(shutil.copy(_ctypes.__file__, folder / "libother.so"))


def openvino() -> str:
    return str(pytest.importorskip("onnxruntime_ep_openvino").get_library_path())


def by_name(found: tuple[Provider, ...]) -> dict[str, Provider]:
    assert len({one.runtime for one in found}) == len(found)
    return {one.runtime: one for one in found}


@pytest.mark.parametrize(
    ("provider", "runtime"),
    [
        ("CPUExecutionProvider", "onnxruntime:cpu"),
        (OPENVINO, "onnxruntime:openvino"),
        ("CUDAExecutionProvider", "onnxruntime:cuda"),
        ("TensorrtExecutionProvider", "onnxruntime:tensorrt"),
        ("NvTensorRTRTXExecutionProvider", "onnxruntime:tensorrt"),
        ("QNNExecutionProvider", "onnxruntime:qnn"),
        ("WebGpuExecutionProvider", "onnxruntime:webgpu"),
        ("My-Own", "onnxruntime:my_own"),
    ],
)
def test_a_provider_gives_its_runtime_a_name(provider: str, runtime: str) -> None:
    assert runtime_of(provider) == runtime


@given(st.text())
def test_whatever_a_provider_is_called_its_runtime_has_a_name_that_requests_can_use(provider: str) -> None:
    assert NAME.validate_python(runtime_of(provider)) == runtime_of(provider)


def test_what_runs_on_cuda_is_for_workers_that_have_it() -> None:
    assert {device_queue(name) for name in ("onnxruntime:cuda", "onnxruntime:tensorrt", "torch:cuda")} == {"cuda"}
    assert {device_queue(name) for name in ("onnxruntime:cpu", "onnxruntime:webgpu", "torch:cpu")} == {"cpu"}


def test_a_setting_that_is_no_list_of_paths_says_so() -> None:
    good, bare, relative = configured("One=/a/b.so, two ,Three=b.so,,")
    assert (good.provider, good.library, good.reason) == ("One", "/a/b.so", "")
    for bad in (bare, relative):
        assert not bad.library
        assert SETTING in bad.reason
    listed = by_name(providers({SETTING: "two"}))["onnxruntime:two"]
    assert SETTING in listed.reason


def test_folders_of_libraries_are_readable_but_never_the_root(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "lib.so").touch()
    (tmp_path / "lib.so").symlink_to(real / "lib.so")
    found = folders({SETTING: f"A={tmp_path / 'lib.so'},B=/lib.so"})
    assert set(found) == {tmp_path, real.resolve(), Path("/lib.so")}


def test_a_library_that_is_no_plug_in_is_listed_with_the_reason(tmp_path: Path) -> None:
    setting = f"Other={libc(tmp_path)},Gone={tmp_path / 'gone.so'}"
    found = by_name(providers({SETTING: setting}))
    assert "CreateEpFactories" in found["onnxruntime:other"].reason
    assert "gone.so" in found["onnxruntime:gone"].reason
    assert str(tmp_path) not in found["onnxruntime:gone"].reason
    assert not found["onnxruntime:cpu"].reason
    asked = provider_of("onnxruntime:other", {SETTING: setting})
    assert asked is not None
    assert "CreateEpFactories" in asked.reason


def test_the_setting_comes_before_the_package(tmp_path: Path) -> None:
    path = openvino()
    by_package = by_name(providers({}))["onnxruntime:openvino"]
    by_setting = by_name(providers({SETTING: f"{OPENVINO}={path}"}))["onnxruntime:openvino"]
    assert by_setting.reason == by_package.reason  # the same library; whether it finds a device depends on the host
    broken = plugins({SETTING: f"{OPENVINO}={tmp_path / 'gone.so'}"})
    assert [one.library for one in broken if one.provider == OPENVINO] == [str(tmp_path / "gone.so")]


def test_packages_register_by_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "my_provider-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-provider\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        f"[{GROUP}]\n{OPENVINO} = my_provider:path\nMine = my_provider:library\nFaulty = my_provider:fail\n"
    )
    (tmp_path / "my_provider.py").write_text(
        f"def path():\n    return {openvino()!r}\n"
        f"def library():\n    return {str(libc(tmp_path))!r}\n"
        "def fail():\n    raise RuntimeError('no licence')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    asked = {plugin.provider: plugin for plugin in plugins({})}
    assert asked[OPENVINO].version == "1.2"
    found = by_name(providers({}))
    assert "CreateEpFactories" in found["onnxruntime:mine"].reason
    assert "no licence" in found["onnxruntime:faulty"].reason
    assert found["onnxruntime:mine"].version == "1.2"
    assert "onnxruntime:openvino" in found


def test_nothing_that_computes_elsewhere_is_a_runtime_of_this_host() -> None:
    assert "onnxruntime:azure" not in {runtime.name for runtime in discover()}


def test_pytorch_is_found_without_being_imported() -> None:
    program = (
        "import sys; from accel.runtimes.discover import discover;"
        "print(*[found.name for found in discover() if found.available], 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *available, imported = run.stdout.split()
    assert "torch:cpu" in available
    assert imported == "False"


def test_cuda_is_there_where_pytorch_and_the_host_have_it() -> None:
    torch = pytest.importorskip("torch")
    (found,) = (runtime for runtime in discover() if runtime.name == "torch:cuda")
    assert found.available == torch.cuda.is_available()
    assert found.available or "CUDA" in found.reason or "GPU" in found.reason


def test_nothing_is_compiled_where_there_is_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {runtime.name: runtime for runtime in discover()}
    assert found["torch:cpu"].available
    assert not found["torch:cpu_compiled"].available
    assert "C++ compiler" in found["torch:cpu_compiled"].reason
    assert can_run(tmp_path / "m.onnx", "torch:cpu_compiled").startswith("torch:cpu_compiled cannot be used")


def test_pytorch_is_measured_only_where_it_is_named() -> None:
    assert usable(None) == list(measured_unasked())
    assert not [name for name in measured_unasked() if name.startswith("torch")]
    assert usable(("torch:cpu",)) == ["torch:cpu"]
    with pytest.raises(RuntimeUnavailable, match="torch:npu"):
        usable(("torch:cpu", "torch:npu"))


def test_pytorch_is_measured_beside_onnx_runtime(tmp_path: Path) -> None:
    model = ModelFile(model_id="m", path=models.save(models.convnet(), tmp_path / "m.onnx"))
    request = BenchmarkRequest(
        workspace=tmp_path,
        models=(model,),
        baseline_id="m",
        runtimes=("onnxruntime:cpu", "torch:cpu"),
        starts=1,
        rounds=2,
        seconds_per_round=0.01,
    )
    report = benchmark(request, lambda *_: None).report
    assert isinstance(report, BenchmarkReport)
    (first, second) = report.measurements
    assert (first.error, second.error) == (None, None)
    assert second.runtime == "torch:cpu"
    assert second.latency_ms is not None
    assert second.speedup_over_reference is not None
    assert second.profile is None  # it has no profiler
    assert first.profile is not None


def test_threads_of_pytorch_are_those_that_were_asked_for(tmp_path: Path) -> None:
    import torch

    path, before = models.save(models.convnet(), tmp_path / "m.onnx"), torch.get_num_threads()
    try:
        for threads in (2, 1):
            pytorch.open_session(path, "torch:cpu", threads=threads)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_an_operator_that_pytorch_lacks_is_an_answer(tmp_path: Path) -> None:
    node = helper.make_node("StringConcat", ["text", "text"], ["twice"], "join")
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.STRING, ["n"]) for name in ("text", "twice")]
    path = models.save(models.assemble([node], ports[:1], ports[1:], opset=20), tmp_path / "m.onnx")
    assert can_run(path, "onnxruntime:cpu") == ""
    said = can_run(path, "torch:cpu")
    assert said.startswith("torch:cpu could not load the model: The node 'join' (StringConcat)")


def test_what_must_not_be_written_to_is_taken_all_the_same(tmp_path: Path) -> None:
    session = open_session(models.save(models.convnet(), tmp_path / "m.onnx"), "torch:cpu")
    feed = models.inputs_of(models.convnet())
    expected = session.run(feed)["scores"]
    image = feed["image"][::-1]
    image.flags.writeable = False
    np.testing.assert_allclose(session.run({"image": image})["scores"], expected[::-1], rtol=1e-5, atol=1e-6)


def test_the_setting_reaches_the_confined_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = libc(tmp_path)
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    monkeypatch.setenv(SETTING, f"Other={library}")
    report = call(DescribeHostRequest(workspace=workspace), timeout_s=60).report
    assert isinstance(report, HostSummary)
    (found,) = (runtime for runtime in report.runtimes if runtime.name == "onnxruntime:other")
    assert not found.available
    assert "CreateEpFactories" in found.reason  # it was read, though the engine may read next to nothing


def test_whether_a_model_runs_is_an_answer_and_no_error(tmp_path: Path) -> None:
    path = models.save(models.convnet(), tmp_path / "m.onnx")
    assert can_run(path, "onnxruntime:cpu") == ""
    text = tmp_path / "text.onnx"
    text.write_text("no model")
    assert "onnxruntime:cpu could not load the model" in can_run(text, "onnxruntime:cpu")
    assert "no such runtime" in can_run(path, "onnxruntime:nothing")
    assert "torch:cpu could not load the model" in can_run(text, "torch:cpu")
    assert "torch:nothing cannot be used" in can_run(path, "torch:nothing")


def test_the_processor_alone_loads_no_plug_in(tmp_path: Path) -> None:
    path = models.save(models.convnet(), tmp_path / "m.onnx")
    program = (
        "import sys, accel; from pathlib import Path; from accel.runtimes.onnxruntime import open_session;"
        f"open_session(Path({str(path)!r}), 'onnxruntime:cpu');"
        "print([name for name in sys.modules if name.startswith('onnxruntime_ep')])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
