"""A model with labelled data in the form that the service takes. Needs NumPy alone: the peers' processes read it too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Metric = Literal["accuracy", "accepted", "exact_match", "auc"]
"""Top class, top class within a set, text of a CTC output, area under the ROC curve of all frames."""


@dataclass(frozen=True)
class Bundle:
    """A model's file, its data, and how they fit together."""

    name: str
    model: Path
    data: Path
    """npz file with the columns ``<column>_train`` (to calibrate on) and ``<column>_test`` (to judge on)."""
    binding: dict[str, Any]
    metric: Metric
    rows_per_sample: int = 1
    """Rows of the dataset that go into one call: all frames of a clip where the batch axis is time."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """What ``quantize_static`` must be told here."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shapes of inputs to measure the speed with, where the model leaves more than the batch open."""
    contract: dict[str, Any] = field(default_factory=dict)
    """A loss of one point in the words of the engine's contracts."""
    spec: dict[str, Any] = field(default_factory=dict)
    """What cannot be inferred from the dataset's file."""
    weight_share: float = 0.0
    """Part of the file that is float weights."""

    def save(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), default=str))

    @classmethod
    def load(cls, path: Path) -> Bundle:
        """Read what :meth:`save` wrote."""
        known = json.loads(path.read_text())
        return cls(**known | {"model": Path(known["model"]), "data": Path(known["data"])})


class Samples:
    """One split of a bundle, in memory as the file has it; a model's inputs are made call by call."""

    def __init__(self, bundle: Bundle, split: Literal["train", "test"]) -> None:
        self._inputs, self._group = bundle.binding["inputs"], bundle.rows_per_sample
        with np.load(bundle.data) as archive:
            self.columns: dict[str, Array] = {
                name.removesuffix(f"_{split}"): archive[name] for name in archive.files if name.endswith(f"_{split}")
            }
            self.notes: dict[str, Array] = {
                name: archive[name] for name in archive.files if not name.endswith(("_train", "_test"))
            }

    def __len__(self) -> int:
        return len(self.columns["x"]) // self._group

    def feed(self, start: int, stop: int) -> dict[str, Array]:
        """The model's inputs for some samples."""
        return {
            name: self._input(source, start * self._group, stop * self._group) for name, source in self._inputs.items()
        }

    def feeds(self, samples: int | None = None, batch: int = 1) -> Iterator[dict[str, Array]]:
        """Yield the inputs of one call after the other; a sample of several rows is a call of its own."""
        for start, stop in self.spans(samples, batch):
            yield self.feed(start, stop)

    def spans(self, samples: int | None = None, batch: int = 1) -> Iterator[tuple[int, int]]:
        """Yield the bounds of each call."""
        count = len(self) if samples is None else min(samples, len(self))
        size = 1 if self._group > 1 else batch
        for start in range(0, count, size):
            yield start, min(start + size, count)

    def _input(self, source: dict[str, Any], start: int, stop: int) -> Array:
        if "constant" in source:
            return np.full(source["shape"], source["constant"], np.float32)
        batch = self.columns[source["column"]][start:stop]
        for step in source.get("steps", ()):
            batch = _step(step, batch)
        return np.ascontiguousarray(batch)


def _step(step: dict[str, Any], batch: Array) -> Array:
    match step["step"]:
        case "scale":
            return batch.astype(np.float32) * np.float32(step["multiply"]) + np.float32(step.get("add", 0.0))
        case "transpose":
            return np.transpose(batch, (0, *(axis + 1 for axis in step["axes"])))
        case "add_axis":
            return np.expand_dims(batch, step["axis"])
        case "cast":
            return batch.astype(step["dtype"])
        case other:
            raise ValueError(f"no such step here: {other}")
