"""Measure what quantization did to the means of layers, and correct their biases."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accel.context import Calibration, Context, rows_in
from accel.errors import BadDataset
from accel.graph.biases import Unmovable, add_to_bias
from accel.graph.chains import output_channels
from accel.graph.layers import Layer
from accel.graph.observe import Observed, Probe, observe
from accel.graph.quantized import quantized_layers
from accel.graph.rescale import bias_slot, by_channel
from accel.graph.stepwise import Stepwise
from accel.numerics.bias import expected_shift, mean_error

if TYPE_CHECKING:
    import onnx_ir as ir

Array = npt.NDArray[np.generic]
Floats = npt.NDArray[np.floating]
Left = dict[str, list[str]]
"""Names of layers, by the reason why they were not corrected."""

_BATCH = 8
_STEP_BYTES = 256 << 20
"""About so much of activations is kept when the graph is run layer after layer."""
_STEP_LIVE = 4
"""Values as large as the largest that are alive at a time, about."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A quantized model beside the float model, on the same samples."""

    inputs: dict[str, Floats]
    """Mean of each channel that a layer reads in the float model, by layer."""
    error: float
    """Mean error of the layers' outputs, relative to their means."""
    noise: float | None
    """Noise over signal of the model's outputs; None where it has no float output that is not 0."""

    @property
    def decibels(self) -> str:
        """The noise as a signal-to-noise ratio."""
        return "?" if self.noise is None else "infinite" if self.noise == 0 else f"{-10 * np.log10(self.noise):.1f}"


