"""Recurrent layers step by step: what runs where PyTorch's own kernels do not compute the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from accel.graph.torch_graph.activation import ACTIVATIONS, Activation
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import unsupported

States = tuple[Tensor, ...]
"""What a layer remembers, the output first: [batch, hidden] each."""
Step = Callable[[Tensor, States], States]
"""One time step of one direction: the products of its input [batch, gates * hidden], the states before it."""
Product = Callable[[Tensor], Tensor]
"""The output before [batch, hidden] times the recurrent weight: [batch, gates * hidden]."""
_ALPHA = frozenset({"Affine", "Elu", "HardSigmoid", "LeakyRelu", "ScaledTanh", "ThresholdedRelu"})
_BETA = frozenset({"Affine", "HardSigmoid", "ScaledTanh"})
"""Activations that take a value of ``activation_alpha`` and of ``activation_beta``."""
_BACKWARD = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


@dataclass(frozen=True, slots=True)
class Recurrence:
    """How a node runs over its sequences."""

    backward: tuple[bool, ...]
    """For each direction, whether it begins at the end."""
    names: tuple[str, ...]
    """Of the activations of all directions, in order."""
    activations: tuple[tuple[Activation, ...], ...]
    """Those of each direction."""
    clip: float | None
    """The greatest magnitude that an activation is given."""
    batch_first: bool

    def is_plain(self, defaults: Sequence[str]) -> bool:
        """Whether each direction has these activations, and nothing is clipped."""
        return self.clip is None and self.names == (*defaults,) * len(self.backward)


def recurrence_of(node: Node, defaults: Sequence[str]) -> Recurrence:
    """How a node runs.

    Args:
        node: An LSTM, GRU or RNN.
        defaults: The activations that a direction has where none are named.

    Raises:
        UnsupportedOperator: A direction or an activation is unknown.
    """
    direction = node.string("direction", "forward")
    if direction not in _BACKWARD:
        raise unsupported(node, f"its direction {direction!r} is unknown")
    backward, each = _BACKWARD[direction], len(defaults)
    known = {name.lower(): name for name in ACTIVATIONS}
    given = node.strings("activations")[: each * len(backward)] or defaults
    if len(given) == each:
        given = [*given] * len(backward)
    names = tuple(known.get(name.lower(), "") for name in given)
    if "" in names or len(names) != each * len(backward):
        raise unsupported(node, f"its activations {', '.join(given)} are not {each} known ones for each direction")
    alphas, betas = iter(node.floats("activation_alpha")), iter(node.floats("activation_beta"))
    made = [_activation(name, alphas, betas) for name in names]
    return Recurrence(
        backward,
        names,
        tuple(tuple(made[place : place + each]) for place in range(0, len(made), each)),
        node.float("clip", 0.0) if node.has("clip") else None,
        bool(node.int("layout", 0)),
    )


def unrolled(
    step: Step, products: Tensor, states: States, lengths: Tensor | None, *, backward: bool
) -> tuple[Tensor, States]:
    """One direction over all time steps.

    Args:
        step: What one time step computes.
        products: Of all inputs with their weights, [time, batch, gates * hidden].
        states: Before the first step.
        lengths: [batch] of each sequence, None where all are as long as the time axis.
        backward: Whether it begins at the end of each sequence.

    Returns:
        Outputs [time, batch, hidden], 0 behind the end of a sequence, and the states after its last step; 0 where it has
        none, as in ONNX Runtime.
    """
    count = products.shape[0]
    outputs: list[Tensor] = [products] * count
    for time in reversed(range(count)) if backward else range(count):
        fresh = step(products[time], states)
        if lengths is None:
            states, outputs[time] = fresh, fresh[0]
        else:
            going = (lengths > time).unsqueeze(1)
            states = tuple(torch.where(going, new, old) for new, old in zip(fresh, states, strict=True))
            outputs[time] = torch.where(going, fresh[0], 0)
    if lengths is not None:
        states = tuple(torch.where((lengths > 0).unsqueeze(1), state, 0) for state in states)
    return torch.stack(outputs), states


def lstm_step(
    product: Product, activations: Sequence[Activation], clip: float | None, peepholes: Tensor | None, *, coupled: bool
) -> Step:
    """A step of an LSTM, its gates in the order of ONNX: input, output, forget, cell.

    Args:
        product: With the recurrent weight.
        activations: Of gates, cell, and output.
        clip: The greatest magnitude of their arguments.
        peepholes: [3 * hidden], what the cell adds to the input, output and forget gates.
        coupled: Whether the cell forgets as much as it takes in.
    """
    cut = _cutting(clip)
    gate, inner, outer = activations
    see_in, see_out, see_forget = (None,) * 3 if peepholes is None else peepholes.chunk(3)

    def step(x: Tensor, states: States) -> States:
        before, cell = states
        take, give, forget, new = (x + product(before)).chunk(4, -1)
        take = gate(cut(take if see_in is None else take + see_in * cell))
        forget = 1 - take if coupled else gate(cut(forget if see_forget is None else forget + see_forget * cell))
        cell = forget * cell + take * inner(cut(new))
        give = gate(cut(give if see_out is None else give + see_out * cell))
        return give * outer(cell), cell

    return step


def gru_step(
    weight: Tensor, bias: Tensor | None, activations: Sequence[Activation], clip: float | None, *, product_first: bool
) -> Step:
    """A step of a GRU, its gates in the order of ONNX: update, reset, hidden.

    Args:
        weight: The recurrent one, [3 * hidden, hidden].
        bias: [3 * hidden] that belongs to it; None for none.
        activations: Of gates and output.
        clip: The greatest magnitude of their arguments.
        product_first: Whether what the hidden gate resets is its product, not what is multiplied (``linear_before_reset``).
    """
    cut, hidden = _cutting(clip), weight.shape[-1]
    gate, inner = activations
    gates, last = weight[: 2 * hidden].t(), weight[2 * hidden :].t()
    shift, last_shift = (0.0, 0.0) if bias is None else (bias[: 2 * hidden], bias[2 * hidden :])

    def step(x: Tensor, states: States) -> States:
        (before,) = states
        update, reset = gate(cut(x[:, : 2 * hidden] + before @ gates + shift)).chunk(2, -1)
        change = reset * (before @ last + last_shift) if product_first else (reset * before) @ last + last_shift
        new = inner(cut(x[:, 2 * hidden :] + change))
        return ((1 - update) * new + update * before,)

    return step


def rnn_step(product: Product, activations: Sequence[Activation], clip: float | None) -> Step:
    """A step of the plain recurrent layer."""
    cut = _cutting(clip)
    (activation,) = activations
    return lambda x, states: (activation(cut(x + product(states[0]))),)


def _cutting(clip: float | None) -> Activation:
    return (lambda x: x) if clip is None else (lambda x: torch.clamp(x, -clip, clip))


def _activation(name: str, alphas: Iterator[float], betas: Iterator[float]) -> Activation:
    """An activation with the next of the values that it takes, while there are any."""
    given = {}
    for parameter, takes, values in (("alpha", _ALPHA, alphas), ("beta", _BETA, betas)):
        value = next(values, None) if name in takes else None
        if value is not None:
            given[parameter] = value
    return ACTIVATIONS[name](**given)
