"""The file of predictions: what is written comes back, anyone can open it, and one that lies is refused."""

from __future__ import annotations

import io
import json
import tempfile
import tracemalloc
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.data.arrays import read_arrays
from accel.data.binding import Binding, CtcGreedy, Embedding, Threshold
from accel.data.npz import write_npz
from accel.errors import AccelError, BadDataset
from accel.evaluation.kept import Circumstances, Form, KeptPredictions, keep, read_kept
from accel.evaluation.predictions import Classes, Decisions, Embeddings, Predictions, Reading, Sequences, Values

ROWS = 6
NOW = Circumstances(
    model_sha256="00",
    split="test",
    samples=ROWS,
    task="classification",
    binding=Binding(),
    batch_size=32,
    runtime="onnxruntime:cpu",
    libraries={"onnxruntime": "1"},
    cpu="a processor",
)
SCORES = np.random.default_rng(0).random((ROWS, 4)).astype(np.float32)
BEST = SCORES.argmax(1)
KINDS: list[tuple[Reading, Predictions, Predictions | None]] = [
    ("classes", Classes(BEST, np.argsort(-SCORES, 1)[:, :3], SCORES, np.array([2])), Classes(BEST)),
    ("classes", Classes(BEST), None),
    ("values", Values(SCORES.astype(np.float64)), Values(np.ones((ROWS, 4)))),
    (CtcGreedy(), Sequences(np.full((ROWS, 3), -1, np.int32)), Sequences(np.ones((ROWS, 5), np.int32))),
    (Threshold(), Decisions(np.zeros((ROWS, 2), np.uint8), (3, 5), np.ones((ROWS, 15), np.float32)), None),
    (Threshold(at=0.0), Decisions(np.zeros((ROWS, 1), np.uint8), ()), Decisions(np.ones((ROWS, 1), np.uint8), ())),
    (Embedding(), Embeddings(SCORES), None),
    (Embedding(second={}), Embeddings(SCORES, np.ones(ROWS)), Embeddings(None, np.zeros(ROWS))),
]


def written(path: Path, reading: Reading, said: Predictions, labels: Predictions | None, **outputs: np.ndarray) -> Path:
    keep(
        path,
        said,
        labels,
        outputs,
        accel="0",
        reading=reading,
        output="y",
        form=Form.of(SCORES),
        circumstances=NOW,
    )
    return path


def equal(one: Predictions | None, two: Predictions | None) -> bool:
    if one is None or two is None:
        return one is two
    return type(one) is type(two) and all(
        np.array_equal(np.asarray(getattr(one, f.name)), np.asarray(getattr(two, f.name))) for f in fields(one)
    )


@pytest.mark.parametrize(("reading", "said", "labels"), KINDS)
def test_every_kind_comes_back(tmp_path: Path, reading: Reading, said: Predictions, labels: Predictions | None) -> None:
    outputs = {"y/1": SCORES.astype(np.float16), "état": np.arange(3)}
    path = written(tmp_path / "k.npz", reading, said, labels, **outputs)
    found = read_kept(path, tmp_path)
    assert equal(found.said, said)
    assert equal(found.labels, labels)
    assert (found.header.circumstances, found.header.reading) == (NOW, reading)
    assert list(found.outputs) == list(outputs)
    for name, array in outputs.items():
        assert found.outputs[name].dtype == array.dtype
        np.testing.assert_array_equal(found.outputs[name], array)
    opened = np.load(path, allow_pickle=False)
    first = next(getattr(said, f.name) for f in fields(said) if getattr(said, f.name) is not None)
    np.testing.assert_array_equal(opened["prediction"], first)
    assert ("labels" in opened) == (labels is not None)
    once = path.read_bytes()
    assert written(path, reading, said, labels, **outputs).read_bytes() == once
    for array in read_arrays(path):
        assert (array.start + array.header.offset) % 64 == 0


def changed(path: Path, entries: dict[str, Any] | None = None, **arrays: Any) -> Path:
    """The file with other arrays, or with other entries of its header."""
    held = dict(np.load(path))
    if entries is not None:
        held["header"] = np.array(json.dumps(json.loads(str(held["header"])) | entries))
    np.savez(path, **{name: array for name, array in (held | arrays).items() if array is not None})
    return path


