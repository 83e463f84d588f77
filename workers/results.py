"""From the engine's answer to what is kept: files first, then rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy.orm import Session

from accel.errors import ResultBroken
from accel.events import Attachment, Done, ResultFile
from accel.report import BenchmarkReport, CompressReport, EvaluateReport, TrainReport
from accel.request import BenchmarkRequest, CompressRequest, EvaluateRequest, TrainRequest
from store import datasets, models
from store.files import Files
from store.job_files import JobFile
from store.leases import NewModel, Results
from store.specs import JobSpec, TrainSpec
from workers.prepare import WorkRequest

_NAME_LENGTH = 200
_MOST_ATTACHMENTS = 4096
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,48}/[a-z0-9][a-z0-9!#$&^_.+-]{0,48}", flags=re.ASCII)


def keep_files(
    done: Done,
    request: WorkRequest,
    spec: JobSpec,
    files: Files,
    session: Session,
    *,
    before_each: Callable[[], None],
) -> Results:
    """Keep the files of an answer, and say what is to be written about them.

    Args:
        done: The answer.
        request: What the engine was asked.
        spec: What the caller asked.
        files: Where the files go.
        session: A reading transaction.
        before_each: Called before each file is kept; what it raises ends the work.

    Raises:
        ResultBroken: The engine names a file outside its workspace or two by one name, or answers another question.
        NoSpace: The files do not fit on the disk.
    """
    report = done.report
    if (
        not isinstance(report, CompressReport | EvaluateReport | BenchmarkReport | TrainReport)
        or report.kind != request.kind
    ):
        raise ResultBroken(f"The engine answered with a report of {report.kind}, not of {request.kind}.")
    made = keep_models(done.files, request, spec, files, session, before_each=before_each)
    _check_attachments(done.attachments)
    attached = []
    for attachment in done.attachments:
        before_each()
        sha256, size_bytes = files.keep(own_file(attachment.path, request.workspace))
        attached.append(JobFile(attachment.name, attachment.media_type, sha256, size_bytes))
    return Results(report=report, models=made, files=tuple(attached))


def keep_models(
    made: tuple[ResultFile, ...],
    request: WorkRequest,
    spec: JobSpec,
    files: Files,
    session: Session,
    *,
    before_each: Callable[[], None],
) -> tuple[NewModel, ...]:
    """Keep the models that the engine made, and say what is to be written about them; arguments as of :func:`keep_files`.

    Raises:
        ResultBroken: These are others than those that it was asked for.
        NoSpace: The files do not fit on the disk.
    """
    asked = _asked(request, spec, session)
    if [(file.model_id, file.parent_id) for file in made] != [(model.model_id, model.parent_id) for model in asked]:
        raise ResultBroken("The engine names other results than those it was asked for.")
    kept = []
    for file, model in zip(made, asked, strict=True):
        before_each()
        kept.append(_keep(file, model.name, request.workspace, files))
    return tuple(kept)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A model that was asked for."""

    model_id: str
    parent_id: str | None
    name: str


def _asked(request: WorkRequest, spec: JobSpec, session: Session) -> list[_Asked]:
    match request:
        case CompressRequest():
            parent_id = request.model.model_id
            name = models.get(session, UUID(parent_id)).name
            found = []
            for step, result_id in zip(request.steps, request.result_ids, strict=True):
                name = f"{name} + {step.tag()}"[:_NAME_LENGTH]
                found.append(_Asked(result_id, parent_id, name))
                parent_id = result_id
            return found
        case TrainRequest():
            parent = None if request.model is None else request.model.model_id
            return [_Asked(request.result_id, parent, _trained_name(spec, session))]
        case EvaluateRequest() | BenchmarkRequest():
            return []


def _trained_name(spec: JobSpec, session: Session) -> str:
    """What a trained model is called: as asked, or by what it was made of."""
    if not isinstance(spec, TrainSpec):
        raise TypeError(f"a training came from a job of kind {spec.kind}")
    if spec.name is not None:
        return spec.name
    if spec.model_id is not None:
        return f"{models.get(session, spec.model_id).name} + train"[:_NAME_LENGTH]
    tag = "" if spec.architecture is None else spec.architecture.tag()
    return f"{tag} trained on {datasets.get(session, spec.dataset_id).name}"[:_NAME_LENGTH]


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


def own_file(named: Path, workspace: Path) -> Path:
    """A file that the engine names. It has worked on hostile input, so what it names is looked at like an upload.

    Raises:
        ResultBroken: It is no file of the engine's own.
    """
    path = workspace / named.name
    if named.resolve() != path.resolve() or path.is_symlink() or not path.is_file():
        raise ResultBroken(f"The engine names a result that is no file of its own: {named.name}.")
    return path


def _keep(file: ResultFile, name: str, workspace: Path, files: Files) -> NewModel:
    sha256, size_bytes = files.keep(own_file(file.path, workspace))
    return NewModel(
        id=UUID(file.model_id),
        parent_id=None if file.parent_id is None else UUID(file.parent_id),
        name=name,
        sha256=sha256,
        size_bytes=size_bytes,
        summary=file.summary,
    )
