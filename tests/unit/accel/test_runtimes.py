"""Names and plug-ins of runtimes: real libraries, found where an operator or a package puts them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from accel.child import call
from accel.report import HostSummary
from accel.request import DescribeHostRequest
from accel.runtimes.discover import discover
from accel.runtimes.names import RuntimeName, device_queue, runtime_of
from accel.runtimes.onnxruntime import can_run
from accel.runtimes.plugins import GROUP, SETTING, configured, folders, plugins
from accel.runtimes.providers import Provider, provider_of, providers
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


def test_pytorch_is_listed_as_not_yet_there() -> None:
    (found,) = (runtime for runtime in discover() if runtime.name.startswith("torch"))
    assert not found.available
    assert "PyTorch" in found.reason


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
    assert "torch:cpu cannot be used" in can_run(path, "torch:cpu")


def test_the_processor_alone_loads_no_plug_in(tmp_path: Path) -> None:
    path = models.save(models.convnet(), tmp_path / "m.onnx")
    program = (
        "import sys, accel; from pathlib import Path; from accel.runtimes.onnxruntime import open_session;"
        f"open_session(Path({str(path)!r}), 'onnxruntime:cpu');"
        "print([name for name in sys.modules if name.startswith('onnxruntime_ep')])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
