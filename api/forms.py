"""The forms of uploads: how Swagger UI shows them, and how their text parts are read."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from pydantic import TypeAdapter, ValidationError

from accel.data.spec import DatasetSpec
from api import json_body
from api.errors import Fault, HttpFault
from api.upload import Upload
from store.text import Name

_name: TypeAdapter[str] = TypeAdapter(Name)

SPEC_EXAMPLE = '{"task": "classification"}'


def form_schema(what: str, *, with_spec: bool) -> dict[str, Any]:
    """The request body of an upload: one file, for which Swagger UI shows a file picker."""
    properties: dict[str, Any] = {
        "file": {"type": "string", "format": "binary", "description": what},
        "name": {"type": "string", "maxLength": 200, "description": "What to call it; the file's name if left out."},
    }
    if with_spec:
        properties["spec"] = {
            "type": "string",
            "contentMediaType": "application/json",
            "description": (
                "What the columns mean, as JSON (DatasetSpec): `task`, `target`, `splits`, "
                "each part optional where it can be inferred."
            ),
            "examples": [SPEC_EXAMPLE],
        }
    schema = {"type": "object", "required": ["file"], "properties": properties, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def name_of(upload: Upload, otherwise: str) -> str:
    """The name that the caller gave, or else the file's.

    Raises:
        HttpFault: ``invalid``.
    """
    given = upload.fields.get("name", "").strip()
    # The file's name is what the caller's computer says: some send a whole path.
    from_file = PurePosixPath(PureWindowsPath(upload.filename).name).name.replace("\0", "")[:200].strip()
    try:
        return _name.validate_python(given or from_file or otherwise)
    except ValidationError as error:
        message = f"The name {error.errors()[0]['msg'].removeprefix('Value error, ')}."
        raise HttpFault("invalid", message, faults=[Fault("/name", message)]) from None


def spec_of(upload: Upload) -> DatasetSpec:
    """The dataset's spec that the form holds; an empty one if left out.

    Raises:
        HttpFault: ``invalid`` or ``bad_json``.
    """
    text = upload.fields.get("spec", "").strip()
    if not text:
        return DatasetSpec()
    try:
        return DatasetSpec.model_validate(json_body.parse(text.encode()))
    except HttpFault as error:
        message = error.message.replace("The body", "The part `spec`")
        raise HttpFault(
            "bad_json", message, hint=f"Example: {SPEC_EXAMPLE}", faults=[Fault("/spec", message)]
        ) from None
    except ValidationError as error:
        faults = [
            Fault(
                f"/spec{''.join(f'/{json_body.escape(str(part))}' for part in item['loc'])}",
                item["msg"].removeprefix("Value error, "),
                item["type"],
            )
            for item in error.errors()
        ]
        message = f"The part `spec` does not fit: {faults[0].pointer}: {faults[0].message}"
        raise HttpFault("invalid", message, hint=f"Example: {SPEC_EXAMPLE}", faults=faults) from None
