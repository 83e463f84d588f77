"""The API's description. ``python -m api.openapi`` prints the one that is kept in the repository."""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.errors import Problem
from api.examples import DATASET_ID, JOB_ID, MODEL_ID
from api.schemas.jobs import JobEventDocument

TITLE: Final = "Accel"
VERSION: Final = "0.1.0"
_SUMMARY: Final = "Makes models smaller and faster, and measures what it did."
_DESCRIPTION: Final = """\
1. **Upload** a model (`POST /v1/models`) and, for calibration and accuracy, a dataset (`POST /v1/datasets`).
2. **Ask** for a job: compress, evaluate or benchmark. The answer comes at once, with the job's address.
3. **Wait** for it: `GET /v1/jobs/{id}?wait=30`, or follow `GET /v1/jobs/{id}/events`.
4. **Compare**: `GET /v1/compare?model=…&model=…`.

The examples of this page name the newest model and dataset that were uploaded, so they run as they stand; reload the page after an upload.

Errors are `application/problem+json` (RFC 9457) with a stable `code`, the fields at fault in `errors`, and a `hint`.
"""
_TAGS: Final = (
    ("models", "Networks, as ONNX files."),
    ("datasets", "Labelled data: to calibrate, and to measure quality."),
    ("jobs", "Work: compress, evaluate, benchmark."),
    ("compare", "Models side by side."),
    ("catalogue", "Techniques, runtimes, workers."),
    ("health", "For whoever runs the service."),
)
_EXAMPLES: Final = {"model_id": MODEL_ID, "dataset_id": DATASET_ID, "job_id": JOB_ID}


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with placeholders for the ids in its examples."""
    spec = get_openapi(
        title=TITLE,
        version=VERSION,
        summary=_SUMMARY,
        description=_DESCRIPTION,
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in _TAGS],
    )
    schemas = spec.setdefault("components", {}).setdefault("schemas", {})
    for value in (Problem, JobEventDocument):
        schema = value.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[value.__name__] = schema
    for path in spec["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path" and parameter["name"] in _EXAMPLES:
                    parameter["example"] = _EXAMPLES[parameter["name"]]
                elif parameter["in"] == "query" and parameter["name"] == "model":
                    parameter["example"] = [MODEL_ID]
    return spec


def with_ids(text: str, *, model_id: str | None, dataset_id: str | None, job_id: str | None) -> str:
    """The document's JSON with real ids in its examples, where there are any."""
    for placeholder, identity in ((MODEL_ID, model_id), (DATASET_ID, dataset_id), (JOB_ID, job_id)):
        if identity is not None:
            text = text.replace(placeholder, identity)
    return text


def main() -> None:
    """Print the document."""
    from api.main import routed  # noqa: PLC0415  (that module needs this one)

    json.dump(describe(routed()), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
