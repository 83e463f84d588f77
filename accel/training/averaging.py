"""A running mean of the weights, which is often better than the weights themselves (Polyak and Juditsky 1992)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from accel.training.learner import Learner, State

_Tensors = tuple[Tensor, ...] | list[Tensor]
_COUNT = "averaged"


class Average:
    """A running mean of weights and running statistics: PyTorch's own, with a decay that begins small.

    After n steps at most (1 + n) / (10 + n) of the mean is kept, so that it soon forgets the weights that it began with.
    """

    def __init__(self, learner: Learner, decay: float) -> None:
        """Begin with the weights as they are.

        Args:
            learner: Whose weights.
            decay: Share of the mean that is kept at each step in the end.
        """

        def mean(averaged: _Tensors, current: _Tensors, steps: Tensor | int) -> None:
            count = int(steps)
            share = 1 - min(decay, (1 + count) / (10 + count))
            for held, new in zip(averaged, current, strict=True):
                held.lerp_(new, share)

        self._learner = learner
        start = learner.weights()
        self._names = tuple(start)
        self._model = AveragedModel(_Held(start), multi_avg_fn=mean, use_buffers=True)

    @property
    def begun(self) -> bool:
        """Whether a step was taken in."""
        return bool(self._model.n_averaged > 0)

    def update(self) -> None:
        """Take a step's weights in."""
        with torch.no_grad():
            self._model.update_parameters(_Held(self._learner.weights()))

    def weights(self) -> State:
        """The mean, copied."""
        return {name: held.clone() for name, held in zip(self._names, self._model.module.buffers(), strict=True)}

    def state(self) -> State:
        """What a checkpoint keeps."""
        return self.weights() | {_COUNT: self._model.n_averaged.clone()}

    def load(self, state: State) -> None:
        """Put it back."""
        for name, held in zip(self._names, self._model.module.buffers(), strict=True):
            held.copy_(state[name])
        self._model.n_averaged.copy_(state[_COUNT])


class _Held(nn.Module):
    """Tensors as a module."""

    def __init__(self, state: State) -> None:
        super().__init__()
        for place, held in enumerate(state.values()):
            self.register_buffer(str(place), held)
