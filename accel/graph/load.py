"""Read and write ONNX files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from accel.errors import BadModel, TooLarge
from accel.graph.sniff import refuse_other_formats

if TYPE_CHECKING:
    import onnx
    import onnx_ir

MAX_BYTES = 2**31 - 1
"""A protobuf message, and so an ONNX file without external data, cannot be larger."""


def load_proto(path: Path) -> onnx.ModelProto:
    """Read an ONNX file and check it, as if it were made to do harm.

    Raises:
        UnsupportedFormat: It is of another format.
        BadModel: It is not valid ONNX.
        ExternalData: It keeps tensors in other files.
        UnknownOperator: It uses an operator that no runtime here has.
        TooLarge: It is beyond the limits.
    """
    if path.stat().st_size > MAX_BYTES:
        raise TooLarge("The file is larger than 2 GiB, the largest that one ONNX file can be.")
    data = path.read_bytes()
    refuse_other_formats(data)
    import onnx
    from google.protobuf.message import DecodeError

    from accel.graph.check import check

    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise BadModel(
            "The file is not an ONNX model, or is cut off.", hint="Compare its size with the original; upload it again."
        ) from error
    del data
    check(model)
    return model


def load(path: Path) -> onnx_ir.Model:
    """Read an ONNX file, checked like :func:`load_proto`, as the graph that techniques work on."""
    import onnx_ir

    return onnx_ir.from_proto(load_proto(path))


def copied(model: onnx_ir.Model) -> onnx_ir.Model:
    """A model of its own with the same graph; weights are shared, since nothing changes them in place."""
    import onnx_ir

    return onnx_ir.from_proto(onnx_ir.to_proto(model))


def save(model: onnx_ir.Model, path: Path) -> None:
    """Write a model to one file; the same model gives the same bytes."""
    import onnx_ir

    save_proto(onnx_ir.to_proto(model), path)


def save_proto(model: onnx.ModelProto, path: Path) -> None:
    """Write a model to one file, complete or not at all."""
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        file.write(model.SerializeToString(deterministic=True))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
