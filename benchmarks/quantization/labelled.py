"""The labelled models: where their data is, how it is scaled, and what is measured on it.

``python -m quantization.labelled`` makes a :class:`Bundle` of one, in a process of its own since the data is large.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from quantization.bundle import Array, Bundle, Metric, Samples

_BATCH = 16
_LARGE = 256
"""Elements from which a float tensor counts as a weight."""

Columns = dict[str, Array]


@dataclass(frozen=True)
class Labelled:
    """What is known of a model and its data."""

    model: str
    data: str
    input: str
    steps: tuple[dict[str, Any], ...]
    columns: Callable[[Columns, int], Columns]
    """Makes the columns of the splits from the arrays of the file and the number of samples to calibrate on."""
    output: str
    metric: Metric = "accuracy"
    calibration: int = 300
    target: str = "y"
    decoder: dict[str, Any] | None = None
    """How the engine reads the output, where it is no class and no value a sample."""
    constants: dict[str, tuple[int, ...]] = field(default_factory=dict)
    rows_per_sample: int = 1
    contract: tuple[str, float] = ("accuracy", 0.01)
    """The engine's metric that is nearest to ours, and the loss that stands for a point."""
    spec: dict[str, Any] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


def _split(arrays: Columns, calibration: int) -> Columns:
    """Files that are split already: some rows of the training split calibrate, all of the test split judge."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(arrays["x_train"]))[:calibration])
    columns = {name: arrays[f"{name}_train"][chosen] for name in ("x", "y")}
    return {f"{name}_train": array for name, array in columns.items()} | {
        f"{name}_test": arrays[f"{name}_test"] for name in columns
    }


def _cut(columns: Columns, calibration: int) -> Columns:
    """One table: drawn rows calibrate, all others judge."""
    order = np.random.default_rng(0).permutation(len(next(iter(columns.values()))))
    parts = {"train": np.sort(order[:calibration]), "test": np.sort(order[calibration:])}
    return {f"{name}_{split}": array[rows] for split, rows in parts.items() for name, array in columns.items()}


def _images(arrays: Columns, calibration: int) -> Columns:
    """So few that those to calibrate on judge too; calibration sees no labels."""
    return {
        "x_train": arrays["x"][:calibration],
        "accepted_train": arrays["ok_mask"][:calibration],
        "x_test": arrays["x"],
        "accepted_test": arrays["ok_mask"],
    }


def _speech(arrays: Columns, calibration: int) -> Columns:
    """A row is a frame: 512 new values after the last 64 of the frame before."""
    clips = arrays["wav"].reshape(*arrays["y"].shape, -1)
    before = np.concatenate([np.zeros_like(clips[:, :1, -64:]), clips[:, :-1, -64:]], 1)
    cut = _cut({"x": np.concatenate([before, clips], 2), "y": arrays["y"]}, calibration)
    return {name: array.reshape(-1, *array.shape[2:]) for name, array in cut.items()}


def _lines(arrays: Columns, calibration: int) -> Columns:
    return _cut({"x": np.ascontiguousarray(arrays["x"][..., ::-1]), "text": arrays["text"]}, calibration)


def _written(texts: Array, characters: list[str]) -> Array:
    """Texts as the numbers of their characters, which count from 1 as in the model; rows are filled up with its blank, 0."""
    numbers = {character: number for number, character in enumerate(characters, 1)}
    rows = [[numbers[character] for character in text] for text in texts.tolist()]
    width = max(map(len, rows))
    return np.array([row + [0] * (width - len(row)) for row in rows], np.int32)


_SPACE = 6_624
"""The last character of the OCR model's; it sees one at the edge of many lines, which the texts do not have."""
_PIXELS_FIRST = {"step": "transpose", "axes": (2, 0, 1)}

MODELS: dict[str, Labelled] = {
    "fashion_resnet": Labelled(
        "fashion_resnet.onnx", "fashion_mnist.npz", "image",
        ({"step": "scale", "multiply": 1 / 255}, {"step": "add_axis", "axis": 1}), _split, "logits",
    ),
    "efficientnet_lite0": Labelled(
        "efficientnet_lite0.onnx", "imagenet_like_stamps.npz", "image",
        (_PIXELS_FIRST, {"step": "scale", "multiply": 1 / 128, "add": -127 / 128}), _images, "logits",
        metric="accepted", calibration=100,
    ),
    "text_source_transformer": Labelled(
        "text_source_transformer.onnx", "text_source_transformer_split.npz", "input_ids",
        ({"step": "cast", "dtype": "int64"},), _split, "logits",
    ),
    "letter_mlp": Labelled("letter_mlp.onnx", "letter_mlp_split.npz", "features", (), _split, "logits"),
    "satellite_mlp": Labelled("satellite_mlp.onnx", "satellite_mlp_split.npz", "features", (), _split, "logits"),
    "silero_vad_16k_sequence": Labelled(
        "silero_vad_16k_sequence.onnx", "vad_en_fr.npz", "input", ({"step": "scale", "multiply": 1 / 32768},),
        _speech, "speech_probs", metric="auc", calibration=20, constants={"h": (1, 1, 128), "c": (1, 1, 128)},
        rows_per_sample=192, shapes={"input": (192, 576)},
    ),
    "magika": Labelled(
        "magika_standard_v3_3.onnx", "magika_files.npz", "bytes", ({"step": "cast", "dtype": "int32"},),
        lambda arrays, calibration: _cut({"x": arrays["x"], "y": arrays["y"]}, calibration), "target_label",
        calibration=100,
    ),
    "ppocrv4_rec": Labelled(
        "ch_PP-OCRv4_rec_infer.onnx", "ocr_lines.npz", "x",
        (_PIXELS_FIRST, {"step": "scale", "multiply": 2 / 255, "add": -1.0}), _lines, "softmax_11.tmp_0",
        metric="exact_match", calibration=100, decoder={"decoder": "ctc_greedy", "trim": [_SPACE]}, shapes={"x": (1, 3, 48, 480)},
    ),
    "basic_pitch": Labelled(
        "basic_pitch_nmp.onnx", "notes_poly.npz", "serving_default_input_2:0",
        ({"step": "scale", "multiply": 1 / 32767}, {"step": "add_axis", "axis": 2}),
        lambda arrays, calibration: _cut({"x": arrays["wav"], "labels": arrays["roll"]}, calibration),
        "StatefulPartitionedCall:1", metric="auc", calibration=20, target="labels", contract=("f1", 0.01),
        decoder={"decoder": "threshold"},
    ),
}  # fmt: skip


