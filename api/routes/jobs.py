"""Jobs: ask, look, wait, follow, cancel, retry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Body, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from api import etag, examples
from api.answers import PageSize, PageToken, Responses, document, idempotency_key, page_links, problems
from api.download import add_download, file_answer
from api.errors import Fault, HttpFault
from api.json_body import StrictRoute
from api.room import IdempotencyKeyHeader, IfNoneMatchHeader, Room, TheRoom
from api.schemas.jobs import JobDocument, JobFileDocument, JobFileList, JobPage
from store import job_files, jobs
from store.errors import NotFound
from store.specs import BenchmarkSpec, CompressSpec, EvaluateSpec, JobSpec, TrainSpec
from store.states import JobState
from store.values import JobEvent

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=StrictRoute)
LONGEST_WAIT_S: Final = 60
_JSON: Final = "application/json"

FileName = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}$", description="As the list names it.")]

_LINKS: Final[dict[str, Any]] = {
    "job": {"operationId": "get_job", "parameters": {"job_id": "$response.body#/id"}},
    "cancel": {"operationId": "cancel_job", "parameters": {"job_id": "$response.body#/id"}},
    "events": {"operationId": "job_events", "parameters": {"job_id": "$response.body#/id"}},
}
_ACCEPTED: Final[dict[str, Any]] = {
    "description": "The job is written down and will be done.",
    "headers": {
        "Location": {"description": "The job.", "schema": {"type": "string"}},
        "Retry-After": {"description": "Seconds after which to look.", "schema": {"type": "integer"}},
    },
    "links": _LINKS,
}
_SUBMITTED: Final[Responses] = {202: _ACCEPTED, **problems(400, 413, 415, 422)}
_SUBMIT: Final[dict[str, Any]] = {"status_code": 202, "response_model": JobDocument, "responses": _SUBMITTED}
"""What the routes that make a job have in common."""


@router.post("/compress", operation_id="compress", summary="Compress a model", **_SUBMIT)
def compress(
    spec: Annotated[CompressSpec, Body(openapi_examples=examples.compress())],
    room: TheRoom,
    key: IdempotencyKeyHeader = None,
) -> Response:
    """Apply a recipe: each step's result is kept as a model, loaded again in its runtime and compared with its parent."""
    return _submit(room, spec, key)


@router.post("/evaluate", operation_id="evaluate", summary="Measure quality", **_SUBMIT)
def evaluate(
    spec: Annotated[EvaluateSpec, Body(openapi_examples=examples.EVALUATE)],
    room: TheRoom,
    key: IdempotencyKeyHeader = None,
) -> Response:
    """Run models on one split of a dataset: metrics with intervals, and the paired loss against the baseline.

    What each model predicts is kept as a file of the job; models that were asked the same before are not run again.
    """
    return _submit(room, spec, key)


@router.post("/benchmark", operation_id="benchmark", summary="Measure speed", **_SUBMIT)
def benchmark(
    spec: Annotated[BenchmarkSpec, Body(openapi_examples=examples.BENCHMARK)],
    room: TheRoom,
    key: IdempotencyKeyHeader = None,
) -> Response:
    """Time models in processes of their own, rounds interleaved, with the host to themselves.

    With `preflight`, nothing is timed: the report says within seconds what the models would gain here.
    """
    return _submit(room, spec, key)


@router.post("/train", operation_id="train", summary="Train a model", **_SUBMIT)
def train(
    spec: Annotated[TrainSpec, Body(openapi_examples=examples.TRAIN)],
    room: TheRoom,
    key: IdempotencyKeyHeader = None,
) -> Response:
    """Train a new network of an architecture, or an uploaded model further; the result is kept as a model.

    Progress comes with each epoch. When the worker dies, the next attempt goes on from the last checkpoint.
    """
    return _submit(room, spec, key)


