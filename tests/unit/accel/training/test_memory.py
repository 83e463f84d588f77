"""Rows are read as they are needed: memory does not grow with the dataset."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import models
from tests.trainings import request

ROOT = Path(__file__).parents[4]

MEASURED = """
import sys
from accel.request.training import TrainRequest
from accel.training.train import train
asked = TrainRequest.model_validate_json(open(sys.argv[1]).read())
most = 0
def look():
    global most
    (held,) = [int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("RssAnon")]
    most = max(most, held)
from accel.training import loop
steps = loop._Loop._step
def step(self, *given):
    look()
    return steps(self, *given)
loop._Loop._step = step
train(asked, lambda *_: None)
print(most)
"""


def most_mib(folder: Path, rows: int) -> int:
    """The most memory in MiB, at any step of an epoch."""
    data = folder / f"{rows}.npz"
    x = np.lib.format.open_memmap(folder / "x.npy", mode="w+", dtype=np.float32, shape=(rows, 1024))
    x[:] = np.linspace(0, 1, 1024, dtype=np.float32)
    np.savez(data, x_train=x, y_train=np.arange(rows) % 4)
    del x
    asked = request(
        folder,
        models.linear(np.ones((1024, 4), np.float32)),
        data,
        settings={"epochs": 1, "batch_size": 256},
        augmentation=[{"augmentation": "mixup"}],
    )
    file = folder / f"{rows}.json"
    file.write_text(asked.model_dump_json())
    answer = subprocess.run(
        [sys.executable, "-c", MEASURED, str(file)], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return int(answer.stdout)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_dataset(tmp_path: Path) -> None:
    """Apart from pages of the file itself, which the system maps as it likes and takes back when it wants them."""
    small, large = most_mib(tmp_path, 10_000), most_mib(tmp_path, 200_000)  # 40 and 800 MiB
    assert large < small + 40
