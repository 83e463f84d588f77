"""What a technique is given besides the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from accel.errors import DataRequired

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx_ir

    from accel.evaluation.trial import Trial
    from accel.report.quantization import QuantizationReport

Tell = Callable[[str, int, int | None, str], None]
"""Called with the phase, units done, units in all (None when unknown), and a message."""


class Calibration(Protocol):
    """Samples to calibrate on, read from disk as they are needed."""

    def batches(self, samples: int, batch_size: int) -> Iterator[dict[str, npt.NDArray[np.generic]]]:
        """Yield model inputs by name, ``samples`` rows at most; the same rows in the same order each time."""

    def batch_size(self, largest: int) -> int:
        """Rows that are best taken at a time, ``largest`` at most."""


def rows_in(batch: Mapping[str, npt.NDArray[np.generic]]) -> int:
    """Rows of a batch; what is fed as a constant may have fewer."""
    return max((len(array) for array in batch.values() if array.ndim), default=1)


@dataclass(slots=True)
class Context:
    """The run that a technique is part of: where it may write, its chance, its data, and whom to tell."""

    workspace: Path
    seed: int
    progress: Tell
    data: Calibration | None = None
    reference: onnx_ir.Model | None = None
    """The last float model of the recipe, where the one that is given is quantized."""
    selection: Trial | None = None
    """Samples to choose by between candidates; results are not judged on them."""
    quantization: QuantizationReport | None = None
    """What a quantizing step did, for its report."""
    notes: list[str] = field(default_factory=list)

    def calibration(self, technique: str) -> Calibration:
        """The calibration samples.

        Raises:
            DataRequired: the job has no dataset.
        """
        if self.data is None:
            raise DataRequired(
                f"{technique} needs calibration samples and the job has no dataset.",
                hint="Give dataset_id, and a binding where names or shapes differ.",
            )
        return self.data

    def note(self, text: str) -> None:
        """Add a remark to the report of this step."""
        self.notes.append(text)
