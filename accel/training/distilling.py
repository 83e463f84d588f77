"""The loss of a student: how far it is from what its teacher says, from the labels, and from the teacher's inner values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from accel.errors import BindingMismatch, TrainingFailed
from accel.graph.torch_graph.node import Value
from accel.training import chance
from accel.training.batches import Batch
from accel.training.distillation import Distillation, FeaturePair
from accel.training.heads import Head
from accel.training.losses import Task
from accel.training.objective import Objective
from accel.training.teacher import Teacher


@dataclass(frozen=True, slots=True)
class Distilling:
    """What a student is pulled towards."""

    spec: Distillation
    teacher: Teacher
    task: Task
    head: Head
    """Where the student's scores are read."""
    labels: Objective | None
    """None where there are no labels, or where they count nothing."""
    sizes: Mapping[FeaturePair, float] = field(default_factory=dict)
    """Mean square of each of the teacher's inner values."""
    projected: frozenset[str] = frozenset()
    """Inner values of the student that go through a projection."""

    def total(self, values: dict[str, Value], batch: Batch, device: torch.device) -> Tensor:
        """The sum of the losses of a batch's samples."""
        said = self.teacher.answers(batch.feeds, device)
        share = self.spec.share if self.labels is not None else 1.0
        found = self.each(values, said, batch.rows).sum() * share
        for pair, size in self.sizes.items():
            found = found + pair.weight * self._missed(pair, size, values, said, batch.rows).sum()
        if self.labels is not None and share < 1:
            found = found + self.labels.total(values, batch, device) * (1 - share)
        return found

    def each(self, values: dict[str, Value], said: dict[str, Value], rows: int) -> Tensor:
        """How far each sample's scores are from the teacher's [rows]."""
        if self.task == "multi_label":
            student, teacher = self.head.decisions(values, rows), self.teacher.head.decisions(said, rows)
        else:
            student, teacher = self.head.scores(values, rows), self.teacher.head.scores(said, rows)
        if student.shape != teacher.shape:
            raise BindingMismatch(
                f"The teacher gives {teacher.shape[1]:,} numbers for a sample, and the student {student.shape[1]:,}.",
                hint="Both need the same classes, labels or values. Check which output the binding names.",
            )
        if self.task == "regression":
            return functional.mse_loss(student, teacher, reduction="none").mean(1)
        return softened(student, teacher, self.spec.temperature, exclusive=self.task == "classification")

    def _missed(
        self, pair: FeaturePair, size: float, values: dict[str, Value], said: dict[str, Value], rows: int
    ) -> Tensor:
        ours = values[f"projected:{pair.student}" if pair.student in self.projected else pair.student]
        theirs = said[pair.teacher]
        if not isinstance(ours, Tensor) or not isinstance(theirs, Tensor):
            raise TrainingFailed(f"The values {pair.student!r} and {pair.teacher!r} must both be tensors.")
        return (ours[:rows].float() - theirs[:rows].float()).square().reshape(rows, -1).mean(1) / size


def softened(student: Tensor, teacher: Tensor, temperature: float, *, exclusive: bool) -> Tensor:
    """Divergence of a student's softened probabilities from a teacher's [rows], times the squared temperature.

    So gradients stay as large as those of labels, whatever the temperature (Hinton et al. 2015).

    Args:
        student: Logits [rows, classes or labels].
        teacher: The same of the teacher.
        temperature: What logits are divided by.
        exclusive: Whether one of the classes is true, not each label for itself.
    """
    ours, theirs = student / temperature, teacher / temperature
    if exclusive and ours.shape[1] > 1:
        divergence = functional.kl_div(
            functional.log_softmax(ours, 1), functional.log_softmax(theirs, 1), reduction="none", log_target=True
        ).sum(1)
    else:
        wanted = torch.sigmoid(theirs)
        crossed = functional.binary_cross_entropy_with_logits(ours, wanted, reduction="none")
        divergence = (crossed - functional.binary_cross_entropy_with_logits(theirs, wanted, reduction="none")).mean(1)
    return divergence * temperature**2


class Projection(nn.Module):
    """A linear layer along one axis."""

    def __init__(self, axis: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self._axis = axis
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, value: Tensor) -> Tensor:
        """Map the axis."""
        found: Tensor = self.linear(value.movedim(self._axis, -1)).movedim(-1, self._axis)
        return found


def matched(
    pairs: Sequence[FeaturePair], ours: Mapping[str, Value], theirs: Mapping[str, Value], seed: int
) -> tuple[dict[FeaturePair, float], dict[str, Projection]]:
    """What inner values that are to be matched need: the size of the teacher's, and projections where shapes differ.

    Args:
        pairs: What is matched.
        ours: Values of the student for some rows.
        theirs: Values of the teacher for the same rows.
        seed: Of the projections' initial weights.

    Raises:
        BindingMismatch: Shapes differ in more than one axis; names both.
    """
    sizes, projections = {}, {}
    for number, pair in enumerate(pairs):
        one, two = ours.get(pair.student), theirs.get(pair.teacher)
        if not isinstance(one, Tensor) or not isinstance(two, Tensor) or not one.is_floating_point():
            raise BindingMismatch(
                f"The values {pair.student!r} of the student and {pair.teacher!r} of the teacher must be tensors of floats."
            )
        sizes[pair] = max(float(two.float().square().mean()), 1e-12)
        if one.shape[1:] == two.shape[1:]:
            continue
        differing = [axis for axis in range(1, min(one.ndim, two.ndim)) if one.shape[axis] != two.shape[axis]]
        if one.ndim != two.ndim or len(differing) != 1 or pair.student in projections:
            raise BindingMismatch(
                f"The student's {pair.student!r} has rows of {list(one.shape[1:])}, and the teacher's {pair.teacher!r} rows of "
                f"{list(two.shape[1:])}.",
                hint="Match values whose shapes differ in one axis at most, each of the student's with one of the teacher's.",
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(chance.key(seed, "projection", number))
            projections[pair.student] = Projection(differing[0], one.shape[differing[0]], two.shape[differing[0]])
    return sizes, projections
