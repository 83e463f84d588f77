"""torchrun, as a process that dies with the one that started it, and says in one line how its processes ended."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from accel.child import how_it_ended
from accel.events import Failed
from accel.sandbox import die_with_parent
from accel.training.worker import AGENT, LOST


def main() -> int:
    """Start the processes and watch them; when one fails the others are ended."""
    parser = argparse.ArgumentParser(prog="python -m accel.training.agent", description=__doc__)
    parser.add_argument("--parent", type=int, required=True, help="process to die with")
    options, rest = parser.parse_known_args()
    die_with_parent(options.parent)
    os.environ[AGENT] = str(os.getpid())
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.run import main as torchrun

    try:
        torchrun(rest)
    except ChildFailedError as error:
        failures: dict[int, ProcessFailure] = error.failures
        rank, failure = min(failures.items(), key=lambda one: (_order(one[1].exitcode), one[0]))
        _say(f"Process {rank} of the training {_ended(failure.exitcode)}.")
        return 1
    except (RendezvousError, SignalException, OSError, RuntimeError) as error:
        _say(f"The processes of the training did not find together: {' '.join(str(error).split())[:300]}")
        return 1
    return 0


def _order(code: int) -> int:
    """Which of several ends is the reason of the others: a kill, then an error; a lost connection and a polite end only follow."""
    if code in {LOST, -signal.SIGTERM}:
        return 2
    return 0 if code < 0 else 1


def _ended(code: int) -> str:
    if code == LOST:
        return "lost the connection to another one, which may have ended on another host"
    return how_it_ended(code)


def _say(message: str) -> None:
    hint = "Killed processes often ran out of memory: use a smaller batch, fewer processes, or a larger worker."
    sys.stdout.write(Failed(code="training_failed", message=message, hint=hint).model_dump_json() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started this decides
    sys.exit(main())
