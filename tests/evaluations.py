"""A small evaluation to try things on: two models, rows, labels of which some are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from accel import run as engine
from accel.events import Done
from accel.report import EvaluateReport, SandboxSummary
from accel.request import DatasetFile, EvaluateRequest, ModelFile
from tests import models

ROWS, WRONG = 120, 12


class Bench:
    """Two models, a baseline and one whose weights are a little other, and labels of which some are wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.proto = models.constant_mlp()
        chance = np.random.default_rng(0)
        self.x = chance.standard_normal((ROWS, 16)).astype(np.float32)
        (scores,) = models.run(self.proto, {"x": self.x}).values()
        self.y = scores.argmax(1)
        self.y[:WRONG] = (self.y[:WRONG] + 1) % models.CLASSES
        self.arrays = {"x_test": self.x, "y_test": self.y}
        self._runs = 0

    def request(self, *protos: onnx.ModelProto, arrays: dict[str, np.ndarray] | None = None, **more: Any):
        self._runs += 1
        workspace = self.folder / f"work{self._runs}"
        workspace.mkdir()
        np.savez(self.folder / "data.npz", **(self.arrays if arrays is None else arrays))
        tuned = more.pop("tuned_on", {})
        kept = more.pop("kept", {})
        listed = tuple(
            ModelFile(
                model_id=f"m{number}",
                path=models.save(proto, self.folder / f"m{number}.onnx"),
                tuned_on=tuned.get(number, ()),
                predictions=kept.get(number),
            )
            for number, proto in enumerate(protos)
        )
        return EvaluateRequest(
            workspace=workspace,
            models=listed,
            dataset=DatasetFile(path=self.folder / "data.npz"),
            **{"baseline_id": "m0", "batch_size": 32, **more},
        )

    def evaluate(self, *protos: onnx.ModelProto, **more: Any) -> Done:
        return done(self.request(*protos, **more))


def done(request: EvaluateRequest) -> Done:
    return engine.run(request, SandboxSummary(active=(), missing={}), lambda *_: None)


def report_of(answer: Done) -> EvaluateReport:
    assert isinstance(answer.report, EvaluateReport)
    return answer.report


def noisy(proto: onnx.ModelProto, share: float, seed: int = 1) -> onnx.ModelProto:
    """The model with noise on its weights."""
    other = onnx.ModelProto.FromString(proto.SerializeToString())
    chance = np.random.default_rng(seed)
    for node in other.graph.node:
        if node.op_type == "Constant":
            tensor = node.attribute[0].t
            array = onnx.numpy_helper.to_array(tensor)
            noise = chance.standard_normal(array.shape).astype(np.float32) * array.std() * share
            tensor.CopyFrom(onnx.numpy_helper.from_array(array + noise, tensor.name))
    return other