@dataclass(frozen=True, slots=True)
class BiasRun:
    """Layers of a quantized model that are compared with the float model."""

    chosen: Mapping[str, Layer]
    reference: ir.Model
    calibration: Calibration
    samples: int
    context: Context

    def measure(self, quantized: ir.Model) -> Measured:
        """Run both models side by side.

        Raises:
            BadDataset: There is no sample.
        """
        entering = {name: _mean(str(layer.input.name), layer) for name, layer in self.chosen.items()}
        theirs, ours = self._outgoing(self.reference), self._outgoing(quantized)
        results = [Probe(str(value.name), "all") for value in self.reference.graph.outputs if _is_float(value)]
        answers = [Probe(str(value.name), "all") for value in quantized.graph.outputs if _is_float(value)]
        pair: tuple[Observed, Observed] | None = None
        sums: dict[str, dict[str, Floats]] = {"inputs": {}, "wanted": {}, "found": {}}
        rows, signal, noise = 0, 0.0, 0.0
        for batch in self._batches(self.samples):
            pair = pair or (
                observe(
                    self.reference, [*entering.values(), *theirs.values(), *results], batch, self.context.workspace
                ),
                observe(quantized, [*ours.values(), *answers], batch, self.context.workspace),
            )
            float_seen, seen = pair[0].run(batch), pair[1].run(batch)
            count = rows_in(batch)
            _add(sums["inputs"], entering, float_seen, count)
            _add(sums["wanted"], theirs, float_seen, count)
            _add(sums["found"], ours, seen, count)
            for wanted, found in zip(results, answers, strict=True):
                (reference,), (other,) = float_seen[wanted], seen[found]
                signal += float(np.square(reference, dtype=np.float64).sum())
                noise += float(np.square(other.astype(np.float64) - reference.astype(np.float64)).sum())
            rows += count
            self.context.progress("measuring means", rows, self.samples, "")
        if not rows:
            raise BadDataset("There is no sample to measure means on.", hint="Give a dataset with rows.")
        return Measured(
            {name: total / rows for name, total in sums["inputs"].items()},
            mean_error(sums["wanted"], sums["found"]),
            noise / signal if signal > 0 and np.isfinite(noise) else None,
        )

    def correct(self, quantized: ir.Model, measured: Measured) -> Left:
        """Take off what rounded weights do to the means of the layers' inputs."""
        left: Left = defaultdict(list)
        for layer in quantized_layers(quantized.graph):
            given = self.chosen.get(layer.name)
            if given is None:
                continue
            error = by_channel(given, given.weight.astype(np.float64) - layer.weight.floats())
            shift = expected_shift(error, measured.inputs[layer.name])
            try:
                add_to_bias(quantized.graph, layer, shift)
            except Unmovable as reason:
                left[str(reason)].append(layer.name)
        return left

    def correct_by_data(self, quantized: ir.Model) -> Left:
        """Take off the mean error of each layer's output, measured when the layers before it have been corrected.

        The quantized graph is run once, from layer to layer, all samples at a time: a correction goes at once into what the
        layers behind are measured on. Correcting several layers by one measurement does not work: each would also correct
        what it inherits from those before it, a second time.

        Raises:
            TechniqueFailed: The model has sub-graphs.
        """
        batches, wanted = self._batches_and_means()
        places = {probe.value: name for name, probe in self._outgoing(quantized).items()}
        left: Left = defaultdict(list)
        found = {layer.name: layer for layer in quantized_layers(quantized.graph)}
        steps = Stepwise(quantized, batches, self.context.workspace)
        for done, (value, arrays) in enumerate(steps.stops(list(places))):
            name = places[value]
            axis = _channel_axis(self.chosen[name]) % arrays[0].ndim
            others = tuple(a for a in range(arrays[0].ndim) if a != axis)
            counts = [rows_in(batch) for batch in batches]
            means = [np.asarray(array, np.float64).mean(others) for array in arrays]
            shift = wanted[name] - np.average(means, axis=0, weights=counts)
            try:
                add_to_bias(quantized.graph, found[name], shift)
            except Unmovable as reason:
                left[str(reason)].append(name)
                continue
            spread = shift.reshape([-1 if a == axis else 1 for a in range(arrays[0].ndim)]).astype(np.float32)
            arrays[:] = [np.asarray(array, np.float32) + spread for array in arrays]
            self.context.progress("correcting", done + 1, len(places), "")
        return left

    def _batches_and_means(self) -> tuple[list[Mapping[str, Array]], dict[str, Floats]]:
        """As many samples as can be kept, and the float model's means on them."""
        probes = self._outgoing(self.reference)
        first = next(iter(self.calibration.batches(1, 1)), None)
        if first is None:
            raise BadDataset("There is no sample to measure means on.", hint="Give a dataset with rows.")
        everything = [Probe(probe.value, "all") for probe in probes.values()]
        seen = observe(self.reference, everything, first, self.context.workspace).run(first)
        largest = max(arrays[0].nbytes for arrays in seen.values()) // rows_in(first)
        fitting = max(1, min(self.samples, _STEP_BYTES // (_STEP_LIVE * max(largest, 1))))
        watched = observe(self.reference, list(probes.values()), first, self.context.workspace)
        batches: list[Mapping[str, Array]] = []
        sums: dict[str, Floats] = {}
        for batch in self._batches(fitting):
            batches.append(batch)
            _add(sums, probes, watched.run(batch), rows_in(batch))
        rows = sum(map(rows_in, batches))
        if rows < self.samples:
            self.context.note(f"The layers were compared on {rows} samples.")
        return batches, {name: total / rows for name, total in sums.items()}

    def _batches(self, samples: int) -> Iterator[dict[str, Array]]:
        return self.calibration.batches(samples, self.calibration.batch_size(_BATCH))

    def _outgoing(self, model: ir.Model) -> dict[str, Probe]:
        """What gives the mean of each output channel of the layers, with the bias, in order."""
        found = {}
        for node in model.graph:
            layer = self.chosen.get(str(node.name))
            if layer is not None:
                slot = bias_slot(node, output_channels(layer))
                behind = node if slot is None else slot[0]
                found[layer.name] = _mean(str(behind.outputs[0].name), layer)
        return found


def _mean(value: str, layer: Layer) -> Probe:
    return Probe(value, "channel_mean", _channel_axis(layer))


def _channel_axis(layer: Layer) -> int:
    return 1 - layer.weight.ndim if layer.operator in {"Conv", "ConvTranspose"} else -1


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.name == "FLOAT"


def _add(
    sums: dict[str, Floats], probes: Mapping[str, Probe], seen: Mapping[Probe, tuple[Array, ...]], rows: int
) -> None:
    for name, probe in probes.items():
        mean = np.asarray(seen[probe][0], np.float64) * rows
        sums[name] = sums[name] + mean if name in sums else mean
