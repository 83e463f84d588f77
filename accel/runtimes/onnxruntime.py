"""ONNX Runtime: one model loaded on one execution provider."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accel.errors import OutOfMemory, RuntimeFailed, RuntimeUnavailable
from accel.runtimes import openvino
from accel.runtimes.discover import discover
from accel.runtimes.messages import clean

if TYPE_CHECKING:
    import onnxruntime as ort

Array = npt.NDArray[np.generic]

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
class Port:
    """One input or output: a dimension is a size, a name, or None where the model does not say."""

    name: str
    dtype: np.dtype[np.generic] | None
    shape: tuple[int | str | None, ...]


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


def open_session(path: Path, runtime: str, *, threads: int | None = None) -> Session:
    """Load a model.

    Args:
        path: An ONNX file.
        runtime: ``onnxruntime:cpu`` or ``onnxruntime:openvino``.
        threads: Threads within one operator; None leaves it to the runtime (one for each core).

    Raises:
        RuntimeUnavailable: This host does not have the runtime.
        RuntimeFailed: The runtime refused the model.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.inter_op_num_threads = 1
    if threads is not None:
        options.intra_op_num_threads = threads
    # An idle session must not burn a core that another candidate is being measured on.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    framework, _, device = runtime.partition(":")
    if framework != "onnxruntime" or device not in {"cpu", "openvino"}:
        raise _unavailable(runtime, "no such runtime is known")
    providers = ["CPUExecutionProvider"]
    if device == "openvino":
        devices, reason = openvino.devices()
        if not devices:
            raise _unavailable(runtime, reason)
        options.add_provider_for_devices(devices, openvino.options(threads))
        providers = []
    try:
        native = ort.InferenceSession(str(path), options, providers=providers or None)
    except Exception as error:
        raise _failure(error, f"{runtime} could not load the model") from error
    return Session(runtime, _ports(native.get_inputs()), _ports(native.get_outputs()), native)


def _ports(arguments: Sequence[ort.NodeArg]) -> tuple[Port, ...]:
    ports = []
    for argument in arguments:
        element = re.fullmatch(r"tensor\((\w+)\)", argument.type)
        dtype = _DTYPES.get(element[1]) if element else None
        shape = tuple(d if isinstance(d, int | str) else None for d in argument.shape or ())
        ports.append(Port(argument.name, np.dtype(dtype) if dtype else None, shape))
    return tuple(ports)


def _unavailable(runtime: str, reason: str) -> RuntimeUnavailable:
    there = ", ".join(found.name for found in discover() if found.available)
    return RuntimeUnavailable(f"{runtime} cannot be used on this host: {reason}.", hint=f"Here there is: {there}.")


def _failure(error: Exception, what: str) -> RuntimeFailed | OutOfMemory:
    text = clean(str(error))
    if isinstance(error, MemoryError) or re.search(r"bad_alloc|Failed to allocate|out of memory", text, re.IGNORECASE):
        return OutOfMemory(f"{what}: it needs more memory than it may take.", hint="Use a smaller batch or input.")
    return RuntimeFailed(f"{what}: {text}", hint="The message is the runtime's own; the node's name is in it.")