def _submit(room: Room, spec: JobSpec, key: str | None) -> Response:
    bound = idempotency_key(key, f"POST /v1/jobs/{spec.kind}", spec.model_dump_json())
    with room.database.write() as session:
        job, created = jobs.submit(session, spec, max_attempts=room.store.max_attempts, idempotency_key=bound)
        shown = jobs.document(session, job.id)
    if created:
        room.dispatcher.poke()
    return _accepted(job.id, shown)


def _accepted(job_id: UUID, shown: tuple[int, JobState, str] | None) -> Response:
    version, _, text = _there(job_id, shown)
    headers = {"Location": f"/v1/jobs/{job_id}", "Retry-After": "1", "ETag": etag.weak(version)}
    return Response(text, 202, headers, _JSON)


@router.get("", operation_id="list_jobs", summary="List jobs", response_model=JobPage, responses=problems(422))
def list_jobs(
    request: Request,
    room: TheRoom,
    page_size: PageSize = 50,
    page_token: PageToken = None,
    kind: Annotated[
        Literal["compress", "evaluate", "benchmark", "train"] | None, Query(description="Only these.")
    ] = None,
    state: Annotated[JobState | None, Query(description="Only those in this state.")] = None,
) -> Response:
    """Jobs, newest first."""
    with room.database.read() as session:
        page = jobs.documents(session, page_size=page_size, page_token=page_token, kind=kind, state=state)
    # The store's texts are JSON already; tokens are of characters that need no quoting.
    token = "null" if page.next_page_token is None else f'"{page.next_page_token}"'
    text = f'{{"items":[{",".join(page.items)}],"next_page_token":{token}}}'
    return Response(text, headers=page_links(request, page.next_page_token), media_type=_JSON)


