"""From the engine's answer to what is kept: files first, then rows."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from sqlalchemy.orm import Session

from accel.errors import ResultBroken
from accel.events import Done, ResultFile
from accel.report import BenchmarkReport, CompressReport, EvaluateReport
from store import models
from store.files import Files
from store.leases import NewModel, Results
from store.specs import CompressSpec, JobSpec

_NAME_LENGTH = 200


def keep_files(done: Done, spec: JobSpec, workspace: Path, files: Files, session: Session) -> Results:
    """Keep the files of an answer, and say what is to be written about them.

    Raises:
        ResultBroken: The engine names a file outside its workspace, or answers another question.
        NoSpace: The files do not fit on the disk.
    """
    if not isinstance(done.report, CompressReport | EvaluateReport | BenchmarkReport) or done.report.kind != spec.kind:
        raise ResultBroken(f"The engine answered with a report of {done.report.kind}, not of {spec.kind}.")
    made = []
    if isinstance(spec, CompressSpec):
        name = models.get(session, spec.model_id).name
        for file, step in zip(done.files, spec.steps, strict=True):
            name = f"{name} + {step.tag()}"[:_NAME_LENGTH]
            made.append(_keep(file, name, workspace, files))
    return Results(report=done.report, models=tuple(made))


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
