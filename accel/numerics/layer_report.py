"""Describe each layer of a statically quantized model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from accel.graph.kernels import computes_in_integers, kernels
from accel.graph.layers import Layer
from accel.graph.qdq import QuantizedActivation, QuantizedWeight
from accel.numerics.histogram import Histogram
from accel.numerics.portability import LayerCertificate
from accel.numerics.scales import WIDE, noise_db
from accel.numerics.static import Settings, StaticModel
from accel.report.quantization import LayerReport


def describe(
    static: StaticModel,
    settings: Settings,
    path: Path,
    workspace: Path,
    *,
    weights: Mapping[str, QuantizedWeight],
    noise: Mapping[str, float],
    in_float: Mapping[str, str],
    wide: Collection[str],
    certificates: Mapping[str, LayerCertificate],
) -> tuple[LayerReport, ...]:
    """A report for each layer that was chosen, in the order of the graph.

    Args:
        static: The calibrated model.
        settings: How it was quantized.
        path: The quantized file.
        workspace: Folder for temporary files.
        weights: The weight of each layer that was quantized.
        noise: Noise over signal of each layer's output, on float inputs.
        in_float: Why a layer stayed in float, by its name.
        wide: Layers whose input has 16 bits.
        certificates: What a layer does on processors without VNNI.
    """
    found = kernels(path, [layer.name for layer in static.chosen], workspace)
    return tuple(
        _float(layer, in_float[layer.name], found, noise)
        if layer.name in in_float
        else _quantized(
            static,
            layer,
            weights[layer.name],
            static.entering(layer, settings, WIDE if layer.name in wide else None),
            found.get(layer.name),
            noise,
        ).model_copy(update=_portability(certificates.get(layer.name)))
        for layer in static.chosen
    )


def _portability(certificate: LayerCertificate | None) -> dict[str, object]:
    if certificate is None:
        return {}
    return {
        "portability": certificate.verdict,
        "portability_reason": certificate.reason,
        "saturated_share": certificate.share,
        "saturation_error": certificate.largest_error,
    }


def _float(layer: Layer, reason: str, found: Mapping[str, str], noise: Mapping[str, float]) -> LayerReport:
    return LayerReport(
        name=layer.name,
        operator=layer.operator,
        weight_bits=None,
        output_snr_db=_db(noise.get(layer.name)),
        kernel=found.get(layer.name),
        note=reason,
    )


def _quantized(
    static: StaticModel,
    layer: Layer,
    weight: QuantizedWeight,
    entering: QuantizedActivation,
    kernel: str | None,
    noise: Mapping[str, float],
) -> LayerReport:
    granularity = weight.granularity
    return LayerReport(
        name=layer.name,
        operator=layer.operator,
        weight_bits=weight.scheme.bits,
        activation_bits=entering.scheme.bits,
        granularity="tensor" if granularity.axis is None else "channel" if granularity.block is None else "block",
        weight_scale=(float(weight.parameters.scale.min()), float(weight.parameters.scale.max())),
        activation_scale=float(entering.parameters.scale),
        activation_zero_point=int(entering.parameters.zero_point),
        weight_snr_db=noise_db(layer.weight, weight.floats()),
        output_snr_db=_db(noise.get(layer.name)),
        saturation=saturation(
            static.statistics.tensors[static.placement.ranges[str(layer.input.name)]].histogram, entering
        ),
        kernel=kernel,
        note=""
        if kernel is None or computes_in_integers(kernel)
        else f"ONNX Runtime has no integer kernel for this; it computes in float ({kernel}).",
    )


def saturation(histogram: Histogram, activation: QuantizedActivation) -> float:
    """Share of the values that were counted which lie outside the range of an activation."""
    centres, counts = histogram.density()
    scale, zero = float(activation.parameters.scale), int(activation.parameters.zero_point)
    low = (activation.scheme.low - zero - 0.5) * scale
    high = (activation.scheme.high - zero + 0.5) * scale
    outside = counts[(centres < low) | (centres > high)].sum()
    return float(outside / max(histogram.total, 1))


def _db(noise: float | None) -> float | None:
    return None if noise is None or noise <= 0 else -10 * float(np.log10(noise))
