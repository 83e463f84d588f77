"""From the engine's answer to what is kept: files first, then rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from sqlalchemy.orm import Session

from accel.errors import ResultBroken
from accel.events import Attachment, Done, ResultFile
from accel.report import BenchmarkReport, CompressReport, EvaluateReport
from accel.request import CompressRequest
from store import models
from store.files import Files
from store.job_files import JobFile
from store.leases import NewModel, Results
from workers.prepare import WorkRequest

_NAME_LENGTH = 200
_MOST_ATTACHMENTS = 4096
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,48}/[a-z0-9][a-z0-9!#$&^_.+-]{0,48}", flags=re.ASCII)


def keep_files(
    done: Done, request: WorkRequest, files: Files, session: Session, *, before_each: Callable[[], None]
) -> Results:
    """Keep the files of an answer, and say what is to be written about them.

    Args:
        done: The answer.
        request: What was asked.
        files: Where the files go.
        session: A reading transaction.
        before_each: Called before each file is kept; what it raises ends the work.

    Raises:
        ResultBroken: The engine names a file outside its workspace or two by one name, or answers another question.
        NoSpace: The files do not fit on the disk.
    """
    report = done.report
    if not isinstance(report, CompressReport | EvaluateReport | BenchmarkReport) or report.kind != request.kind:
        raise ResultBroken(f"The engine answered with a report of {report.kind}, not of {request.kind}.")
    made = []
    if isinstance(request, CompressRequest):
        first = request.model.model_id
        asked = list(zip(request.result_ids, (first, *request.result_ids), strict=False))
        if [(file.model_id, file.parent_id) for file in done.files] != asked:
            raise ResultBroken("The engine names other results than those it was asked for.")
        name = models.get(session, UUID(first)).name
        for file, step in zip(done.files, request.steps, strict=True):
            name = f"{name} + {step.tag()}"[:_NAME_LENGTH]
            before_each()
            made.append(_keep(file, name, request.workspace, files))
    _check_attachments(done.attachments)
    attached = []
    for attachment in done.attachments:
        before_each()
        sha256, size_bytes = files.keep(_own(attachment.path, request.workspace))
        attached.append(JobFile(attachment.name, attachment.media_type, sha256, size_bytes))
    return Results(report=report, models=tuple(made), files=tuple(attached))


def _check_attachments(attachments: tuple[Attachment, ...]) -> None:
    """Refuse names and types that could not be kept or served.

    Raises:
        ResultBroken: There are too many, two have one name, or one is of no type.
    """
    if len(attachments) > _MOST_ATTACHMENTS:
        raise ResultBroken(f"The engine names {len(attachments):,} files; {_MOST_ATTACHMENTS:,} are taken at most.")
    seen: set[str] = set()
    for attachment in attachments:
        if attachment.name in seen:
            raise ResultBroken(f"The engine names two files {attachment.name}.")
        seen.add(attachment.name)
        if not _MEDIA_TYPE.fullmatch(attachment.media_type):
            raise ResultBroken(f"The file {attachment.name} is of no media type: {attachment.media_type[:100]!a}.")


def _own(named: Path, workspace: Path) -> Path:
    """A file that the engine names. It has worked on hostile input, so what it names is looked at like an upload.

    Raises:
        ResultBroken: It is no file of the engine's own.
    """
    path = workspace / named.name
    if named.resolve() != path.resolve() or path.is_symlink() or not path.is_file():
        raise ResultBroken(f"The engine names a result that is no file of its own: {named.name}.")
    return path


def _keep(file: ResultFile, name: str, workspace: Path, files: Files) -> NewModel:
    sha256, size_bytes = files.keep(_own(file.path, workspace))
    return NewModel(
        id=UUID(file.model_id),
        parent_id=UUID(file.parent_id),
        name=name,
        sha256=sha256,
        size_bytes=size_bytes,
        summary=file.summary,
    )
