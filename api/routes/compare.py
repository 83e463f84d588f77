"""Models side by side."""

from __future__ import annotations

from typing import Annotated, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api import comparison
from api.accept import preferred
from api.answers import problems
from api.errors import HttpFault
from api.room import TheRoom
from store.comparison import compare

router = APIRouter(prefix="/v1", tags=["compare"])

Format = Literal["json", "html", "csv", "markdown"]
_TYPES: Final[dict[str, Format]] = {
    "application/json": "json",
    "text/html": "html",
    "text/csv": "csv",
    "text/markdown": "markdown",
}
_PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get(
    "/compare",
    operation_id="compare",
    summary="Put models side by side",
    response_model=comparison.Comparison,
    responses={
        200: {
            "description": "The comparison.",
            "content": {name: {"schema": {"type": "string"}} for name in _TYPES if name != "application/json"},
        },
        **problems(404, 406, 422),
    },
)
def compare_models(
    request: Request,
    room: TheRoom,
    model: Annotated[list[UUID], Query(min_length=1, max_length=32, description="Models, in the order to show.")],
    baseline: Annotated[
        UUID | None,
        Query(
            description="What the others are compared with. Left out, it is the model of the list that all others were made "
            "of; if there is none, the first."
        ),
    ] = None,
    format: Annotated[  # noqa: A002  (the name of the parameter is what callers write)
        Format | None, Query(description="Instead of the header Accept.")
    ] = None,
) -> Response:
    """Which model to take, and the figures behind it: lineage, quality with its loss and verdict, size, speed, the Pareto set.

    Figures are those of the newest evaluations and benchmarks. Those of different environments, datasets or splits are shown
    apart, with a warning. As JSON, a web page, CSV or Markdown, by `Accept` or `format`.
    """
    shown = format or _negotiated(request)
    with room.database.read() as session:
        table = compare(session, model, baseline)
    found = comparison.comparison_of(table)
    headers = {"Vary": "Accept"}
    match shown:
        case "json":
            return Response(found.model_dump_json(), 200, headers, "application/json")
        case "html":
            headers["Content-Security-Policy"] = _PAGE_POLICY
            return Response(comparison.as_html(found), 200, headers, "text/html")
        case "csv":
            return Response(comparison.as_csv(found), 200, headers, "text/csv")
        case "markdown":
            return Response(comparison.as_markdown(found), 200, headers, "text/markdown")


def _negotiated(request: Request) -> Format:
    best = preferred(request.headers.get("accept"), tuple(_TYPES))
    if best is None:
        raise HttpFault("not_acceptable", f"The comparison comes as {', '.join(_TYPES)}.")
    return _TYPES[best]
