"""Swagger UI, served from here and from nowhere else, and the description that it shows."""

from __future__ import annotations

import json
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.templating import Jinja2Templates
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from api.comparison import TEMPLATES
from api.openapi import TITLE, describe, with_ids
from api.room import TheRoom
from store import datasets, jobs, models

router = APIRouter(include_in_schema=False)
_pages = Jinja2Templates(directory=TEMPLATES)
# Swagger UI sets styles from its script and draws with data: images; scripts come from files of ours alone.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_PAGES_LOOKED_THROUGH: Final = 5


@router.get("/")
async def home(request: Request) -> Response:
    """To the documentation."""
    return RedirectResponse(f"{_root(request)}/docs", status_code=307)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Swagger UI."""
    values = {"root": _root(request), "title": f"{TITLE}: the API"}
    return _pages.TemplateResponse(request, "docs.html", values, headers={"Content-Security-Policy": _POLICY})


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """The API's description, as it is in the repository."""
    return Response(_text(request), media_type="application/json")


@router.get("/docs/openapi.json")
def openapi_of_docs(request: Request, room: TheRoom) -> Response:
    """The description with the ids of the newest uploads in its examples."""
    text = _text(request)
    try:
        with room.database.read() as session:
            datasets_there = datasets.page(session, page_size=1).items
            jobs_there = jobs.documents(session, page_size=1).items
            text = with_ids(
                text,
                model_id=_newest_upload(session),
                dataset_id=str(datasets_there[0].id) if datasets_there else None,
                job_id=json.loads(jobs_there[0])["id"] if jobs_there else None,
            )
    except DBAPIError:
        pass  # the documentation is readable without a database
    return Response(text, headers={"Cache-Control": "no-store"}, media_type="application/json")


def _newest_upload(session: Session) -> str | None:
    token = None
    for _ in range(_PAGES_LOOKED_THROUGH):
        page = models.page(session, page_size=100, page_token=token)
        for model in page.items:
            if model.job_id is None:
                return str(model.id)
        token = page.next_page_token
        if token is None:
            return None
    return None


def _text(request: Request) -> str:
    state = request.app.state
    if not hasattr(state, "openapi_text"):
        state.openapi_text = json.dumps(describe(request.app), ensure_ascii=False)
    text: str = state.openapi_text
    return text


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/")