LIES: dict[str, dict[str, Any]] = {
    "no header": {"header": None, "kept": np.zeros(1)},
    "a header of bytes": {"arrays": {"header": np.zeros(4, np.uint8)}},
    "a header that is no JSON": {"arrays": {"header": np.array("{")}},
    "unknown entries": {"entries": {"run": "this"}},
    "another format": {"entries": {"format": 2}},
    "a negative number of rows": {"entries": {"circumstances": NOW.model_dump() | {"samples": -1}}},
    "more rows than there are": {"entries": {"circumstances": NOW.model_dump() | {"samples": 10**15}}},
    "an array that is not there": {"entries": {"said": {"best": "nowhere"}}},
    "a field that is not there": {"entries": {"said": {"worst": "prediction"}}},
    "nothing said": {"entries": {"said": {}}},
    "another reading": {"entries": {"reading": "values"}},
    "outputs that are not there": {"entries": {"outputs": ["y", "z"]}},
    "a class that is none": {"arrays": {"prediction": np.full(ROWS, 4)}},
    "a class beyond memory": {"arrays": {"labels": np.full(ROWS, 10**17)}},
    "a class below": {"arrays": {"prediction": np.full(ROWS, -2)}},
    "floats as classes": {"arrays": {"prediction": np.zeros(ROWS)}},
    "fewer rows": {"arrays": {"scores": SCORES[:3]}},
    "rows that are none": {"arrays": {"not_finite": np.array([1, ROWS])}},
    "rows twice": {"arrays": {"not_finite": np.array([1, 1])}},
    "text as an output": {"arrays": {"output_0": np.array(["x"])}},
    "more rows of an output": {"arrays": {"output_0": np.zeros((ROWS + 1, 4))}},
}


@pytest.mark.parametrize("lie", list(LIES))
def test_a_file_that_lies_is_refused(tmp_path: Path, lie: str) -> None:
    path = written(tmp_path / "k.npz", *KINDS[0], y=SCORES)
    if lie == "no header":
        np.savez(path, kept=np.zeros(1))
    else:
        changed(path, LIES[lie].get("entries"), **LIES[lie].get("arrays", {}))
    with pytest.raises(AccelError):
        read_kept(path, tmp_path)


def test_what_is_packed_or_pickled_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "k.npz", *KINDS[0])
    held = dict(np.load(path))
    np.savez_compressed(path, **held)
    with pytest.raises(BadDataset, match="packed"):
        read_kept(path, tmp_path)
    np.savez(path, **(held | {"prediction": np.array([print] * ROWS, object)}))
    with pytest.raises(BadDataset, match="pickles"):
        read_kept(path, tmp_path)
    path.write_bytes(b"\x80\x04.")
    with pytest.raises(BadDataset, match="a pickle"):
        read_kept(path, tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../header.npy", b"")
    with pytest.raises(BadDataset, match="no array"):
        read_kept(path, tmp_path)


with tempfile.TemporaryDirectory() as _folder:
    WHOLE = written(Path(_folder) / "k.npz", *KINDS[0], y=SCORES).read_bytes()


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255), st.booleans())
def test_a_damaged_file_is_refused_or_says_the_same(place: int, bits: int, cut: bool) -> None:
    whole = bytearray(WHOLE)
    whole[place] ^= bits
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "k.npz"
        path.write_bytes(whole[:place] if cut else whole)
        try:
            found: KeptPredictions | None = read_kept(path, Path(folder))
        except AccelError:
            found = None
        if found is not None:
            assert equal(found.said, KINDS[0][1])
            assert equal(found.labels, KINDS[0][2])


def test_writing_takes_no_memory_of_mapped_arrays(tmp_path: Path) -> None:
    raw = np.memmap(tmp_path / "raw", np.float32, "w+", shape=(200_000, 40))
    raw[:] = 1
    tracemalloc.start()
    write_npz(tmp_path / "large.npz", {"x": raw})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
    assert (tmp_path / "large.npz").stat().st_size > raw.nbytes
    with np.load(io.BytesIO((tmp_path / "large.npz").read_bytes())) as opened:
        assert opened["x"].shape == raw.shape
