"""What every runtime of this host promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from accel.errors import RuntimeFailed, RuntimeUnavailable
from accel.runtimes.discover import discover
from accel.runtimes.names import RuntimeName, device_queue
from accel.runtimes.sessions import can_run, open_session
from accel.runtimes.torch import COMPILED
from tests import models

FOUND = discover()
AVAILABLE = [runtime.name for runtime in FOUND if runtime.available]
COMPILES = [
    pytest.mark.slow,  # the compiler takes seconds for each model
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method:DeprecationWarning"),  # of the compiler's own
]
SPARING = [pytest.param(name, marks=COMPILES if name == COMPILED else []) for name in AVAILABLE]


def test_the_processor_is_always_there_and_what_is_not_says_why() -> None:
    assert "onnxruntime:cpu" in AVAILABLE
    assert all(runtime.available or runtime.reason for runtime in FOUND)
    assert len({runtime.name for runtime in FOUND}) == len(FOUND) >= 2


def test_every_one_can_be_asked_for_and_has_a_queue() -> None:
    for runtime in FOUND:
        assert TypeAdapter(RuntimeName).validate_python(runtime.name) == runtime.name
        assert device_queue(runtime.name) in {"cpu", "cuda"}


@pytest.mark.parametrize("runtime", AVAILABLE)
@pytest.mark.parametrize("name", sorted(models.FACTORY))
def test_it_says_that_it_can_run_what_it_runs(runtime: str, name: str, tmp_path: Path) -> None:
    assert can_run(models.save(models.FACTORY[name](), tmp_path / "m.onnx"), runtime) == ""


@pytest.mark.parametrize("runtime", SPARING)
@pytest.mark.parametrize("name", sorted(models.FACTORY))
def test_it_computes_what_the_reference_does(runtime: str, name: str, tmp_path: Path) -> None:
    proto = models.FACTORY[name]()
    path = models.save(proto, tmp_path / "m.onnx")
    feed = models.inputs_of(proto)
    expected = models.run(proto, feed)
    session = open_session(path, runtime, threads=1)
    if (runtime, name) == (COMPILED, "branching"):  # the branch depends on values
        with pytest.raises(RuntimeFailed, match=r"cannot be compiled: The node 'choose' \(If\)"):
            session.run(feed)
        return
    found = session.run(feed)
    assert found.keys() == expected.keys()
    session.prepared(feed)()
    for output, reference in expected.items():
        np.testing.assert_allclose(found[output], reference, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("runtime", [found.name for found in FOUND if not found.available] + ["onnxruntime:npu"])
def test_one_that_is_not_there_is_refused_with_what_there_is(runtime: str, tmp_path: Path) -> None:
    path = models.save(models.convnet(), tmp_path / "m.onnx")
    with pytest.raises(RuntimeUnavailable, match=runtime) as caught:
        open_session(path, runtime)
    assert "onnxruntime:cpu" in caught.value.hint


@pytest.mark.parametrize("runtime", AVAILABLE)
def test_it_says_what_goes_in_and_out(runtime: str, tmp_path: Path) -> None:
    session = open_session(models.save(models.convnet(), tmp_path / "m.onnx"), runtime)
    assert session.runtime == runtime
    assert [(port.name, port.dtype, port.shape) for port in (*session.inputs, *session.outputs)] == [
        ("image", np.float32, ("batch", 1, 8, 8)),
        ("scores", np.float32, ("batch", models.CLASSES)),
    ]


@pytest.mark.parametrize("runtime", AVAILABLE)
@pytest.mark.parametrize(
    "image", [np.zeros((1, 1, 8, 8)), np.zeros((1, 64), np.float32), np.zeros((1, 1, 9, 9), np.float32)]
)
def test_an_input_of_another_type_or_shape_is_refused(runtime: str, image: np.ndarray, tmp_path: Path) -> None:
    session = open_session(models.save(models.convnet(), tmp_path / "m.onnx"), runtime)
    with pytest.raises(RuntimeFailed, match=r"image|\(double\)"):
        session.run({"image": image})


@pytest.mark.parametrize("runtime", AVAILABLE)
def test_a_feed_that_does_not_fit_is_refused_without_local_paths(runtime: str, tmp_path: Path) -> None:
    session = open_session(models.save(models.convnet(), tmp_path / "m.onnx"), runtime)
    with pytest.raises(RuntimeFailed) as caught:
        session.run({"image": np.zeros((1, 3, 8, 8), np.float32)})
    assert str(tmp_path) not in caught.value.message
    assert caught.value.message
