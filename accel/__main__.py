"""The engine's process: one request (JSON) on standard input, events (one JSON document a line) on standard output.

By hand, from any folder: ``python -m accel < request.json``. Relative paths are those of the current folder; results are
written to ``workspace``, which is the current folder unless the request names another.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from accel import request as requests
from accel.errors import AccelError, BadRequest
from accel.events import Checkpoint, Done, Failed, Progress
from accel.request import (
    BenchmarkRequest,
    CompressRequest,
    DescribeHostRequest,
    EngineRequest,
    EvaluateRequest,
    InspectDatasetRequest,
    InspectModelRequest,
    TrainRequest,
)
from accel.sandbox import Network, confine, die_with_parent


def main() -> int:
    """Answer one request; 0 when it could be done, 1 when not."""
    parser = argparse.ArgumentParser(prog="python -m accel", description=__doc__)
    parser.add_argument("--parent", type=int, help="process to die with")
    options = parser.parse_args()
    if options.parent is not None:
        die_with_parent(options.parent)
    # Standard output is the protocol's alone: what a library prints goes to standard error.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    answer = _answer(sys.stdin.buffer.read(), out)
    _say(out, answer)
    out.close()
    return 0 if isinstance(answer, Done) else 1


def _answer(text: bytes, out: IO[str]) -> Done | Failed:
    from accel.run import run

    try:
        request = _parse(text)
        workspace = request.workspace.resolve()
        sandbox = confine(
            readable=_inputs(request), writable=workspace, limits=request.limits, network=_network(request)
        )
        # There is no other folder for temporary files now, here and in the processes that this one starts.
        os.environ["TMPDIR"] = tempfile.tempdir = str(workspace)
        # scikit-learn loads joblib, which would ask for a semaphore, be refused, and warn of it; nothing here uses its processes.
        os.environ["JOBLIB_MULTIPROCESSING"] = "0"
        return run(
            request,
            sandbox,
            lambda phase, done, total, message: _say(
                out, Progress(phase=phase, done=done, total=total, message=message)
            ),
            lambda path: _say(out, Checkpoint(path=path)),
        )
    except AccelError as error:
        return Failed(code=error.code, message=error.message, hint=error.hint, files=error.files)
    except MemoryError:
        return _out_of_memory()
    except ImportError as error:
        traceback.print_exc()
        if "failed to map segment" in str(error):  # a library that did not fit below the limit of address space
            return _out_of_memory()
        return Failed(code="internal", message=f"The engine lacks a library: {error.name or error}.")
    except OSError as error:
        traceback.print_exc()
        if error.errno in {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}:
            return Failed(code="disk_full", message="There is no space left for the result.", hint="Free some space.")
        if error.errno == errno.ENOMEM:
            return _out_of_memory()
        return Failed(code="internal", message=f"The engine met an error: {error.strerror or error}.")
    except Exception as error:  # noqa: BLE001  (the last line of defence: the caller gets an answer, the log the traceback)
        traceback.print_exc()
        return Failed(code="internal", message=f"The engine met an unforeseen {type(error).__name__}: {error}")


def _out_of_memory() -> Failed:
    return Failed(
        code="out_of_memory",
        message="The work needs more memory than the engine may take.",
        hint="Use a smaller model, fewer samples, or a worker with more memory.",
    )


def _parse(text: bytes) -> EngineRequest:
    try:
        return requests.adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "/".join(str(part) for part in first["loc"])
        raise BadRequest(f"The request does not fit at {place or 'its root'}: {first['msg']}.") from error


def _inputs(request: EngineRequest) -> list[Path]:
    """The caller's files that the request names.

    Raises:
        BadRequest: One is not there.
    """
    match request:
        case InspectModelRequest():
            files = [request.model]
        case InspectDatasetRequest():
            files = [request.dataset.path]
        case DescribeHostRequest():
            files = []
        case CompressRequest():
            files = [request.model.path] + ([request.dataset.path] if request.dataset else [])
        case EvaluateRequest():
            kept = [model.predictions for model in request.models if model.predictions is not None]
            files = [*(model.path for model in request.models), *kept, request.dataset.path]
        case BenchmarkRequest():
            files = [model.path for model in request.models]
        case TrainRequest():
            named = (request.model, request.teacher)
            files = [request.dataset.path, *(model.path for model in named if model is not None)]
            files += [] if request.checkpoint is None else [request.checkpoint]
    for file in files:
        if not file.is_file():
            raise BadRequest(f"There is no file {file.name!r}.", hint="Relative paths are those of the current folder.")
    return [file.resolve() for file in files]


def _network(request: EngineRequest) -> Network:
    """What sockets are for: processes that share out a training meet by them."""
    if not isinstance(request, TrainRequest) or not request.together:
        return "none"
    return "loopback" if request.rendezvous is None else "hosts"


def _say(out: IO[str], event: Progress | Checkpoint | Done | Failed) -> None:
    out.write(event.model_dump_json() + "\n")
    out.flush()


if __name__ == "__main__":
    sys.exit(main())
