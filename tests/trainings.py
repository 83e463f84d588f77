"""Small trainings: data that can be learned, and requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from accel.request.training import TrainRequest
from accel.training.assemble import Assembled, assemble
from accel.training.checkpoint import Checkpoint
from accel.training.fit import Hooks
from tests import models


def numbers(path: Path, *, rows: int = 240, seed: int = 0) -> Path:
    """An npz file: 16 features, and a number that depends on two of them."""
    x = np.random.default_rng(seed).standard_normal((rows, 16)).astype(np.float32)
    np.savez(path, x_train=x, y_train=(x[:, :1] * 2 - x[:, 3:4]).astype(np.float32))
    return path


def classes(path: Path, *, rows: int = 240, seed: int = 0, labels: bool = True) -> Path:
    """An npz file: images [1, 8, 8] of four classes, each brighter in another quarter."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 4, rows)
    x = generator.standard_normal((rows, 1, 8, 8)).astype(np.float32) * 0.5
    for row, label in enumerate(y):
        x[row, 0, 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 0.6
    np.savez(path, image_train=x, **({"y_train": y} if labels else {}))
    return path


def normalized(*, seed: int = 3, outputs: int = 4, last: str | None = None) -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu, global average, Dropout, Gemm: images [n, 1, 8, 8] to scores, with a last node if named."""
    chance = np.random.default_rng(seed)
    weights = {
        "conv_w": chance.standard_normal((6, 1, 3, 3)).astype(np.float32) * 0.5,
        "scale": np.ones(6, np.float32),
        "shift": np.zeros(6, np.float32),
        "mean": np.zeros(6, np.float32),
        "variance": np.ones(6, np.float32),
        "w": chance.standard_normal((24, outputs)).astype(np.float32) * 0.3,
        "b": np.zeros(outputs, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "conv_w"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "scale", "shift", "mean", "variance"], ["n"], "norm"),
        helper.make_node("Relu", ["n"], ["r"], "relu"),
        helper.make_node("AveragePool", ["r"], ["p"], "pool", kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node("Dropout", ["f"], ["d"], "drop"),
        helper.make_node("Gemm", ["d", "w", "b"], ["scores"], "out"),
    ]
    output = "scores"
    if last is not None:
        nodes.append(helper.make_node(last, ["scores"], ["chances"], "last"))
        output = "chances"
    return models.assemble(
        nodes,
        [models._value("image", ["n", 1, 8, 8])],
        [models._value(output, ["n", outputs])],
        weights,
    )


def request(folder: Path, model: onnx.ModelProto | None, data: Path, **others: Any) -> TrainRequest:
    """A request in a workspace of its own.

    Args:
        folder: Where files go.
        model: What is trained; None where an architecture is given.
        data: The dataset's file.
        others: Fields of the request; ``settings`` is filled up with one thread.
    """
    workspace = folder / f"work{len(list(folder.glob('work*')))}"
    workspace.mkdir()
    given = {"settings": {"threads": 1, "batch_size": 32, "epochs": 2} | others.pop("settings", {})}
    if model is not None:
        path = models.save(model, folder / f"{workspace.name}.onnx")
        given["model"] = {"model_id": "m", "path": path}
    if isinstance(others.get("teacher"), onnx.ModelProto):
        path = models.save(others["teacher"], folder / f"{workspace.name}.teacher.onnx")
        others["teacher"] = {"model_id": "teacher", "path": path}
    return TrainRequest.model_validate({"workspace": workspace, "dataset": {"path": data}, **given, **others})


def assembled(asked: TrainRequest, hooks: Hooks | None = None, resumed: Checkpoint | None = None) -> Assembled:
    """A training that is ready to begin."""
    return assemble(asked, asked.workspace, hooks or Hooks(), resumed)


def weights(model: onnx.ModelProto | Path) -> dict[str, np.ndarray]:
    """Initialisers by name."""
    loaded = onnx.load(model) if isinstance(model, Path) else model
    return {held.name: numpy_helper.to_array(held) for held in loaded.graph.initializer}
