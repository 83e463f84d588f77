"""What every runtime of this host promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter

from accel.errors import RuntimeFailed, RuntimeUnavailable
from accel.runtimes.discover import discover
from accel.runtimes.names import RuntimeName, device_queue
from accel.runtimes.onnxruntime import can_run, open_session
from tests import models

FOUND = discover()
AVAILABLE = [runtime.name for runtime in FOUND if runtime.available]


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


@pytest.mark.parametrize("runtime", AVAILABLE)
@pytest.mark.parametrize("name", sorted(models.FACTORY))
def test_it_computes_what_the_reference_does(runtime: str, name: str, tmp_path: Path) -> None:
    proto = models.FACTORY[name]()
    path = models.save(proto, tmp_path / "m.onnx")
    feed = models.inputs_of(proto)
    expected = models.run(proto, feed)
    found = open_session(path, runtime, threads=1).run(feed)
    assert found.keys() == expected.keys()
    for output, reference in expected.items():
        np.testing.assert_allclose(found[output], reference, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("runtime", [found.name for found in FOUND if not found.available] + ["onnxruntime:npu"])
def test_one_that_is_not_there_is_refused_with_what_there_is(runtime: str, tmp_path: Path) -> None:
    path = models.save(models.convnet(), tmp_path / "m.onnx")
    with pytest.raises(RuntimeUnavailable, match=runtime) as caught:
        open_session(path, runtime)
    assert "onnxruntime:cpu" in caught.value.hint


@pytest.mark.parametrize("runtime", AVAILABLE)
def test_a_feed_that_does_not_fit_is_refused_without_local_paths(runtime: str, tmp_path: Path) -> None:
    session = open_session(models.save(models.convnet(), tmp_path / "m.onnx"), runtime)
    with pytest.raises(RuntimeFailed) as caught:
        session.run({"image": np.zeros((1, 3, 8, 8), np.float32)})
    assert str(tmp_path) not in caught.value.message
    assert caught.value.message
