"""The whole state of a training in one file that is read without running code: tensors, and a header of JSON.

Format: https://huggingface.co/docs/safetensors. Chance has no state to keep: see :mod:`accel.training.chance`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from accel.errors import TrainingFailed
from accel.report.training import EpochPoint, StopReason

_HEADER = "accel.training"
_FORMAT = 1


class Best(BaseModel):
    """The best weights so far."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: float
    loss: float
    value: float | None


class Header(BaseModel):
    """Where a training stands, besides its tensors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = _FORMAT
    of: dict[str, str]
    """What is trained, on what and how, so that no other training goes on from here."""
    epoch: int = 0
    """Epochs that are finished."""
    step: int = 0
    """Steps of the present epoch that are done."""
    loss_sum: float = 0.0
    """Of the rows that were seen in the present epoch."""
    rows: int = 0
    """How many these are."""
    rows_total: int = 0
    seconds: float = 0.0
    """Time that was spent, over all attempts."""
    training_seconds: float = 0.0
    """The part of it that steps took."""
    attempts: int = 1
    epoch_seconds: float = 0.0
    """The same of the present epoch."""
    waited: int = 0
    """Epochs since ``mark``."""
    mark: Best | None = None
    """The last result that was better by as much as early stopping asks for."""
    finished: StopReason | None = None
    """Why the training ended; None where it goes on."""
    best: Best | None = None
    curve: tuple[EpochPoint, ...] = ()
    optimizer: str = "{}"
    """What the optimiser keeps besides tensors, as JSON."""
    schedule: str = "{}"
    scaler: str = "{}"


class Checkpoint:
    """A state that was read."""

    def __init__(self, header: Header, tensors: dict[str, Tensor]) -> None:
        self.header = header
        self._tensors = tensors

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one part of the state, by their names there."""
        prefix = f"{name}/"
        return {key[len(prefix) :]: held for key, held in self._tensors.items() if key.startswith(prefix)}


def write(path: Path, header: Header, parts: dict[str, dict[str, Tensor]]) -> None:
    """Write a state, complete or not at all.

    Args:
        path: The file; an older state in it is replaced.
        header: Where the training stands.
        parts: Tensors by part and name.

    Raises:
        OSError: There is no space for it.
    """
    tensors = {
        f"{part}/{name}": held.detach().cpu().contiguous()
        for part, held_by in parts.items()
        for name, held in held_by.items()
    }
    partial = path.with_suffix(".part")
    try:
        save_file(tensors, partial, {_HEADER: header.model_dump_json()})
    except SafetensorError as error:
        said = re.search(r"os error (\d+)", str(error))
        if said is None:
            raise
        raise OSError(int(said[1]), os.strerror(int(said[1])), str(partial)) from error
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def read(path: Path) -> Checkpoint:
    """Read a state.

    Raises:
        TrainingFailed: The file is no checkpoint, or one of another version.
    """
    try:
        with safe_open(path, "pt") as file:
            said = (file.metadata() or {}).get(_HEADER)
            if said is None:
                raise _broken("it has no header")
            header = Header.model_validate_json(said)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dict)
    except (SafetensorError, ValidationError) as error:
        raise _broken(" ".join(str(error).split())[:200]) from error
    if header.format != _FORMAT:
        raise _broken(f"it is of version {header.format}")
    return Checkpoint(header, tensors)


def check_same(header: Header, of: dict[str, str]) -> None:
    """Refuse to go on from the state of another training.

    Raises:
        TrainingFailed: It is one; names what differs.
    """
    differing = [name for name in of.keys() | header.of.keys() if of.get(name) != header.of.get(name)]
    if differing:
        raise TrainingFailed(
            f"The checkpoint is of another training: {', '.join(sorted(differing))} differ.",
            hint="Start anew, or repeat the request that the checkpoint is of.",
        )


def _broken(why: str) -> TrainingFailed:
    return TrainingFailed(f"The checkpoint cannot be read: {why}.", hint="Leave it out to start anew.")
