"""Channels that serve for nothing: dead, saturated, or too small for the scale that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from accel.graph.layers import Layer, constant
from accel.graph.observe import Probe
from accel.numerics.scales import ACTIVATIONS
from accel.report.quantization import Finding

Array = npt.NDArray[np.generic]
Float64 = npt.NDArray[np.float64]

_STEPS = 4
"""A channel that a shared scale leaves fewer steps than this has little left of its shape."""
_NAMED = 10
_MANY = {"dead_channels": 0.9, "saturated_channels": 0.25, "uneven_channels": 0.25}
"""Share of a layer's channels from where a person should look; half of a squeeze layer is dead in many good models."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """How many channels of a layer are in some state."""

    name: str
    channels: int
    of: int

    @property
    def share(self) -> float:
        return self.channels / self.of


class ChannelActivity:
    """Takes in the smallest and the largest value of each channel, run by run, so that memory does not grow."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        """Begin; what comes out of each layer after its Relu or Clip is looked at."""
        self._layers = layers
        self._probes = {layer.name: Probe(str(layer.output.name), "channel_extremes", _axis(layer)) for layer in layers}
        self._seen: dict[str, tuple[Float64, Float64]] = {}
        self._samples = 0

    @property
    def probes(self) -> tuple[Probe, ...]:
        """What must be seen of the graph."""
        return tuple(dict.fromkeys(self._probes.values()))

    def add(self, found: Mapping[Probe, tuple[Array, ...]], rows: int) -> None:
        """Take in what one run gave."""
        for name, probe in self._probes.items():
            low, high = (part.astype(np.float64) for part in found[probe])
            before = self._seen.get(name)
            self._seen[name] = (
                (low, high) if before is None else (np.minimum(before[0], low), np.maximum(before[1], high))
            )
        self._samples += rows

    def findings(self) -> tuple[Finding, ...]:
        """What a person should know of the channels."""
        dead: list[_Counted] = []
        saturated: list[_Counted] = []
        weak: list[_Counted] = []
        for layer in self._layers:
            if layer.name not in self._seen or not all(np.isfinite(part).all() for part in self._seen[layer.name]):
                continue
            low, high = self._seen[layer.name]
            bound = _upper_bound(layer)
            full = np.zeros(low.shape, bool) if bound is None else low >= bound
            still = (high == low) & ~full
            step = (max(float(high.max()), 0.0) - min(float(low.min()), 0.0)) / (ACTIVATIONS.high - ACTIVATIONS.low)
            small = (high - low < _STEPS * step) & ~still & ~full
            for states, state in ((dead, still), (saturated, full), (weak, small)):
                states.append(_Counted(layer.name, int(state.sum()), state.size))
        return tuple(
            finding
            for finding in (
                _finding(
                    "dead_channels",
                    dead,
                    f"never changed on {self._samples} samples",
                    "They cost time and space for nothing: prune them. Where most of a layer is dead, look at the preprocessing"
                    " of the samples first, and use more of them.",
                ),
                _finding(
                    "saturated_channels",
                    saturated,
                    f"were at the upper bound of their Clip all the time on {self._samples} samples",
                    "What is fed is probably larger than the model was trained on: compare the scaling of the samples with"
                    " that of the training.",
                ),
                _finding(
                    "uneven_channels",
                    weak,
                    f"have fewer than {_STEPS} of the 256 steps of the scale that they share with their layer"
                    f" ({self._samples} samples)",
                    "Put `equalize` before this step, or leave these layers in float with `exclude`, if the accuracy is not"
                    " good enough.",
                ),
            )
            if finding is not None
        )


def _axis(layer: Layer) -> int:
    return 1 if layer.operator in {"Conv", "ConvTranspose"} else -1


def _upper_bound(layer: Layer) -> float | None:
    """Where the Clip behind a layer cuts; None where there is none."""
    node = layer.output.producer()
    if node is None or node.op_type != "Clip" or len(node.inputs) < 3:  # noqa: PLR2004  (data, min, max)
        return None
    bound = constant(node.inputs[2])
    return None if bound is None else float(bound.reshape(()))


def _finding(code: str, counted: Sequence[_Counted], what: str, hint: str) -> Finding | None:
    """One finding for all layers, with the worst of them by name; None where no channel is concerned."""
    concerned = sorted((c for c in counted if c.channels), key=lambda c: (-c.share, -c.channels, c.name))
    if not concerned:
        return None
    named = ", ".join(f"{c.name} ({c.channels} of {c.of})" for c in concerned[:_NAMED])
    more = f" and {len(concerned) - _NAMED} more layers" if len(concerned) > _NAMED else ""
    channels, of = sum(c.channels for c in concerned), sum(c.of for c in counted)
    return Finding(
        code=code,
        severity="warning" if concerned[0].share >= _MANY[code] else "info",
        message=f"{channels:,} of {of:,} channels {what}: {named}{more}.",
        hint=hint,
    )
