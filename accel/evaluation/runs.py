"""The predictions of each model: those of an earlier evaluation where they stand for a run, else of a run, which are kept."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from accel.benchmark.environment import installed
from accel.context import Tell
from accel.data.corrupted import corrupted
from accel.data.dataset import Dataset
from accel.errors import AccelError, BadDataset
from accel.evaluation.kept import Circumstances, KeptPredictions, keep, read_kept
from accel.evaluation.predict import FirstRows, Subject, predict
from accel.evaluation.predictions import Predictions
from accel.evaluation.truth import Truth
from accel.report import Environment
from accel.request import EvaluateRequest, ModelFile

_PACKAGE = "accel-service"
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True)
class Work:
    """What an evaluation has to do, and where."""

    request: EvaluateRequest
    dataset: Dataset
    tell: Tell
    environment: Environment

    def telling(self, model: ModelFile, about: str = "") -> Tell:
        """Progress of one model."""
        message = f"model {self.request.models.index(model) + 1} of {len(self.request.models)}{about}"
        return lambda phase, done, total, _: self.tell(phase, done, total, message)

    def file(self, model: ModelFile) -> Path:
        """Where a model's predictions are kept."""
        names = [other.model_id for other in self.request.models]
        if not all(map(_NAME.fullmatch, names)):  # else a number may be the name of another
            names = [f"{number + 1}" for number in range(len(names))]
        return self.request.workspace / f"predictions-{names[self.request.models.index(model)]}.npz"


@dataclass(frozen=True, slots=True)
class Run:
    """The predictions of one model."""

    kept: KeptPredictions
    """Of the split."""
    reused: bool
    """Whether an earlier evaluation made them."""
    corrupted: tuple[Predictions | None, ...]
    """Of the split with each corruption; None where the model could not be run on it."""
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Earlier:
    """The predictions of an earlier evaluation."""

    now: Circumstances
    """What a run would depend on."""
    kept: KeptPredictions | None
    why_not: str | None
    """Why they cannot stand for a run, where they are given."""


def earlier(subject: Subject, work: Work) -> Earlier:
    """Look for a model's predictions in the file of an earlier evaluation, which is copied into the workspace."""
    now = _circumstances(subject, work)
    if subject.model.predictions is None:
        return Earlier(now, None, None)
    try:
        return Earlier(now, _read(subject, now, work), None)
    except AccelError as error:
        return Earlier(now, None, error.message)


def _circumstances(subject: Subject, work: Work) -> Circumstances:
    request, libraries = work.request, work.environment.libraries
    with subject.model.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    packages = ["onnxruntime", *(["onnxruntime-ep-openvino"] if request.runtime.endswith(":openvino") else [])]
    return Circumstances(
        model_sha256=digest,
        split=request.split,
        samples=len(subject.bound),
        task=work.dataset.summary.task,
        # Groups and labels are looked up each time.
        binding=request.binding and request.binding.model_copy(update={"group": None, "target": None}),
        batch_size=request.batch_size,
        runtime=request.runtime,
        libraries={name: libraries[name] for name in packages if name in libraries},
        cpu=work.environment.cpu,
    )


def _read(subject: Subject, now: Circumstances, work: Work) -> KeptPredictions:
    """Predictions that were kept.

    Raises:
        BadDataset: They cannot stand for a run; the message says why.
        TooLarge: The file claims more than it holds.
    """
    target = work.file(subject.model)
    try:
        shutil.copyfile(subject.model.predictions or "", target)
        kept = read_kept(target, work.request.workspace)
    except OSError as error:
        raise BadDataset(f"The file cannot be read: {error.strerror or error}.") from error
    different = kept.header.circumstances.differs(now)
    if different is None and kept.header.output != subject.bound.output:
        different = f"output {kept.header.output!r}, now {subject.bound.output!r}"
    if different is not None:
        raise BadDataset(f"They are of other circumstances: {different}.")
    return kept


def run(subject: Subject, before: Earlier, truth: Truth, work: Work) -> Run:
    """A model's predictions of the split and of its corruptions.

    Args:
        subject: The model.
        before: Its predictions of an earlier evaluation.
        truth: What they are held against.
        work: The evaluation.

    Raises:
        BindingMismatch: The output is not of the shape that its decoder or the labels need.
        LabelsOutOfRange: The labels are not the model's classes.
        RuntimeFailed: The runtime refused.
    """
    model, bound, warnings, kept = subject.model, subject.bound, [], before.kept
    why_not = before.why_not if kept is None else _unlike(kept, truth)
    if why_not is not None:
        kept = None
        warnings.append(f"The predictions that were kept cannot stand for a run, so the model was run. {why_not}")
    reused = kept is not None
    if kept is None:
        kept = _run(subject, before.now, truth, work)
    else:
        work.telling(model, ", kept predictions")("evaluating", len(bound), len(bound), "")
    truth.check(kept.said)
    dirty: list[Predictions | None] = []
    for corruption in work.request.corruptions:
        named = f"{corruption.corruption} {corruption.severity}"
        try:
            rows = corrupted(bound, corruption, seed=work.request.seed)
            with spool(work.request.workspace) as folder:
                dirty.append(predict(subject, rows, truth.reading, folder, work.telling(model, f", {named}")))
        except AccelError as error:
            dirty.append(None)
            warnings.append(f"The model could not be run on samples with {named}: {error.message}")
    if len(kept.said.not_finite):
        warnings.append(
            f"The output holds what is no finite number for {len(kept.said.not_finite):,} of {len(kept.said):,} samples; "
            "they count as wrong."
        )
    return Run(kept, reused, tuple(dirty), tuple(warnings))


def _run(subject: Subject, now: Circumstances, truth: Truth, work: Work) -> KeptPredictions:
    """Run a model over the split, and keep its predictions."""
    workspace, path = work.request.workspace, work.file(subject.model)
    with spool(workspace) as folder:
        first = FirstRows(folder)
        said = predict(subject, subject.bound, truth.reading, folder, work.telling(subject.model), first)
        keep(
            path,
            said,
            truth.labels,
            first.arrays(),
            accel=installed(_PACKAGE) or "unknown",
            reading=truth.reading,
            output=subject.bound.output,
            form=first.form(subject.bound.output),
            circumstances=now,
        )
    return read_kept(path, workspace, trusted=True)


@contextmanager
def spool(workspace: Path) -> Iterator[Path]:
    """A folder for what a run writes; mapped files stay readable when it is gone."""
    folder = Path(tempfile.mkdtemp(prefix="spool-", dir=workspace))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _unlike(kept: KeptPredictions, truth: Truth) -> str | None:
    """Why predictions that were kept cannot be held against what is true; None where they can."""
    if kept.header.reading != truth.reading:
        return "The output was read in another way."
    if not _same(kept.labels, truth.labels):
        return "The labels were others: the split was one of another version of the dataset."
    return None


def _same(first: Predictions | None, second: Predictions | None) -> bool:
    if first is None or second is None:
        return first is second
    return type(first) is type(second) and all(
        _equal(getattr(first, field.name), getattr(second, field.name)) for field in fields(second)
    )


def _equal(first: object, second: object) -> bool:
    one, two = np.asarray(first), np.asarray(second)
    return np.array_equal(one, two, equal_nan=one.dtype.kind == two.dtype.kind == "f")
