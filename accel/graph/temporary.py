"""Graphs that are written only to be run or looked at, and are gone after it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from accel.errors import TooLarge
from accel.runtimes.onnxruntime import Session, open_session

if TYPE_CHECKING:
    import onnx_ir as ir


@contextlib.contextmanager
def temporary_file(model: ir.Model, workspace: Path) -> Iterator[Path]:
    """A file of a graph that is removed at the end; unlike a result it need not outlive a loss of power.

    Raises:
        TooLarge: It is larger than a file can be.
    """
    import onnx_ir as ir
    from google.protobuf.message import EncodeError

    try:
        data = ir.to_proto(model).SerializeToString()
    except (EncodeError, ValueError) as error:  # a protobuf message has an end at 2 GiB
        raise TooLarge("The graph, with what is measured in it, is larger than 2 GiB.") from error
    with tempfile.NamedTemporaryFile(dir=workspace, suffix=".onnx") as file:
        file.write(data)
        file.flush()
        yield Path(file.name)


def opened(model: ir.Model, workspace: Path) -> Session:
    """Load a graph on the processor, to be computed as it is written: no integer kernel saturates.

    Args:
        model: The graph.
        workspace: Folder for the file that the runtime loads; it is removed.

    Raises:
        RuntimeFailed: The runtime refuses it.
    """
    with temporary_file(model, workspace) as path:
        return open_session(path, "onnxruntime:cpu", exact=True)
