"""ONNX Runtime: one model loaded on one execution provider."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from accel.errors import OutOfMemory, RuntimeFailed, RuntimeUnavailable
from accel.runtimes.discover import unavailable
from accel.runtimes.messages import clean
from accel.runtimes.providers import CPU, Provider, provider_of
from accel.runtimes.sessions import Array, Port

if TYPE_CHECKING:
    import onnxruntime as ort

_DTYPES: dict[str, str] = {
    "float": "float32",
    "float16": "float16",
    "double": "float64",
    "int8": "int8",
    "uint8": "uint8",
    "int16": "int16",
    "uint16": "uint16",
    "int32": "int32",
    "uint32": "uint32",
    "int64": "int64",
    "uint64": "uint64",
    "bool": "bool",
    "string": "object",
}


@dataclass(frozen=True, slots=True)
class Session:
    """A model that is loaded and can be run."""

    runtime: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    native: ort.InferenceSession

    def run(self, feed: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once.

        Args:
            feed: An array for each input.
            outputs: Names of the outputs that are wanted; all if left out.

        Raises:
            RuntimeFailed: The runtime refused, with its own words.
        """
        names = list(outputs) if outputs is not None else [port.name for port in self.outputs]
        try:
            values = self.native.run(names, dict(feed))
        except Exception as error:
            raise _failure(error, f"{self.runtime} could not run the model") from error
        return {name: value for name, value in zip(names, values, strict=True) if isinstance(value, np.ndarray)}

    def prepared(self, feed: Mapping[str, Array]) -> Callable[[], object]:
        """What runs the model on one feed again and again, with nothing around it that takes time."""
        return functools.partial(self.native.run, [port.name for port in self.outputs], dict(feed))


def open_session(
    path: Path,
    runtime: str,
    *,
    threads: int | None = None,
    profile_to: Path | None = None,
    alone: bool = False,
    exact: bool = False,
) -> Session:
    """Load a model.

    Args:
        path: An ONNX file.
        runtime: One of those that :func:`accel.runtimes.discover.discover` finds.
        threads: Threads within one operator; None leaves it to the runtime (one for each core).
        profile_to: Beginning of the name of a file that the time of every kernel is written to when profiling ends.
        alone: Whether nothing is measured beside it: its threads may then wait for the next call without sleeping.
        exact: Whether a QDQ graph is computed as it is written, in floats: the integer kernels of processors without VNNI
            saturate sums of two products at 16 bits.

    Raises:
        RuntimeUnavailable: This host does not have the runtime.
        RuntimeFailed: The runtime refused the model.
    """
    options = _options(threads)
    if not alone:
        # An idle session must not burn a core that another candidate is being measured on.
        options.add_session_config_entry("session.force_spinning_stop", "1")
    if exact:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if profile_to is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_to)
    return _open(path, _provider(runtime), options, threads)


def can_run(path: Path, runtime: str) -> str:
    """Whether a runtime can run a model: it is loaded there, and some of it must be computed by the runtime itself.

    Args:
        path: An ONNX file.
        runtime: One of those that :func:`accel.runtimes.discover.discover` finds.

    Returns:
        Why it cannot; empty where it can.
    """
    options = _options(threads=1)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        provider = _provider(runtime)
        session = _open(path, provider, options, 1)
    except (RuntimeUnavailable, RuntimeFailed, OutOfMemory) as error:
        return error.message
    if provider.provider == CPU:
        return ""
    parts = session.native.get_provider_graph_assignment_info()
    if any(part.ep_name == provider.provider for part in parts):
        return ""
    return f"{runtime} takes none of the model's operators; all of them would run on the processor, by ONNX Runtime."


def _options(threads: int | None) -> ort.SessionOptions:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _provider(runtime: str) -> Provider:
    found = provider_of(runtime) if runtime.startswith("onnxruntime:") else None
    if found is None or found.reason:
        raise unavailable(runtime)
    return found


def _open(path: Path, provider: Provider, options: ort.SessionOptions, threads: int | None) -> Session:
    import onnxruntime as ort

    runtime = provider.runtime
    try:
        if provider.native is not None:
            options.add_provider_for_devices([provider.native], provider.options(threads))
        names = None if provider.native is not None else list(dict.fromkeys((provider.provider, CPU)))
        # What a provider refuses would otherwise run on the processor, under the provider's name.
        native = ort.InferenceSession(str(path), options, providers=names, enable_fallback=0)
    except Exception as error:
        raise _failure(error, f"{runtime} could not load the model") from error
    if provider.provider not in native.get_providers():
        raise RuntimeFailed(
            f"{runtime} could not load the model: {provider.provider} did not start.",
            hint="Its driver or a library that it needs may be missing.",
        )
    return Session(runtime, _ports(native.get_inputs()), _ports(native.get_outputs()), native)


def _ports(arguments: Sequence[ort.NodeArg]) -> tuple[Port, ...]:
    ports = []
    for argument in arguments:
        element = re.fullmatch(r"tensor\((\w+)\)", argument.type)
        dtype = _DTYPES.get(element[1]) if element else None
        shape = tuple(d if isinstance(d, int | str) else None for d in argument.shape or ())
        ports.append(Port(argument.name, np.dtype(dtype) if dtype else None, shape))
    return tuple(ports)


def _failure(error: Exception, what: str) -> RuntimeFailed | OutOfMemory:
    text = clean(str(error))
    if isinstance(error, MemoryError) or re.search(r"bad_alloc|Failed to allocate|out of memory", text, re.IGNORECASE):
        return OutOfMemory(f"{what}: it needs more memory than it may take.", hint="Use a smaller batch or input.")
    return RuntimeFailed(f"{what}: {text}", hint="The message is the runtime's own; the node's name is in it.")
