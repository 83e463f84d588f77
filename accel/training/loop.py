"""The loop: epochs of steps, a judgement at the end of each, the best weights kept."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch

from accel.errors import TrainingFailed
from accel.report.training import EpochPoint, StopReason
from accel.training import chance, checkpoint
from accel.training.batches import Batch
from accel.training.checkpoint import Best, Checkpoint, Header
from accel.training.compare_runs import reaches
from accel.training.fit import Diverged, Fit, Fitted
from accel.training.judging import Judge, Judgement
from accel.training.learner import State
from accel.training.objective import as_tensors
from accel.training.prefetch import prefetched
from accel.training.schedules import Course
from accel.training.step_state import StepState

_TOLD_EVERY_S = 0.25
_EPOCHS_COUNT_MORE = 10
"""How much sooner a state is kept at the end of an epoch than within one."""


def fit(training: Fit, start: Checkpoint | None = None, *, finish: bool = False) -> Fitted:
    """Train until the last epoch, or until something ends it before.

    Args:
        training: What is trained, on what and how. In the end its learner has the best weights, or the last where nothing is
            judged by.
        start: The state to go on from.
        finish: Take no step; the best weights of the state are the result.

    Raises:
        TrainingFailed: The loss is no finite number: names epoch, step and learning rate. The learner and the checkpoint then
            have the best weights so far.
    """
    return _Loop(training, start).run(finish=finish)


class _Stopped(Exception):
    def __init__(self, why: StopReason) -> None:
        super().__init__(why)
        self.why: StopReason = why


class _Loop:
    """A training at work."""

    def __init__(self, training: Fit, start: Checkpoint | None) -> None:
        self._fit, self._hooks, self._devices = training, training.hooks, training.devices
        self._learner, self._stream, self._judge = training.learner, training.stream, training.judge
        self._course = Course(training.stream.layout.steps, training.settings.epochs)
        self._state = StepState(training, self._course)
        self._best: State = {}
        self._head = Header(of=training.of) if start is None else start.header
        if start is not None:
            checkpoint.check_same(start.header, training.of)
            self._state.load(start)
            self._best = start.part("best")
            self._head = start.header.model_copy(update={"attempts": start.header.attempts + 1})
        self._check_together()
        self._before = self._head.seconds
        self._begun = self._mark = self._saved = self._told = self._hooks.clock()

    # The way through epochs.

    def run(self, *, finish: bool) -> Fitted:
        """Train."""
        why = self._head.finished or ("cancelled" if finish else None)
        if why == "diverged" and not finish:
            raise TrainingFailed(
                "The loss of the training that the checkpoint is of was not finite, so that it cannot go on.",
                hint="Take its best weights by `finish`, or start anew with a smaller learning rate.",
            )
        if why is None:
            why = self._trained()
            # What was cancelled may go on from its checkpoint.
            finished = None if why == "cancelled" else why
            self._head = self._head.model_copy(update={"finished": finished, "seconds": self._seconds()})
            self._save()
        if why == "cancelled" and self._head.rows and not self._improved:
            self._close_epoch(self._epochs, keep=False)
        self._learner.load_weights(self._best or self._state.current())
        self._learner.eval()
        self._learner.graph.mode.batch_norm = "hold"
        return Fitted(self._head, why)

    def _trained(self) -> StopReason:
        settings = self._fit.settings
        try:
            if self._judge is not None and not self._head.curve:
                self._close_epoch(0.0)
            for epoch in range(self._head.epoch, settings.epochs):
                self._epoch(epoch)
                self._head = self._head.model_copy(update={"epoch": epoch + 1, "step": 0})
                self._close_epoch(float(epoch + 1))
        except _Stopped as stopped:
            if stopped.why == "budget" and self._head.rows:
                self._close_epoch(self._epochs, keep=False)
            return stopped.why
        return "epochs"

    @property
    def _epochs(self) -> float:
        """Passes over the rows so far."""
        return self._head.epoch + self._head.rows / self._stream.layout.rows

    @property
    def _improved(self) -> bool:
        """Whether there are weights that are better than those at the beginning."""
        return self._head.best is not None and self._head.best.epochs > 0

    def _epoch(self, epoch: int) -> None:
        layout, first = self._stream.layout, self._head.step * self._stream.layout.per_step
        self._learner.train()
        self._learner.graph.mode.batch_norm = self._fit.settings.batch_norm
        self._mark = self._hooks.clock()
        loss_sum = 0.0
        with prefetched(self._stream.epoch(epoch, first)) as batches:
            for batch in batches:
                loss_sum += self._backward(epoch, batch)
                if batch.ends_step:
                    self._step(epoch, batch, loss_sum)
                    loss_sum = 0.0
                    if batch.number + 1 < layout.batches:
                        self._pause()
        self._check_end()

    def _backward(self, epoch: int, batch: Batch) -> float:
        devices = self._devices
        devices.seed(chance.key(self._fit.settings.seed, "layers", epoch, batch.number, devices.part.rank))
        with devices.native.no_backward_sync(self._state.model, enabled=not batch.ends_step), _short_of_memory():
            values = self._state.model(as_tensors(batch.feeds, devices.device))
            loss = self._fit.aim.total(values, batch, devices.device)
            # Processes' gradients are averaged, so that each counts as if it were all of them.
            devices.native.backward(loss * (devices.part.of / batch.step_rows))
        return float(loss.detach())

    def _step(self, epoch: int, batch: Batch, loss_sum: float) -> None:
        head, settings, hooks = self._head, self._fit.settings, self._hooks
        (total,) = self._devices.add_up([loss_sum])
        if not math.isfinite(total):
            raise self._diverged("The loss", epoch, batch.step)
        if settings.clip_norm is not None:
            norm = self._state.clip(settings.clip_norm)
            # A scaled loss may overflow: such a step is left out, and the scale made smaller.
            if not math.isfinite(norm) and settings.precision != "float16":
                raise self._diverged("The norm of the gradients", epoch, batch.step)
        self._state.step(hooks.after_step)
        now = hooks.clock()
        self._head = head.model_copy(
            update={
                "step": batch.step + 1,
                "loss_sum": head.loss_sum + total,
                "rows": head.rows + batch.step_rows,
                "rows_total": head.rows_total + batch.step_rows,
                "training_seconds": head.training_seconds + (now - self._mark),
                "epoch_seconds": head.epoch_seconds + (now - self._mark),
            }
        )
        self._mark = now
        if now - self._told >= _TOLD_EVERY_S:
            self._tell(f"epoch {epoch + 1} of {settings.epochs}, loss {self._head.loss_sum / self._head.rows:.4f}")

    def _pause(self) -> None:
        """Between two steps of an epoch."""
        self._check_end()
        saving = self._fit.saving
        if saving is not None and self._hooks.clock() - self._saved >= saving.every_seconds:
            self._save()
            self._mark = self._hooks.clock()

    def _check_end(self) -> None:
        budget = self._fit.settings.budget_seconds
        wants = [float(self._hooks.cancelled()), float(budget is not None and self._seconds() >= budget)]
        cancelled, late = self._devices.add_up(wants)
        if cancelled:
            raise _Stopped("cancelled")
        if late:
            raise _Stopped("budget")

    # The end of an epoch.

    def _close_epoch(self, epochs: float, *, keep: bool = True) -> None:
        """Judge, and tell; and where the training may go on, keep the state and see whether it shall."""
        head, judge, settings = self._head, self._judge, self._fit.settings
        self._learner.eval()
        self._learner.graph.mode.batch_norm = "hold"
        self._learner.even_out(self._devices.mean)
        rate = self._state.learning_rate
        judgement, better = None, False
        if judge is not None:
            self._hooks.tell("judging", head.epoch, settings.epochs, f"epoch {epochs:g}")
            judgement, better = self._judged(judge, epochs)
        if judgement is not None and epochs:
            self._state.end_epoch(judgement.loss)
        point = EpochPoint(
            epochs=epochs,
            seconds=self._seconds(),
            train_loss=head.loss_sum / head.rows if head.rows else None,
            validation_loss=None if judgement is None else judgement.loss,
            metric=None if judgement is None else judgement.value,
            learning_rate=rate,
            samples_per_second=head.rows / head.epoch_seconds if head.epoch_seconds > 0 else None,
            best=better,
        )
        self._head = self._head.model_copy(
            update={"curve": (*head.curve, point), "loss_sum": 0.0, "rows": 0, "epoch_seconds": 0.0}
        )
        self._hooks.on_epoch(point)
        self._tell(self._said(point))
        saving = self._fit.saving
        if not keep:
            return
        if saving is not None and self._hooks.clock() - self._saved >= saving.every_seconds / _EPOCHS_COUNT_MORE:
            self._save()
        if epochs:
            self._stop_early(judgement)

    def _judged(self, judge: Judge, epochs: float) -> tuple[Judgement, bool]:
        """How good the weights are, or their mean where there is one; the best are kept."""
        own = None if self._state.average is None else self._learner.weights()
        self._learner.load_weights(self._state.current())
        found = judge.judge(self._learner, self._devices.device, self._devices.gather)
        if not math.isfinite(found.loss):
            raise self._diverged("The validation loss", self._head.epoch, self._head.step)
        stopping = self._fit.settings.early_stopping
        better = _beats(judge, found, self._head.best, 0.0)
        clearly = _beats(judge, found, self._head.mark, 0.0 if stopping is None else stopping.min_delta)
        now = Best(epochs=epochs, loss=found.loss, value=found.value)
        update: dict[str, object] = {"waited": 0 if clearly else self._head.waited + 1}
        if clearly:
            update["mark"] = now
        if better:
            self._best = self._learner.weights()
            update["best"] = now
        self._head = self._head.model_copy(update=update)
        if own is not None:
            self._learner.load_weights(own)
        return found, better

    def _stop_early(self, judgement: Judgement | None) -> None:
        target, stopping = self._fit.target, self._fit.settings.early_stopping
        if judgement is None or self._judge is None:
            return
        if target is not None and target.stop and reaches(judgement.value, target):
            raise _Stopped("target")
        if stopping is not None and self._head.waited >= stopping.patience:
            raise _Stopped("early_stopping")

    def _said(self, point: EpochPoint) -> str:
        parts = [f"epoch {point.epochs:g} of {self._fit.settings.epochs}"]
        if point.train_loss is not None:
            parts.append(f"loss {point.train_loss:.4f}")
        if point.validation_loss is not None:
            parts.append(f"validation loss {point.validation_loss:.4f}")
        if point.metric is not None and self._judge is not None:
            parts.append(f"{self._judge.metric} {point.metric:.4f}")
        return ", ".join(parts)

    def _tell(self, message: str) -> None:
        head = self._head
        done = head.epoch * self._course.steps_per_epoch + head.step
        self._hooks.tell("training", done, self._course.steps, message)
        self._told = self._hooks.clock()

    def _diverged(self, what: str, epoch: int, step: int) -> Diverged:
        """The error of a loss that is no number; the best weights are put back and kept."""
        rate, best = self._state.learning_rate, self._head.best
        kept = "No weights were better than those at the beginning."
        if self._improved and best is not None:
            self._learner.load_weights(self._best)
            figure = "" if best.value is None or self._judge is None else f" ({self._judge.metric} {best.value:.4g})"
            kept = f"The best weights so far, of epoch {best.epochs:g}{figure}, are kept"
            kept += " in the checkpoint." if self._fit.saving is not None else "."
            self._head = self._head.model_copy(update={"finished": "diverged", "seconds": self._seconds()})
            self._save()
        return Diverged(
            f"{what} is not finite in epoch {epoch + 1}, step {step + 1} of {self._course.steps_per_epoch}, at a learning rate of "
            f"{rate:.3g}. {kept}",
            hint="Use a smaller learning rate, a warm-up or clip_norm; check that inputs and targets are finite.",
            best=self._improved,
        )

    # The state.

    def _seconds(self) -> float:
        return self._before + (self._hooks.clock() - self._begun)

    def _save(self) -> None:
        saving = self._fit.saving
        self._saved = self._hooks.clock()
        if saving is None or not self._devices.tells:
            return
        self._head = self._head.model_copy(update={"seconds": self._seconds()})
        self._state.write(saving.path, self._head, self._best)
        self._hooks.on_checkpoint(saving.path)

    def _check_together(self) -> None:
        """Refuse to go on where processes begin at different steps, as hosts whose checkpoints differ.

        Raises:
            TrainingFailed: They do.
        """
        places = self._devices.gather(torch.tensor([self._head.epoch, self._head.step]))
        if any(not torch.equal(place, places[0]) for place in places):
            said = ", ".join(f"epoch {int(place[0]) + 1} step {int(place[1]) + 1}" for place in places)
            raise TrainingFailed(
                f"The processes would go on from different states: {said}.",
                hint="Give every host the same checkpoint, or none.",
            )


@contextlib.contextmanager
def _short_of_memory() -> Iterator[None]:
    """PyTorch says it in words alone when a processor has no memory left."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        raise


def _beats(judge: Judge, found: Judgement, before: Best | None, by: float) -> bool:
    return before is None or judge.better(found, Judgement(before.loss, before.value), by)
