"""Recurrent layers by PyTorch's kernels, which run all time steps of both directions at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence


@dataclass(frozen=True, slots=True)
class Kernel:
    """One of PyTorch's recurrent layers."""

    function: Callable[..., Any]
    order: tuple[int, ...]
    """Places of its gates among those of ONNX."""
    states: int = 1


LSTM = Kernel(torch.lstm, (0, 2, 3, 1), states=2)
GRU = Kernel(torch.gru, (1, 0, 2))
RNN = {"Tanh": Kernel(torch.rnn_tanh, (0,)), "Relu": Kernel(torch.rnn_relu, (0,))}


def run(
    kernel: Kernel,
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor | None],
    states: tuple[Tensor, ...],
    lengths: list[int] | None,
    *,
    backward: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All directions of a layer.

    Args:
        kernel: The layer.
        x: [time, batch, inputs].
        weights: Of inputs [directions, gates * hidden, inputs] and outputs [directions, gates * hidden, hidden], and biases
            [directions, 2 * gates * hidden], gates in the order of ONNX.
        states: [directions, batch, hidden] each.
        lengths: Of the sequences, at least 1; None where all are as long as the time axis.
        backward: Whether the only direction is the one from the end.

    Returns:
        Outputs [time, batch, directions * hidden], 0 behind the end of a sequence, and the states after its last step.
    """
    order = _reversal(x, lengths) if backward else None
    if order is not None:
        x = x[order]
    parameters, biased = _parameters(kernel, weights), weights[2] is not None
    setting = (biased, 1, 0.0, torch.is_grad_enabled(), weights[0].shape[0] > 1)
    if lengths is None:
        y, *after = kernel.function(x, _given(states), parameters, *setting, False)
    else:
        longest_first = torch.tensor(lengths).argsort(descending=True, stable=True)
        places, back = longest_first.to(x.device), longest_first.argsort().to(x.device)
        packed = pack_padded_sequence(x[:, places], torch.tensor(lengths)[longest_first])
        given = _given(tuple(state[:, places] for state in states))
        data, *after = kernel.function(packed.data, packed.batch_sizes, given, parameters, *setting)
        y, _ = pad_packed_sequence(PackedSequence(data, packed.batch_sizes), total_length=x.shape[0])
        y, after = y[:, back], [state[:, back] for state in after]
    return y if order is None else y[order], tuple(after)


def _given(states: tuple[Tensor, ...]) -> Any:
    """States as a kernel takes them: a single one is not in a sequence."""
    return states[0] if len(states) == 1 else states


def _parameters(kernel: Kernel, weights: Sequence[Tensor | None]) -> list[Tensor]:
    inputs, outputs, biases = weights
    found = []
    for direction in range(0 if inputs is None else inputs.shape[0]):
        parts = [weight[direction] for weight in (inputs, outputs) if weight is not None]
        parts += [] if biases is None else biases[direction].chunk(2)
        found += [_reordered(part, kernel.order) for part in parts]
    return found


def _reordered(weight: Tensor, order: tuple[int, ...]) -> Tensor:
    if len(order) == 1:
        return weight
    gates = weight.chunk(len(order))
    return torch.cat([gates[place] for place in order])


def _reversal(x: Tensor, lengths: list[int] | None) -> tuple[Tensor, Tensor]:
    """Places that turn each sequence round, [time, 1] and [batch]; what is behind its end stays."""
    times = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
    ends = torch.tensor(lengths or [x.shape[0]], device=x.device)
    return torch.where(times < ends, ends - 1 - times, times), torch.arange(x.shape[1], device=x.device)
