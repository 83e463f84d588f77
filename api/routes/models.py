"""Networks: upload, look, download, delete."""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID

from fastapi import APIRouter, Request, Response

from accel.report import ModelSummary
from api import etag
from api.answers import PageSize, PageToken, document, idempotency_key, page_links, problems
from api.download import add_download, file_answer
from api.forms import form_schema, name_of
from api.inspect import inspect_model
from api.json_body import StrictRoute
from api.room import IdempotencyKeyHeader, IfNoneMatchHeader, Room, TheRoom
from api.schemas.catalogue import ModelDocument, ModelPage
from api.upload import Upload, received
from store import models
from store.idempotency import IdempotencyKey
from store.values import Model

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=StrictRoute)
_ROUTE: Final = "POST /v1/models"


@router.post(
    "",
    operation_id="upload_model",
    summary="Upload a model",
    status_code=201,
    response_model=ModelDocument,
    responses={
        200: {"description": "The same file is kept already: that model.", "model": ModelDocument},
        **problems(400, 413, 415, 422, 507),
    },
    openapi_extra=form_schema("An ONNX file, without external data.", with_spec=False),
)
async def upload_model(request: Request, room: TheRoom, key: IdempotencyKeyHeader = None) -> Response:
    """Keep an ONNX file. It is checked and described at once, in a confined process; a file that is refused leaves nothing.

    Send `Repr-Digest: sha-256=:…:` (RFC 9530) to have the bytes checked on arrival.
    """
    async with received(
        request, spool=room.files.spool_dir, settings=room.settings, fields=frozenset({"name"})
    ) as upload:
        name = name_of(upload, "model")
        bound = idempotency_key(key, _ROUTE, upload.sha256, name)
        model, created = await _take(room, upload, name, bound)
    room.metrics.uploaded(upload.size_bytes)
    where = f"/v1/models/{model.id}"
    return document(ModelDocument.of(model), status=201 if created else 200, location=where)


async def _take(room: Room, upload: Upload, name: str, key: IdempotencyKey | None) -> tuple[Model, bool]:
    known = await asyncio.to_thread(_known, room, upload.sha256)
    summary = known.summary if known is not None else await inspect_model(room, upload.path)
    return await asyncio.to_thread(_keep, room, upload, name, summary, key)


def _known(room: Room, sha256: str) -> Model | None:
    with room.database.read() as session:
        return models.find(session, sha256)


def _keep(
    room: Room, upload: Upload, name: str, summary: ModelSummary, key: IdempotencyKey | None
) -> tuple[Model, bool]:
    # The file first: a row without a file is a lie, a file without a row is swept up later. It is put even where it
    # is kept already: that makes it young, so that the sweep cannot take it before the row is written.
    room.files.put_file(upload.path, upload.sha256)
    with room.database.write() as session:
        return models.register(
            session,
            name=name,
            sha256=upload.sha256,
            size_bytes=upload.size_bytes,
            summary=summary,
            idempotency_key=key,
        )


@router.get(
    "",
    operation_id="list_models",
    summary="List models",
    response_model=ModelPage,
    responses=problems(422),
)
def list_models(request: Request, room: TheRoom, page_size: PageSize = 50, page_token: PageToken = None) -> Response:
    """Models, newest first."""
    with room.database.read() as session:
        page = models.page(session, page_size=page_size, page_token=page_token)
    shown = ModelPage(items=tuple(map(ModelDocument.of, page.items)), next_page_token=page.next_page_token)
    answer = document(shown)
    answer.headers.update(page_links(request, page.next_page_token))
    return answer


@router.get(
    "/{model_id}",
    operation_id="get_model",
    summary="Describe a model",
    response_model=ModelDocument,
    responses={304: {"description": "You have it."}, **problems(404, 422)},
)
def get_model(model_id: UUID, room: TheRoom, if_none_match: IfNoneMatchHeader = None) -> Response:
    """Signature, operators, parameters, multiply-accumulates, size, hash and lineage."""
    with room.database.read() as session:
        model = models.get(session, model_id)
    # A model never changes, but for its parent, which may be deleted.
    return document(ModelDocument.of(model), tag=etag.strong(f"{model.id}.{model.parent_id}"), have=if_none_match)


@router.delete(
    "/{model_id}",
    operation_id="delete_model",
    summary="Delete a model",
    status_code=204,
    responses=problems(404, 409, 422),
)
def delete_model(model_id: UUID, room: TheRoom) -> Response:
    """Forget a model. Its file is removed later, when nothing else needs it. One that an unfinished job needs stays (409)."""
    with room.database.write() as session:
        models.delete(session, model_id)
    return Response(status_code=204)


def download_model(
    request: Request, model_id: UUID, room: TheRoom, if_none_match: IfNoneMatchHeader = None
) -> Response:
    """The ONNX file, whole or in part (`Range`)."""
    with room.database.read() as session:
        model = models.get(session, model_id)
    return file_answer(
        request,
        room.files,
        sha256=model.sha256,
        size_bytes=model.size_bytes,
        filename=_filename(model),
        have=if_none_match,
    )


add_download(
    router,
    "/{model_id}/file",
    download_model,
    operation_id="download_model",
    summary="Download a model",
)


def _filename(model: Model) -> str:
    return model.name if model.name.lower().endswith(".onnx") else f"{model.name}.onnx"
