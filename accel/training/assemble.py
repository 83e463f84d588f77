"""Put a training together, as a request asks for it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from accel.data.binding import Threshold
from accel.errors import TrainingFailed
from accel.graph.torch_graph.graph import TorchGraph
from accel.report.training import Distilled
from accel.request.training import TrainRequest
from accel.training.augment import Augmenter
from accel.training.batches import Layout, Stream
from accel.training.checkpoint import Checkpoint
from accel.training.distillation import Distillation
from accel.training.distilling import Distilling, matched
from accel.training.fabric import Devices
from accel.training.fit import Aim, Fit, Hooks, Saving
from accel.training.heads import Head
from accel.training.learner import Learner
from accel.training.losses import check_target, loss_for
from accel.training.objective import Objective, as_tensors, check_finite, weights_of
from accel.training.start import Start, graph_of, probed, start
from accel.training.teacher import Teacher, hire
from accel.training.validation import judge_of, lesson_of, metric_of

CHECKPOINT = "checkpoint.safetensors"
_TEACHER = "teacher's runtime"


@dataclass(frozen=True, slots=True)
class Assembled:
    """A training that is ready to begin."""

    start: Start
    fit: Fit
    distilled: Distilled | None
    notes: tuple[str, ...]


def assemble(request: TrainRequest, workspace: Path, hooks: Hooks, resumed: Checkpoint | None) -> Assembled:
    """Load what a request names, and make it fit together.

    Args:
        request: The request.
        workspace: Folder for what is written.
        hooks: What others do within the training.
        resumed: The state that it goes on from.

    Raises:
        AccelError: Something does not fit; the message says what.
    """
    settings = request.settings
    begun = start(request, workspace)
    branches = any(True for _ in begun.model.graph.subgraphs())
    devices = Devices(settings, branches=branches)
    device = devices.device
    train = begun.parts.train
    pairs = () if request.distillation is None else request.distillation.features
    graph = graph_of(begun, request.frozen, (begun.head.name, *(pair.student for pair in pairs)))
    head, width, proof = probed(begun, graph, workspace)
    graph.to(device)
    objective, notes = _objective(request, begun, head, width)
    notes += (proof,)
    batch_size = settings.batch_size if train.fixed_batch is None else train.fixed_batch * devices.part.of
    if batch_size != settings.batch_size:
        notes += (f"The model insists on batches of {train.fixed_batch}, so that batch_size is {batch_size}.",)
    aim: Aim = objective
    learner, distilled, lesson = Learner(graph), None, None
    if request.distillation is not None and request.teacher is not None:
        teacher = _hired(request, begun, batch_size, device, workspace, resumed)
        lesson = lesson_of(begun, teacher, batch_size)
        aim, learner = _distilling(request.distillation, teacher, begun, head, objective, graph, device, settings.seed)
        distilled = _summary(teacher, aim)
    judge = judge_of(
        begun, request.metric or (request.target.metric if request.target else None), objective, lesson,
        batch_size=batch_size, workspace=workspace, part=devices.part,
    )  # fmt: skip
    if distilled is not None and judge is not None and lesson is not None and judge.labels is None:
        distilled = distilled.model_copy(update={"teacher_metric": metric_of(judge.truth, lesson.said)})
    layout = Layout.of(
        len(train),
        batch_size,
        per_step=None if request.optimizer.full_batch else settings.accumulate,
        processes=devices.part.of,
    )
    stream = Stream(
        train, layout, settings.seed, Augmenter.of(request.augmentation, train, settings.seed), devices.part
    )
    learner.to(device)
    if not branches:
        notes += _released(learner, aim, stream, device)
    made = Fit(
        learner=learner,
        aim=aim,
        stream=stream,
        judge=judge,
        devices=devices,
        settings=settings,
        optimizer=request.optimizer,
        schedule=request.schedule,
        of=_identity(request, begun, distilled),
        target=request.target,
        saving=Saving(workspace / CHECKPOINT, request.checkpoint_seconds),
        hooks=hooks,
    )
    return Assembled(begun, made, distilled, (*begun.notes, *notes))


def _objective(request: TrainRequest, begun: Start, head: Head, width: int) -> tuple[Objective, tuple[str, ...]]:
    loss = loss_for(begun.task, request.loss)
    train = begun.parts.train
    if train.target is None:
        return Objective(loss, head), ()
    column = begun.binding.target or begun.dataset.summary.target or ""
    check_target(loss, column, train.target.dtype)
    check_finite(train, column)
    weights, notes = weights_of(loss, train, width)
    return Objective(loss, head, weights), notes


def _hired(
    request: TrainRequest, begun: Start, rows: int, device: torch.device, workspace: Path, resumed: Checkpoint | None
) -> Teacher:
    if request.teacher is None or request.distillation is None:
        raise ValueError("there is no teacher")
    decoder = begun.binding.decoder
    before = None if resumed is None else resumed.header.of.get(_TEACHER)
    return hire(
        request.teacher.path,
        request.teacher.model_id,
        output=begun.binding.output,
        task=begun.task,
        features=[pair.teacher for pair in request.distillation.features],
        example=begun.parts.train,
        rows=rows,
        threshold=decoder.at if isinstance(decoder, Threshold) else None,
        device=device,
        workspace=workspace,
        runtime="torch" if before == "torch" else "onnxruntime" if before == "onnxruntime" else None,
    )


def _distilling(
    spec: Distillation,
    teacher: Teacher,
    begun: Start,
    head: Head,
    objective: Objective,
    graph: TorchGraph,
    device: torch.device,
    seed: int,
) -> tuple[Distilling, Learner]:
    train = begun.parts.train
    feeds = train.feed(0, min(32, len(train), train.fixed_batch or 32))
    with torch.no_grad():
        ours = graph(as_tensors(feeds, device))
    sizes, projections = matched(spec.features, ours, teacher.answers(feeds, device), seed)
    labels = objective if train.target is not None and spec.share < 1 else None
    aim = Distilling(spec, teacher, begun.task, head, labels, sizes, frozenset(projections))
    return aim, Learner(graph, projections)


def _summary(teacher: Teacher, aim: Distilling) -> Distilled:
    return Distilled(
        teacher=teacher.name,
        runtime=teacher.runtime,
        onnxruntime_ms=teacher.onnxruntime_ms,
        torch_ms=teacher.torch_ms,
        labels=aim.labels is not None,
        teacher_metric=None,
        features=tuple(f"{pair.teacher} to {pair.student}" for pair in aim.spec.features),
    )


def _released(learner: Learner, aim: Aim, stream: Stream, device: torch.device) -> tuple[str, ...]:
    """Find what no gradient reaches, and train it no further; processes would wait for it.

    Raises:
        TrainingFailed: No gradient reaches anything.
    """
    batch = next(iter(stream.epoch(0)))
    learner.eval()
    torch.autograd.backward(aim.total(learner(as_tensors(batch.feeds, device)), batch, device))
    without = {candidate.name for candidate, weight in learner.graph.trained() if weight.grad is None}
    learner.zero_grad(set_to_none=True)
    if not without:
        return ()
    if len(without) == sum(1 for _ in learner.graph.trained()):
        raise TrainingFailed(
            "No gradient reaches any weight of the model, so that it cannot be trained.",
            hint="The output may be a whole number, such as the number of the best class. Name another output in the binding.",
        )
    learner.release(without)
    names = ", ".join(sorted(without)[:5])
    return (f"{len(without):,} weights do not change the output that is trained, and stay as they are: {names}.",)


def _identity(request: TrainRequest, begun: Start, distilled: Distilled | None) -> dict[str, str]:
    """What tells a training from others: all that its steps depend on, but not how many processes take them."""
    train, validation = begun.parts.train, begun.parts.validation
    found = {
        "model": hashlib.sha256(begun.path.read_bytes()).hexdigest()[:16],
        "rows": f"{len(train)} and {0 if validation is None else len(validation)}",
        "settings": request.settings.model_dump_json(exclude={"budget_seconds", "threads", "processes", "device"}),
        "optimizer": request.optimizer.model_dump_json(),
        "schedule": request.schedule.model_dump_json(),
        "loss": "" if request.loss is None else request.loss.model_dump_json(),
        "augmentation": json.dumps([one.model_dump() for one in request.augmentation]),
        "binding": begun.binding.model_dump_json(),
        "frozen": json.dumps(request.frozen),
        "split": request.split,
        "metric": str(request.metric),
    }
    if distilled is not None and request.distillation is not None and request.teacher is not None:
        found["distillation"] = request.distillation.model_dump_json()
        found["teacher"] = hashlib.sha256(request.teacher.path.read_bytes()).hexdigest()[:16]
        found[_TEACHER] = distilled.runtime
    return found
