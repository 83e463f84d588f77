"""From the engine's answer to what is kept: files first, then rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from sqlalchemy.orm import Session

from accel.errors import ResultBroken
from accel.events import Done, ResultFile
from accel.report import BenchmarkReport, CompressReport, EvaluateReport
from accel.request import CompressRequest
from store import models
from store.files import Files
from store.leases import NewModel, Results
from workers.prepare import WorkRequest

_NAME_LENGTH = 200


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
        ResultBroken: The engine names a file outside its workspace, or answers another question.
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
    return Results(report=report, models=tuple(made))


def _keep(file: ResultFile, name: str, workspace: Path, files: Files) -> NewModel:
    # The engine has worked on hostile input: what it names is looked at like an upload.
    path = workspace / file.path.name
    if file.path.resolve() != path.resolve() or path.is_symlink() or not path.is_file():
        raise ResultBroken(f"The engine names a result that is no file of its own: {file.path.name}.")
    sha256, size_bytes = files.keep(path)
    return NewModel(
        id=UUID(file.model_id),
        parent_id=UUID(file.parent_id),
        name=name,
        sha256=sha256,
        size_bytes=size_bytes,
        summary=file.summary,
    )
