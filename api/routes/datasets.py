"""Datasets: upload, look, download, delete."""

from __future__ import annotations

import asyncio
from typing import Final
from uuid import UUID

from fastapi import APIRouter, Request, Response

from accel.data.spec import DatasetSpec
from accel.report import DatasetSummary
from api import etag
from api.answers import PageSize, PageToken, document, idempotency_key, page_links, problems
from api.download import add_download, file_answer
from api.forms import form_schema, name_of, spec_of
from api.inspect import inspect_dataset
from api.json_body import StrictRoute
from api.room import IdempotencyKeyHeader, IfNoneMatchHeader, Room, TheRoom
from api.schemas.catalogue import DatasetDocument, DatasetPage
from api.upload import Upload, received
from store import datasets
from store.idempotency import IdempotencyKey
from store.values import Dataset

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], route_class=StrictRoute)
_ROUTE: Final = "POST /v1/datasets"


@router.post(
    "",
    operation_id="upload_dataset",
    summary="Upload a dataset",
    status_code=201,
    response_model=DatasetDocument,
    responses={
        200: {"description": "The same file with the same spec is kept already.", "model": DatasetDocument},
        **problems(400, 413, 415, 422, 507),
    },
    openapi_extra=form_schema("An .npz file (arrays named `<column>_<split>`) or an .npy file.", with_spec=True),
)
async def upload_dataset(request: Request, room: TheRoom, key: IdempotencyKeyHeader = None) -> Response:
    """Keep a dataset. It is checked and described at once, in a confined process; a file that is refused leaves nothing.

    Arrays of an npz file are named `<column>_<split>` (`x_train`, `y_test`); arrays without a split form one table.
    """
    async with received(
        request, spool=room.files.spool_dir, settings=room.settings, fields=frozenset({"name", "spec"})
    ) as upload:
        name, spec = name_of(upload, "dataset"), spec_of(upload)
        bound = idempotency_key(key, _ROUTE, upload.sha256, name, spec.model_dump_json())
        dataset, created = await _take(room, upload, name, spec, bound)
    room.metrics.uploaded(upload.size_bytes)
    where = f"/v1/datasets/{dataset.id}"
    return document(DatasetDocument.of(dataset), status=201 if created else 200, location=where)


async def _take(
    room: Room, upload: Upload, name: str, spec: DatasetSpec, key: IdempotencyKey | None
) -> tuple[Dataset, bool]:
    known = await asyncio.to_thread(_known, room, upload.sha256, spec)
    summary = known.summary if known is not None else await inspect_dataset(room, upload.path, spec)
    return await asyncio.to_thread(_keep, room, upload, name, spec, summary, key)


def _known(room: Room, sha256: str, spec: DatasetSpec) -> Dataset | None:
    with room.database.read() as session:
        return datasets.find(session, sha256, spec)


def _keep(
    room: Room, upload: Upload, name: str, spec: DatasetSpec, summary: DatasetSummary, key: IdempotencyKey | None
) -> tuple[Dataset, bool]:
    # The file first, as for models.
    room.files.put_file(upload.path, upload.sha256)
    with room.database.write() as session:
        return datasets.register(
            session,
            name=name,
            sha256=upload.sha256,
            size_bytes=upload.size_bytes,
            spec=spec,
            summary=summary,
            idempotency_key=key,
        )


@router.get(
    "",
    operation_id="list_datasets",
    summary="List datasets",
    response_model=DatasetPage,
    responses=problems(422),
)
def list_datasets(request: Request, room: TheRoom, page_size: PageSize = 50, page_token: PageToken = None) -> Response:
    """Datasets, newest first."""
    with room.database.read() as session:
        page = datasets.page(session, page_size=page_size, page_token=page_token)
    shown = DatasetPage(items=tuple(map(DatasetDocument.of, page.items)), next_page_token=page.next_page_token)
    answer = document(shown)
    answer.headers.update(page_links(request, page.next_page_token))
    return answer


@router.get(
    "/{dataset_id}",
    operation_id="get_dataset",
    summary="Describe a dataset",
    response_model=DatasetDocument,
    responses={304: {"description": "You have it."}, **problems(404, 422)},
)
def get_dataset(dataset_id: UUID, room: TheRoom, if_none_match: IfNoneMatchHeader = None) -> Response:
    """Columns, splits, task, classes, size and hash."""
    with room.database.read() as session:
        dataset = datasets.get(session, dataset_id)
    return document(DatasetDocument.of(dataset), tag=etag.strong(str(dataset.id)), have=if_none_match)


@router.delete(
    "/{dataset_id}",
    operation_id="delete_dataset",
    summary="Delete a dataset",
    status_code=204,
    responses=problems(404, 409, 422),
)
def delete_dataset(dataset_id: UUID, room: TheRoom) -> Response:
    """Forget a dataset. Its file is removed later, when nothing else needs it. One that an unfinished job needs stays (409)."""
    with room.database.write() as session:
        datasets.delete(session, dataset_id)
    return Response(status_code=204)


def download_dataset(
    request: Request, dataset_id: UUID, room: TheRoom, if_none_match: IfNoneMatchHeader = None
) -> Response:
    """The dataset's file, whole or in part (`Range`)."""
    with room.database.read() as session:
        dataset = datasets.get(session, dataset_id)
    return file_answer(
        request,
        room.files,
        sha256=dataset.sha256,
        size_bytes=dataset.size_bytes,
        filename=dataset.name,
        have=if_none_match,
    )


add_download(
    router,
    "/{dataset_id}/file",
    download_dataset,
    operation_id="download_dataset",
    summary="Download a dataset",
)