def make(name: str, data: Path, folder: Path, *, rows: int | None, repeat_to: int | None) -> Bundle:
    """Write a model's data as the service takes it.

    Args:
        name: One of :data:`MODELS`.
        data: Folder of models and data.
        folder: Where the npz file and the bundle go.
        rows: Samples to judge on, at most.
        repeat_to: Repeat the calibration samples until there are so many.
    """
    known = MODELS[name]
    with np.load(data / known.data) as archive:
        columns = known.columns({key: archive[key] for key in archive.files}, known.calibration)
    for key in [key for key in columns if key.endswith("_test")] if rows is not None else ():
        columns[key] = columns[key][: (rows or 0) * known.rows_per_sample]
    if known.metric == "exact_match":
        charset = (data / "ppocrv4_charset.txt").read_text(encoding="utf-8").split("\n")
        for split in ("train", "test"):
            columns[f"y_{split}"] = _written(columns[f"text_{split}"], charset)
        columns["characters"] = np.array(charset)
    inputs: dict[str, Any] = {known.input: {"column": "x", "steps": known.steps}}
    inputs |= {key: {"constant": 0.0, "shape": shape} for key, shape in known.constants.items()}
    model = (data / known.model).resolve()
    binding = {"inputs": inputs, "target": known.target, "output": known.output, "decoder": known.decoder}
    grouped = known.rows_per_sample > 1
    bundle = Bundle(
        name, model, folder / "data.npz", binding, known.metric, known.rows_per_sample,
        {"samples": known.calibration * known.rows_per_sample} if grouped else {}, known.shapes,
        {"metric": known.contract[0], "max_drop": known.contract[1]}, known.spec, _weight_share(model),
    )  # fmt: skip
    np.savez(bundle.data, allow_pickle=False, **columns)
    if known.metric == "accepted":
        for split in ("train", "test"):
            columns[f"y_{split}"] = _accepted_class(bundle, split)
    if repeat_to is not None:
        for key in [key for key in columns if key.endswith("_train")]:
            columns[key] = np.resize(columns[key], (repeat_to, *columns[key].shape[1:]))
    np.savez(bundle.data, allow_pickle=False, **columns)
    bundle.save(folder / "bundle.json")
    return bundle


def _accepted_class(bundle: Bundle, split: Any) -> Array:
    """One label for those who cannot take a set of them: the class that the float model names, where it is accepted."""
    from accel.runtimes.onnxruntime import open_session

    session, samples = open_session(bundle.model, "onnxruntime:cpu"), Samples(bundle, split)
    output, accepted = bundle.binding["output"], samples.columns["accepted"]
    said = np.concatenate([session.run(feed, [output])[output].argmax(1) for feed in samples.feeds(batch=_BATCH)])
    return np.where(accepted[np.arange(len(said)), said], said, accepted.argmax(1)).astype(np.int64)


def _weight_share(path: Path) -> float:
    """Part of a file that is float tensors, of initializers and Constant nodes, sub-graphs included."""
    import onnx

    def tensors(graph: onnx.GraphProto) -> int:
        found = [*graph.initializer]
        inner = 0
        for node in graph.node:
            for attribute in node.attribute:
                found += [attribute.t] if attribute.HasField("t") else []
                inner += tensors(attribute.g) if attribute.HasField("g") else 0
        floats = (t for t in found if t.data_type == onnx.TensorProto.FLOAT)
        return inner + sum(4 * size for t in floats if (size := int(np.prod(t.dims))) >= _LARGE)

    return tensors(onnx.load(path).graph) / path.stat().st_size


if __name__ == "__main__":
    task = json.load(sys.stdin)
    make(task["name"], Path(task["data"]), Path(task["folder"]), rows=task["rows"], repeat_to=task["repeat_to"])
