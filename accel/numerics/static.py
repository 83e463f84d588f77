"""A model that was calibrated once, and can be quantized in more than one way."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from accel.graph.integer_weights import store
from accel.graph.layers import Layer, layers
from accel.graph.load import copied
from accel.graph.placement import Placement, place
from accel.graph.qdq import QuantizedActivation, QuantizedWeight, insert
from accel.graph.weights_only import targets, worth
from accel.numerics.calibration import Statistics
from accel.numerics.ranges import Method, choose
from accel.numerics.rounding import nearest, table
from accel.numerics.scales import ACTIVATIONS, WEIGHTS, Granularity, Scheme, parameters, quantize_tensor

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model is quantized."""

    method: Method = "minmax"
    percentile: float = 99.999
    weights: Scheme = WEIGHTS
    activations: Scheme = ACTIVATIONS
    per_channel: bool = True
    block_size: int | None = None
    stored: bool = True
    """Whether weights that no kernel multiplies as integers (tables of Gather, LSTM, GRU, RNN) are stored in 8 bits."""


@dataclass(slots=True)
class StaticModel:
    """A prepared float graph, the layers that are to be quantized, and what was seen of their activations."""

    model: ir.Model
    chosen: tuple[Layer, ...]
    placement: Placement
    statistics: Statistics
    _weights: dict[tuple[str, Scheme, Granularity], QuantizedWeight] = field(default_factory=dict)
    _activations: dict[tuple[str, Method, float, Scheme], QuantizedActivation] = field(default_factory=dict)

    def weight(self, layer: Layer, scheme: Scheme, settings: Settings) -> QuantizedWeight:
        """A layer's weight as integers; quantized once."""
        granularity = granularity_of(layer, settings)
        key = (layer.name, scheme, granularity)
        if key not in self._weights:
            integers, found = quantize_tensor(layer.weight, scheme, granularity)
            self._weights[key] = QuantizedWeight(integers, found, scheme, granularity)
        return self._weights[key]

    def activation(self, value: str, settings: Settings, scheme: Scheme | None = None) -> QuantizedActivation:
        """How a value is quantized."""
        scheme = scheme or settings.activations
        key = (value, settings.method, settings.percentile, scheme)
        if key not in self._activations:
            seen = self.statistics.tensors[value]
            low, high = choose(
                seen.histogram, settings.method, scheme, percentile=settings.percentile, average=seen.average
            )
            self._activations[key] = QuantizedActivation(parameters(low, high, scheme), scheme)
        return self._activations[key]

    def forget(self) -> None:
        """Choose ranges anew, from other statistics."""
        self._activations.clear()

    def entering(self, layer: Layer, settings: Settings, scheme: Scheme | None = None) -> QuantizedActivation:
        """How the input of a layer is quantized."""
        return self.activation(self.placement.ranges[str(layer.input.name)], settings, scheme)

    def build(
        self,
        settings: Settings,
        *,
        in_float: Collection[str] = (),
        weights: Mapping[str, QuantizedWeight] | None = None,
        schemes: Mapping[str, Scheme] | None = None,
    ) -> ir.Model:
        """The quantized graph.

        Args:
            settings: How it is quantized.
            in_float: Names of layers that stay in float.
            weights: Weights that are other than the settings say, by layer.
            schemes: Integers of activations that are other than the settings say, by the layer that reads them.
        """
        copy = copied(self.model)
        names = {layer.name for layer in self.chosen} - set(in_float)
        placement = place([layer for layer in layers(copy.graph) if layer.name in names])
        given = weights or {}
        found = {
            layer.name: given.get(layer.name) or self.weight(layer, settings.weights, settings)
            for layer in placement.layers
        }
        wider = {
            placement.ranges[str(layer.input.name)]: schemes[layer.name]
            for layer in placement.layers
            if schemes and layer.name in schemes
        }
        activations = {value: self.activation(value, settings, wider.get(value)) for value in placement.measured}
        insert(copy, placement, found, activations)
        if settings.stored:
            for target in targets(copy.graph):
                if not target.layers and worth(target, WEIGHTS.bits, None):
                    rounded = (table if target.table else nearest)(target.matrix, WEIGHTS)
                    store(copy, target, rounded, "unpack")
        return copy


def granularity_of(layer: Layer, settings: Settings) -> Granularity:
    """What shares a scale in a layer's weight: a channel, or a block along the axis that is summed over."""
    # The runtime knows neither channels nor blocks of a stack of matrices.
    if layer.operator == "MatMul" and layer.weight.ndim > 2:  # noqa: PLR2004
        return Granularity()
    if settings.block_size is not None and layer.operator in {"MatMul", "Gemm"}:
        return Granularity(1 - layer.channel_axis, settings.block_size)
    # A grouped ConvTranspose has its output channels on two axes: one scale serves all.
    if not settings.per_channel or (layer.operator == "ConvTranspose" and layer.group > 1):
        return Granularity()
    return Granularity(layer.channel_axis)


def measurable(chosen: Sequence[Layer], statistics: Statistics, placement: Placement) -> tuple[list[Layer], list[str]]:
    """The layers whose activations are finite, and the names of the others."""
    broken = {name for name, seen in statistics.tensors.items() if not seen.finite}
    bad = {
        layer.name
        for layer in chosen
        if {placement.ranges.get(str(value.name)) for value in (layer.input, layer.output)} & broken
    }
    return [layer for layer in chosen if layer.name not in bad], sorted(bad)
