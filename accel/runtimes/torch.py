"""PyTorch, by the differentiable graph: as it is trained, or compiled for the processor.

PyTorch takes seconds to import: what is said here of its runtimes is read from files.
"""

from __future__ import annotations

import re
import shutil
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from accel.benchmark.environment import installed
from accel.benchmark.machine import gpus
from accel.errors import AccelError, RuntimeFailed
from accel.report import RuntimeSummary

if TYPE_CHECKING:
    from accel.runtimes.torch_session import TorchSession

CPU, COMPILED, CUDA = "torch:cpu", "torch:cpu_compiled", "torch:cuda"
_COMPILER = "g++"
"""What PyTorch calls for the processor's kernels."""


def runtimes() -> tuple[RuntimeSummary, ...]:
    """The runtimes that PyTorch is, without importing it."""
    version = installed("torch") or ""
    missing = "" if version else "the package torch is not installed"
    reasons = {CPU: missing, COMPILED: missing or _no_compiler(), CUDA: missing or _no_cuda()}
    return tuple(
        RuntimeSummary(name=name, version=version, device=_device(name).upper(), available=not reason, reason=reason)
        for name, reason in reasons.items()
    )


def open_session(path: Path, runtime: str, *, threads: int | None = None) -> TorchSession:
    """Load a model.

    Args:
        path: An ONNX file.
        runtime: One of :func:`runtimes`.
        threads: Threads of the whole process; None leaves them as they are (one for each core).

    Raises:
        RuntimeUnavailable: This host does not have the runtime.
        RuntimeFailed: The model cannot be run in PyTorch; the message names node and operator.
    """
    from accel.runtimes.discover import unavailable

    if all(found.name != runtime or not found.available for found in runtimes()):
        raise unavailable(runtime)
    from accel.runtimes.torch_session import load

    try:
        return load(path, runtime, device=_device(runtime), compile_it=runtime == COMPILED, threads=threads)
    except AccelError as error:
        raise RuntimeFailed(f"{runtime} could not load the model: {error.message}", hint=error.hint) from error


def can_run(path: Path, runtime: str) -> str:
    """Why a model does not run there; empty where it does."""
    try:
        open_session(path, runtime)
    except AccelError as error:
        return error.message
    return ""


def _device(runtime: str) -> str:
    return runtime.partition(":")[2].partition("_")[0]


def _no_compiler() -> str:
    """Why nothing can be compiled for the processor here; empty where it can."""
    if shutil.which(_COMPILER) is None:
        return f"there is no C++ compiler ({_COMPILER}), by which PyTorch compiles"
    headers = sysconfig.get_path("include")
    if not (Path(headers) / "Python.h").is_file():
        return "Python's header files are not installed, which what PyTorch compiles needs (package python3-dev)"
    return ""


def _no_cuda() -> str:
    """Why CUDA is of no use here; empty where it is."""
    spec = find_spec("torch")
    places = spec.submodule_search_locations if spec is not None else None
    text = (Path(next(iter(places))) / "version.py").read_text(encoding="utf-8") if places else ""
    if not re.search(r"^cuda\b[^=\n]*= *['\"]", text, re.MULTILINE):
        return "the installed PyTorch is built without CUDA"
    return "" if gpus() else "no NVIDIA GPU is there"
