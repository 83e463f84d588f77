"""One of several processes of a training, started by torchrun. Only one of each host speaks."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import accel  # noqa: F401  (sets ORT_DISABLE_TELEMETRY before anything imports onnxruntime)
from accel.errors import AccelError, OutOfMemory
from accel.events import Checkpoint, Failed, Progress
from accel.request.training import TrainRequest
from accel.sandbox import die_with_parent
from accel.training.telling import Ended, EpochEnded, Said

AGENT = "ACCEL_TRAINING_AGENT"
"""Variable that holds the process id of the agent, which this process dies with."""
CANCEL = "cancel"
"""File of the workspace that asks the processes to stop."""
_SMALLER = "Use a smaller batch, fewer processes, or a worker with more memory."
LOST = 3
"""Exit code of a process that lost the connection to another."""


def main() -> int:
    """Take part in a training; 0 when it could be done."""
    die_with_parent(int(os.environ[AGENT]))
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints goes to standard error
    request = TrainRequest.model_validate_json(Path(sys.argv[1]).read_bytes())
    speaks = os.environ.get("LOCAL_RANK") == "0"

    def say(said: Said) -> None:
        out.write(said.model_dump_json().encode() + b"\n")
        out.flush()

    try:
        with _group():
            ended = _train(request, say if speaks else lambda _: None)
    except AccelError as error:
        if _is_shared(error) and not speaks:
            return 0  # to fail now would end the one that is about to tell, and to leave the best model
        say(Failed(code=error.code, message=error.message, hint=error.hint, files=error.files))
        return 1
    except MemoryError:
        say(
            Failed(
                code=OutOfMemory.code,
                message="A process of the training needs more memory than it may take.",
                hint=_SMALLER,
            )
        )
        return 1
    except RuntimeError as error:
        traceback.print_exc()
        if _is_lost(error):
            return LOST
        say(Failed(code="internal", message=f"A process of the training met an unforeseen error: {str(error)[:300]}"))
        return 1
    if speaks:
        say(ended)
    return 0


def _train(request: TrainRequest, say: Callable[[Said], None]) -> Ended:
    from accel.training.fit import Hooks
    from accel.training.train import train_here

    cancel = request.workspace.resolve() / CANCEL
    hooks = Hooks(
        tell=lambda phase, done, total, message: say(Progress(phase=phase, done=done, total=total, message=message)),
        on_epoch=lambda point: say(EpochEnded(point=point)),
        on_checkpoint=lambda path: say(Checkpoint(path=path)),
        cancelled=cancel.exists,
    )
    return Ended(trained=train_here(request, hooks))


@contextlib.contextmanager
def _group() -> Iterator[None]:
    """Leave the group of processes in order."""
    import torch

    try:
        yield
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _is_shared(error: AccelError) -> bool:
    """Whether all processes meet an error at the same step."""
    from accel.training.fit import Diverged

    return isinstance(error, Diverged)


def _is_lost(error: RuntimeError) -> bool:
    """Whether an error is of the connection to another process."""
    import torch

    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error) or "NCCL" in str(error)


if __name__ == "__main__":
    sys.exit(main())
