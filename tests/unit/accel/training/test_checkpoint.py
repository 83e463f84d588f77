"""The state of a training in one file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from accel.errors import TrainingFailed
from accel.training import checkpoint
from accel.training.checkpoint import Best, Header
from tests.trainings import assembled, classes, normalized, request

ROOT = Path(__file__).parents[4]
OF = {"model": "abc", "settings": "{}"}


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    parts = {
        "weights": {"weight.0": torch.randn(3, 2), "statistic.mean/running": torch.randn(2)},
        "optimizer": {"0.step": torch.tensor(3.0), "0.exp_avg": torch.randn(3, 2, dtype=torch.bfloat16)},
        "best": {},
    }
    header = Header(of=OF, epoch=2, step=5, loss_sum=0.1 + 0.2, best=Best(epochs=1.5, loss=1 / 3, value=None))
    checkpoint.write(path, header, parts)
    found = checkpoint.read(path)
    assert found.header == header
    for part, held in parts.items():
        assert found.part(part).keys() == held.keys()
        assert all(torch.equal(found.part(part)[name], held[name]) for name in held)
    assert [held.name for held in tmp_path.iterdir()] == ["c.safetensors"]


def test_no_half_of_a_state_is_ever_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.write(path, Header(of=OF, epoch=1), {})
    before = path.read_bytes()

    def broken(*given: object) -> None:
        Path(str(given[1])).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", broken)
    with pytest.raises(OSError, match="No space"):
        checkpoint.write(path, Header(of=OF, epoch=2), {})
    assert path.read_bytes() == before


FULL = """
import errno, resource, signal, sys, torch
import subprocess
import sys
from pathlib import Path
from accel.training import checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    checkpoint.write(Path(sys.argv[1]), checkpoint.Header(of={}), {"weights": {"w": torch.ones(1000)}})
except OSError as error:
    print(errno.errorcode[error.errno])
"""


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "c.safetensors")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert answer.stdout.strip() == "EFBIG", answer.stderr


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no state", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_what_is_no_state_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.safetensors"
    path.write_bytes(content)
    with pytest.raises(TrainingFailed, match="The checkpoint cannot be read"):
        checkpoint.read(path)


def test_another_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_file({"a": torch.ones(1)}, path, {"accel.training": '{"epoch": "many"}'})
    with pytest.raises(TrainingFailed, match="The checkpoint cannot be read"):
        checkpoint.read(path)
    checkpoint.write(path, Header(of=OF, format=99), {})
    with pytest.raises(TrainingFailed, match="version 99"):
        checkpoint.read(path)


def test_the_state_of_another_training_is_refused_by_what_differs() -> None:
    checkpoint.check_same(Header(of=OF), dict(OF))
    with pytest.raises(TrainingFailed, match="settings differ"):
        checkpoint.check_same(Header(of=OF), OF | {"settings": "other"})
    with pytest.raises(TrainingFailed, match="teacher differ"):
        checkpoint.check_same(Header(of=OF), OF | {"teacher": "t"})


def test_threads_budget_and_processes_do_not_tell_trainings_apart(tmp_path: Path) -> None:
    data, model = classes(tmp_path / "d.npz"), normalized()
    first = assembled(request(tmp_path, model, data, settings={"budget_seconds": 9})).fit.of
    assert assembled(request(tmp_path, model, data, settings={"threads": 2, "processes": 2})).fit.of == first
    for settings in ({"seed": 1}, {"epochs": 3}, {"batch_size": 31}):
        assert assembled(request(tmp_path, model, data, settings=settings)).fit.of != first
    assert assembled(request(tmp_path, normalized(seed=4), data)).fit.of != first