@router.get(
    "/{job_id}",
    operation_id="get_job",
    summary="Look at a job, or wait for it",
    response_model=JobDocument,
    responses={304: {"description": "Nothing has changed."}, **problems(404, 422)},
)
async def get_job(
    job_id: UUID,
    room: TheRoom,
    wait: Annotated[
        float, Query(ge=0, le=LONGEST_WAIT_S, allow_inf_nan=False, description="Seconds to wait at most.")
    ] = 0,
    if_none_match: IfNoneMatchHeader = None,
) -> Response:
    """The job as it is now.

    With `wait`, the answer comes when the job has ended, or, together with `If-None-Match`, when anything has changed;
    at the latest after so many seconds.
    """
    version, state, text = await _look(room, job_id)
    if wait > 0:
        until = asyncio.get_running_loop().time() + wait
        have = etag.version_in(if_none_match)
        while not (state.terminal or (have is not None and version != have)):
            left = until - asyncio.get_running_loop().time()
            if not await room.watch.changed(job_id, version, timeout_s=left):
                break
            version, state, text = await _look(room, job_id)
    tag = etag.weak(version)
    headers = {"ETag": tag} if state.terminal else {"ETag": tag, "Retry-After": "1"}
    if etag.matches(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    return Response(text, headers=headers, media_type=_JSON)


async def _look(room: Room, job_id: UUID) -> tuple[int, JobState, str]:
    # Few threads: many that want the interpreter's lock at once make each other late.
    looked = await asyncio.get_running_loop().run_in_executor(room.readers, _read, room, job_id)
    return _there(job_id, looked)


def _read(room: Room, job_id: UUID) -> tuple[int, JobState, str] | None:
    with room.database.read() as session:
        return jobs.document(session, job_id)


def _there(job_id: UUID, shown: tuple[int, JobState, str] | None) -> tuple[int, JobState, str]:
    if shown is None:
        raise NotFound("job", job_id)
    return shown


@router.post(
    "/{job_id}/cancel",
    operation_id="cancel_job",
    summary="Cancel a job",
    response_model=JobDocument,
    status_code=202,
    responses=problems(404, 422),
)
def cancel_job(job_id: UUID, room: TheRoom) -> Response:
    """Ask a job to stop. One that waits is cancelled at once, one that runs soon, one that has ended stays as it is."""
    with room.database.write() as session:
        jobs.request_cancel(session, job_id)
        shown = jobs.document(session, job_id)
    return _accepted(job_id, shown)


@router.post(
    "/{job_id}/retry",
    operation_id="retry_job",
    summary="Do a job again",
    response_model=JobDocument,
    status_code=202,
    responses={202: _ACCEPTED, **problems(404, 409, 422)},
)
def retry_job(job_id: UUID, room: TheRoom, key: IdempotencyKeyHeader = None) -> Response:
    """The same work as a new job, whose `retry_of` is this one. Only a job that has ended can be done again."""
    bound = idempotency_key(key, "POST /v1/jobs/retry", str(job_id))
    with room.database.write() as session:
        job, created = jobs.retry(session, job_id, max_attempts=room.store.max_attempts, idempotency_key=bound)
        shown = jobs.document(session, job.id)
    if created:
        room.dispatcher.poke()
    return _accepted(job.id, shown)


@router.get(
    "/{job_id}/files",
    operation_id="list_job_files",
    summary="List a job's files",
    response_model=JobFileList,
    responses=problems(404, 422),
)
def list_job_files(job_id: UUID, room: TheRoom) -> Response:
    """What a report's names of files stand for: predictions of each model, every sample of a benchmark, traces."""
    with room.database.read() as session:
        files = job_files.of_job(session, job_id)
    return document(JobFileList(items=tuple(JobFileDocument.of(job_id, file) for file in files)))


def download_job_file(
    request: Request, job_id: UUID, name: FileName, room: TheRoom, if_none_match: IfNoneMatchHeader = None
) -> Response:
    """A file of a job, whole or in part (`Range`)."""
    with room.database.read() as session:
        file = job_files.get(session, job_id, name)
    return file_answer(
        request,
        room.files,
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        filename=file.name,
        media_type=file.media_type,
        have=if_none_match,
    )


add_download(
    router,
    "/{job_id}/files/{name}",
    download_job_file,
    operation_id="download_job_file",
    summary="Download a job's file",
    about="The file, of the type that the list names.",
    media_type="*/*",
)


@router.get(
    "/{job_id}/events",
    operation_id="job_events",
    summary="Follow a job",
    response_class=Response,
    responses={
        200: {
            "description": (
                "Server-sent events, named `state` or `progress`; `id` is the job's version, `data` a JobEvent. "
                "The stream ends after the event of the job's end."
            ),
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **problems(404, 422),
    },
)
async def job_events(
    job_id: UUID,
    room: TheRoom,
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="Number of the last event that you have.")
    ] = None,
) -> Response:
    """Every change of the job since its beginning, or since `Last-Event-ID`, as it happens."""
    after = _number(last_event_id)
    await _look(room, job_id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(room, job_id, after), 200, headers, "text/event-stream")


def _number(last_event_id: str | None) -> int:
    text = (last_event_id or "").strip() or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(2**31)) - 1):
        message = "Last-Event-ID is not the number of an event."
        raise HttpFault("invalid", message, faults=[Fault("#header/Last-Event-ID", message)])
    return int(text)


async def _stream(room: Room, job_id: UUID, after: int) -> AsyncIterator[bytes]:
    seen = after
    yield b"retry: 1000\n\n"
    while True:
        # The version first: an event that comes between the two looks is then read twice rather than never.
        shown = await asyncio.to_thread(_read, room, job_id)
        if shown is None:
            return
        version, state, _ = shown
        for event in await asyncio.to_thread(_events, room, job_id, seen):
            seen = event.seq
            yield f"event: {event.type}\nid: {event.seq}\ndata: {event.data}\n\n".encode()
        if state.terminal:
            return
        while not await room.watch.changed(job_id, version, timeout_s=room.settings.keep_alive_s):
            if room.watch.closed:
                return
            shown = await asyncio.to_thread(_read, room, job_id)
            if shown is None or shown[0] != version:
                break
            yield b": still here\n\n"


def _events(room: Room, job_id: UUID, after: int) -> list[JobEvent]:
    with room.database.read() as session:
        return jobs.events(session, job_id, after=after)
