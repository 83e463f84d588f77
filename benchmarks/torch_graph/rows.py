"""A few rows for each model of the data folder, as its README.md says; of models that are not known there, random ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Rows = dict[str, Array]
_ROWS = 2
_CONTEXT, _FRAME = 64, 512
"""Samples that silero's models take of the frame before, and of a frame."""


def rows_of(model: Path, data: Path) -> Rows:
    """Inputs by name.

    Args:
        model: An ONNX file.
        data: Folder with the data that belongs to it.
    """
    known = next((make for name, make in _KNOWN.items() if model.stem.startswith(name)), None)
    return known(data) if known is not None else _random(model)


def _random(model: Path) -> Rows:
    from accel.benchmark.inputs import random_inputs
    from accel.runtimes.onnxruntime import open_session

    return random_inputs(open_session(model, "onnxruntime:cpu").inputs, seed=0, batch_size=_ROWS)[0]


def _of(data: Path, name: str, column: str, rows: int = _ROWS) -> Array:
    with np.load(data / name) as arrays:
        found: Array = arrays[column][:rows]
    return found


def _floats(array: Array) -> npt.NDArray[np.float32]:
    return array.astype(np.float32)


def _fashion(data: Path) -> Rows:
    return {"image": _floats(_of(data, "fashion_mnist.npz", "x_test"))[:, None] / 255}


def _stamps(data: Path) -> Rows:
    return {"image": (_floats(_of(data, "imagenet_like_stamps.npz", "x")).transpose(0, 3, 1, 2) - 127) / 128}


def _features(name: str) -> Callable[[Path], Rows]:
    return lambda data: {"features": _floats(_of(data, name, "x_test"))}


def _text(data: Path) -> Rows:
    return {"input_ids": _of(data, "text_source_transformer_split.npz", "x_test").astype(np.int64)}


def _bytes(data: Path) -> Rows:
    return {"bytes": _of(data, "magika_files.npz", "x").astype(np.int32)}


def _notes(data: Path) -> Rows:
    return {"serving_default_input_2:0": _floats(_of(data, "notes_poly.npz", "wav", 1))[:, :, None] / 32767}


def _lines(data: Path) -> npt.NDArray[np.float32]:
    """Lines of text, [lines, 3, 48, width]."""
    return (_floats(_of(data, "ocr_lines.npz", "x")[..., ::-1]).transpose(0, 3, 1, 2) / 255 - 0.5) / 0.5


def _page(data: Path) -> npt.NDArray[np.float32]:
    """The lines below each other, cut to sizes that can be halved five times."""
    page = np.concatenate(list(_lines(data)), axis=1)
    return page[None, :, : page.shape[1] // 32 * 32, : page.shape[2] // 32 * 32]


def _frames(data: Path) -> npt.NDArray[np.float32]:
    """Frames of a voice in the middle of a clip, each with the end of the one before."""
    wave = _floats(_of(data, "vad_en_fr.npz", "wav", 1))[0].reshape(-1, _FRAME)[20:29] / 32768
    return np.concatenate([wave[:-1, -_CONTEXT:], wave[1:]], axis=1)


def _sequence(data: Path) -> Rows:
    return {"input": _frames(data), **{name: np.zeros((1, 1, 128), np.float32) for name in "hc"}}


def _stateful(data: Path) -> Rows:
    frames = _frames(data)
    return {"input": frames, "state": np.zeros((2, len(frames), 128), np.float32), "sr": np.array(16_000, np.int64)}


_KNOWN: dict[str, Callable[[Path], Rows]] = {
    "fashion": _fashion,
    "efficientnet": _stamps,
    "text_source_transformer": _text,
    "letter_mlp": _features("letter_mlp_split.npz"),
    "satellite_mlp": _features("satellite_mlp_split.npz"),
    "silero_vad_16k_sequence": _sequence,
    "silero_vad": _stateful,
    "magika": _bytes,
    "ch_PP-OCRv4_rec": lambda data: {"x": _lines(data)},
    "ch_PP-OCRv4_det": lambda data: {"x": _page(data)},
    "ch_ppocr_mobile_v2.0_cls": lambda data: {"x": np.ascontiguousarray(_lines(data)[..., :192])},
    "basic_pitch": _notes,
}
"""By how the file's name begins."""
