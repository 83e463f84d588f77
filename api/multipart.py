"""A multipart form with one file, read as it comes: the file goes on in pieces, the fields are kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from api.errors import Fault, HttpFault

MAX_FIELD_BYTES: Final = 1 << 20
_HINT: Final = "Send multipart/form-data with one part `file`, for example: curl -F file=@model.onnx -F name=mine URL"


def boundary_of(content_type: str | None) -> bytes:
    """The boundary that a ``Content-Type`` announces.

    Raises:
        HttpFault: ``unsupported_media_type`` or ``bad_multipart``.
    """
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        told = kind.decode("latin-1")[:100] or "of no stated type"
        raise HttpFault("unsupported_media_type", f"The body must be multipart/form-data, not {told}.", hint=_HINT)
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise HttpFault("bad_multipart", "The Content-Type names no boundary.", hint=_HINT)
    return boundary


class FormReader:
    """Reads the form piece by piece.

    Args:
        boundary: Of the body.
        fields: Names of the text parts that are taken.
        on_file: Gets the file's bytes as they come: a view that is good until the call returns.
    """

    def __init__(self, boundary: bytes, *, fields: frozenset[str], on_file: Callable[[memoryview], None]) -> None:
        self._known = fields
        self._on_file = on_file
        self._header_name = b""
        self._header_value = b""
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._texts: dict[str, bytearray] = {}
        self._done = False
        self.filename: str | None = None
        """Name that the caller's computer has for the file; None until the part has begun."""
        self.file_headers: dict[bytes, bytes] = {}
        """Headers of the file's part."""
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._headers.clear,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise HttpFault("bad_multipart", f"The boundary cannot be used: {error}.") from None

    def feed(self, data: bytes) -> None:
        """Read on.

        Raises:
            HttpFault: ``bad_multipart`` or ``invalid``.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise HttpFault("bad_multipart", f"The multipart body is broken: {error}.", hint=_HINT) from None

    def finish(self) -> dict[str, str]:
        """The fields, after the whole body was fed.

        Raises:
            HttpFault: ``bad_multipart`` when the end is missing, ``invalid`` when the file is.
        """
        if not self._done:
            raise HttpFault("bad_multipart", "The multipart body has no end: the upload was cut off.", hint=_HINT)
        if self.filename is None:
            fault = Fault("/file", "The part is missing.", "missing")
            raise HttpFault("invalid", "The form has no part `file` with a file.", hint=_HINT, faults=[fault])
        return {name: _text(name, value) for name, value in self._texts.items()}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._header_name.lower()] = self._header_value
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name == "file":
            if self.filename is not None:
                raise _invalid("/file", "There are two files.", "Upload one file in one request.")
            if b"filename" not in options:
                raise _invalid("/file", "The part `file` is a text, not a file.", _HINT)
            self.filename = options[b"filename"].decode("utf-8", "replace")
            self.file_headers = dict(self._headers)
        elif name not in self._known:
            known = ", ".join(sorted(self._known | {"file"}))
            raise _invalid(f"/{name[:100]}", f"The form takes no part {name[:100]!a}.", f"Its parts are: {known}.")
        elif name in self._texts:
            raise _invalid(f"/{name}", f"The part `{name}` occurs twice.", "")
        else:
            self._texts[name] = bytearray()
        self._name = name

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self._on_file(memoryview(data)[start:end])
            return
        text = self._texts[self._name]
        if len(text) + end - start > MAX_FIELD_BYTES:
            raise HttpFault("body_too_large", f"The part `{self._name}` is larger than {MAX_FIELD_BYTES} bytes.")
        text += data[start:end]

    def _on_end(self) -> None:
        self._done = True


def _invalid(pointer: str, message: str, hint: str) -> HttpFault:
    return HttpFault("invalid", message, hint=hint, faults=[Fault(pointer, message)])


def _text(name: str, value: bytearray) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _invalid(f"/{name}", f"The part `{name}` is not UTF-8.", "") from None
