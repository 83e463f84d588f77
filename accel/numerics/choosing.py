"""Compare quantized candidates with the float model, on samples that results are not judged on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from accel.evaluation.contract import Contract
from accel.evaluation.trial import Difference, Trial, Watched, differ
from accel.graph.temporary import temporary_file

if TYPE_CHECKING:
    import onnx_ir as ir

_LABEL_FREE_ROWS = 16
"""Enough to see what noise the outputs have; a contract's metric takes all rows."""
_SMALL_ROWS = 128
"""As many where they are small, since ways of choosing ranges may be close."""


@dataclass(frozen=True)
class Chooser:
    """What candidates are compared by: the noise of the outputs, or the metric of a contract."""

    model: ir.Model
    """The float model."""
    samples: Trial
    workspace: Path
    contract: Contract | None = None

    @cached_property
    def trial(self) -> Trial:
        """The rows in use."""
        if self.contract is not None:
            return self.samples
        return self.samples.part(max(_LABEL_FREE_ROWS, self.samples.batch_size(_SMALL_ROWS)))

    @cached_property
    def reference(self) -> Watched:
        """What the float model gives."""
        return self._watch(self.model)

    @property
    def bound(self) -> float:
        """The loss on these rows with which a contract is taken for kept."""
        if self.contract is None:
            raise ValueError("there is no contract")
        return self.contract.max_drop

    def difference(self, candidate: ir.Model) -> Difference:
        """How far the outputs of a candidate are from the float model's."""
        return differ(self.reference, self._watch(candidate))

    def loss(self, candidate: ir.Model) -> float:
        """Loss of the contract's metric with its standard error; without a contract noise over signal of the worst output."""
        watched = self._watch(candidate)
        if self.contract is None:
            return differ(self.reference, watched).noise
        return self.trial.loss(self.contract, self.reference, watched)

    def _watch(self, model: ir.Model) -> Watched:
        with temporary_file(model, self.workspace) as path:
            return self.trial.watch(path)
