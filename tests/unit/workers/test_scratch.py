"""The folders of runs: removed at their end, or when their process is dead, and never before."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from workers.scratch import run_folder, sweep


def test_a_folder_is_empty_its_own_and_removed_at_the_end(tmp_path: Path) -> None:
    scratch = tmp_path / "not" / "there" / "yet"
    with run_folder(scratch) as first, run_folder(scratch) as second:
        assert first != second
        (first / "work").mkdir()
        (first / "work" / "result.onnx").write_bytes(b"x")
    assert list(scratch.iterdir()) == []


def test_a_folder_is_removed_when_its_run_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), run_folder(tmp_path):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_leaves_living_runs_alone(tmp_path: Path) -> None:
    with run_folder(tmp_path) as folder:
        (folder / "work").mkdir()
        assert sweep(tmp_path) == 0
        assert (folder / "work").is_dir()


def test_a_sweep_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from workers.scratch import run_folder\n"
        "with run_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'work').mkdir(); (folder / 'work' / 'half').write_bytes(b'x' * 1000)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    (tmp_path / "run-killed-before-it-held-its-lock").mkdir()
    (tmp_path / "host.lock").touch()
    assert sweep(tmp_path) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["host.lock"]


def test_a_sweep_of_a_scratch_that_is_not_there_finds_nothing(tmp_path: Path) -> None:
    assert sweep(tmp_path / "nothing") == 0


def test_sweeps_and_runs_at_the_same_time_do_each_other_no_harm(tmp_path: Path) -> None:
    over = threading.Event()
    broken: list[OSError] = []

    def sweeping() -> None:
        try:
            while not over.is_set():
                sweep(tmp_path)
        except OSError as error:
            broken.append(error)

    sweepers = [threading.Thread(target=sweeping) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    try:
        for number in range(300):
            with run_folder(tmp_path) as folder:
                mine = folder / "work"
                mine.mkdir()
                (mine / "file").write_text(str(number))
                assert (mine / "file").read_text() == str(number)
    finally:
        over.set()
        for sweeper in sweepers:
            sweeper.join()
    assert broken == []
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
