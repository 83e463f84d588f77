"""What kind of file this is, by its first bytes; never by its name."""

from __future__ import annotations

import re

from accel.errors import BadModel, UnsupportedFormat

_TORCH = (
    "Load it in your own process and call torch.onnx.export(model, example_inputs, 'model.onnx', dynamo=True, "
    "external_data=False), then upload the ONNX file."
)
_KERAS = "Load it in your own process and call model.export('model.onnx', format='onnx'), then upload the ONNX file."

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"
_BY_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (_HDF5, "an HDF5 file (Keras .h5)", _KERAS),
    (b"GGUF", "a GGUF file", "Only ONNX graphs are taken; convert the original model to ONNX."),
    (b"\x93NUMPY", "a NumPy array", "Upload it as a dataset: POST /v1/datasets."),
    (b"\x1f\x8b", "a gzip file", "Upload the ONNX file itself, uncompressed."),
    (b"\x7fELF", "a program", "Only ONNX graphs are taken."),
)
_ZIPPED: tuple[tuple[bytes, str, str], ...] = (
    (b"constants.pkl", "a TorchScript file", _TORCH),
    (b"data.pkl", "a PyTorch .pt file", _TORCH),
    (b"archive_format", "a PyTorch .pt2 file", _TORCH),
    (b"config.json", "a .keras file", _KERAS),
    (b"[Content_Types].xml", "an Office document", "Only ONNX graphs are taken."),
    (b".npy", "an npz file", "Upload it as a dataset: POST /v1/datasets."),
)


def refuse_other_formats(data: bytes) -> None:
    """Refuse what is plainly something else than ONNX, and say how to convert it.

    Args:
        data: The whole file.

    Raises:
        BadModel: The file is empty or is text.
        UnsupportedFormat: The file is of another format, most of which run code when they are loaded.
    """
    if not data:
        raise BadModel("The file is empty.", hint="The upload may have been cut off; send the ONNX file again.")
    found = _other_format(data)
    if found is not None:
        what, hint = found
        raise UnsupportedFormat(f"The file is {what}, not ONNX.", hint=hint)
    if _is_text(data[:4096]):
        raise BadModel(
            "The file is text, not an ONNX model.",
            hint="A git-lfs pointer or an error page often is what a download left; fetch the file itself.",
        )


def _other_format(data: bytes) -> tuple[str, str] | None:
    for magic, what, hint in _BY_MAGIC:
        if data.startswith(magic):
            return what, hint
    if data[4:8] == b"TFL3":
        return "a TensorFlow Lite file", "Convert the original model with tf2onnx, then upload the ONNX file."
    if data.startswith(_ZIP):
        # Names of members stand in clear in the local headers and in the directory at the end.
        for name, what, hint in _ZIPPED:
            if name in data[:65536] or name in data[-65536:]:
                return what, hint
        return "a zip archive", "Upload the ONNX file itself; tensors must be inside it, not beside it."
    if re.match(rb"\x80[\x02-\x05]", data) and data.rstrip(b"\x00").endswith(b"."):
        return "a pickle", "Pickles run code when they are loaded and are never read here. " + _TORCH
    if re.match(rb".{8}\{\s*\"", data[:64], re.DOTALL) and int.from_bytes(data[:8], "little") < len(data):
        return "a safetensors file", "It holds weights without a graph. " + _TORCH
    return None


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return False
        text = head[: error.start].decode("utf-8")
    return all(character.isprintable() or character in "\r\n\t\f" for character in text)
