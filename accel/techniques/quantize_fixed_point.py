"""Weights as whole numbers of steps of a power of two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from accel.technique import Quantizing

if TYPE_CHECKING:
    import onnx_ir

    from accel.context import Context
    from accel.numerics.fixed_point import Fixed
    from accel.numerics.scales import Float32
    from accel.report.quantization import LayerReport


@dataclass(frozen=True, slots=True)
class _Use:
    """A constant, and a node that reads it."""

    node: onnx_ir.Node
    position: int
    value: onnx_ir.Value
    array: Float32

    @property
    def name(self) -> str:
        return str(self.node.name)


class QuantizeFixedPoint(Quantizing):
    """Store weights as fixed-point numbers: each weight w becomes the integer round(w * 2^b), with saturation.

    One step size, 2^-b, serves the whole model, so that layers with small weights lose most: a scale of its own for
    each channel (quantize_static, quantize_weights) is nearly always better. The report has the error that the rule
    causes, to compare it with the others. ONNX Runtime turns the integers back into floats on each run and computes in
    these (except in some matrix products with 8-bit weights, where it rounds the activations too): the file gets
    smaller, and the model slower, up to 3 times where weights are large and inputs small.
    """

    technique: Literal["quantize_fixed_point"] = "quantize_fixed_point"
    fraction_bits: int | None = Field(
        None,
        ge=0,
        le=30,
        description="The b of the rule: bits behind the binary point. More are finer, but large weights saturate. Left "
        "out, the largest b at which no weight saturates.",
    )
    storage_bits: Literal[8, 16, 32] = Field(
        16,
        description="Bits of the integers, the sign included. 16 halves the size and needs opset 21; 8 quarters it but "
        "is seldom enough for one step size in all layers; 32 leaves the size as it is.",
    )
    biases: bool = Field(False, description="Store the biases of the layers in the same way.")
    embeddings: bool = Field(False, description="Store tables that rows are looked up in (Gather) in the same way.")

    def apply(self, model: onnx_ir.Model, context: Context) -> onnx_ir.Model:
        """Round, saturate, and put a DequantizeLinear behind each weight."""
        from accel.errors import TechniqueFailed
        from accel.graph.prepare import BLOCK_OPSET, QDQ_OPSET, prepare, refuse_quantized
        from accel.numerics.fixed_point import best_fraction_bits, fix
        from accel.report.quantization import QuantizationReport

        refuse_quantized(model)
        opset = BLOCK_OPSET if self.storage_bits == 16 else QDQ_OPSET  # noqa: PLR2004  (int16 came with opset 21)
        ready, notes = prepare(model, context.workspace, opset=opset)
        uses = self._uses(ready.graph)
        if not uses:
            raise TechniqueFailed(
                "The model has no chosen layer with constant float weights outside If, Loop and Scan.",
                hint="Weights of Conv, ConvTranspose, Gemm and MatMul are quantized, and tables with `embeddings`.",
            )
        weights = {use.value: use.array for use in uses}
        best = best_fraction_bits(weights.values(), self.storage_bits)
        bits = best if self.fraction_bits is None else self.fraction_bits
        fixed = {value: fix(array, bits, self.storage_bits) for value, array in weights.items()}
        _insert(ready.graph, uses, fixed)
        context.quantization = QuantizationReport(layers=tuple(_reports(uses, fixed)))
        nested = sum(1 for _ in ready.graph.all_nodes()) - len(ready.graph)
        if nested:
            notes.append(f"The {nested} nodes inside If, Loop or Scan were left alone.")
        for note in (*notes, *_errors(uses, fixed, bits, best, self.storage_bits)):
            context.note(note)
        return ready

    def _uses(self, graph: onnx_ir.Graph) -> list[_Use]:
        """The constants that are to be quantized, each with the nodes that read it."""
        import numpy as np

        from accel.errors import TechniqueFailed
        from accel.graph.dynamic import embeddings
        from accel.graph.layers import chosen, layers

        wanted = chosen(graph, self.include, self.exclude)
        found = []
        for layer in layers(graph):
            found.append((layer.node, 1, layer.weight))
            if self.biases and layer.bias is not None:
                found.append((layer.node, 2, layer.bias))
        if self.embeddings:
            found += [(table.node, 0, table.table) for table in embeddings(graph)]
        uses = []
        for node, position, array in found:
            value = node.inputs[position]
            if value is None or node.name not in wanted or not array.size:
                continue
            if not np.isfinite(array).all():
                raise TechniqueFailed(
                    f"The constant {value.name!r} holds numbers that are not finite.",
                    hint=f"Leave {node.name} in float, by `exclude`, or repair the model.",
                )
            uses.append(_Use(node, position, value, array))
        return uses


def _insert(graph: onnx_ir.Graph, uses: Sequence[_Use], fixed: Mapping[onnx_ir.Value, Fixed]) -> None:
    """Store the integers, and bring them back to floats: rows behind their Gather, weights in front of their layer."""
    import onnx_ir as ir

    from accel.graph.prepare import graph_constant

    step = graph_constant(graph, "fixed_point_step", next(iter(fixed.values())).step)
    stored = {value: graph_constant(graph, f"{value.name}_fixed", part.integers) for value, part in fixed.items()}
    floats: dict[ir.Value, ir.Value] = {}
    for use in uses:
        node = use.node
        if node.op_type == "Gather":
            rows = node.outputs[0]
            back = ir.Node("", "DequantizeLinear", [rows, step], name=f"{node.name}_dequantize")
            result = back.outputs[0]
            name, result.type, result.shape = rows.name, rows.type, rows.shape
            rows.replace_all_uses_with(result, replace_graph_outputs=True)
            back.replace_input_with(0, rows)
            rows.name, result.name = f"{name}_fixed", name
            rows.type = ir.TensorType(ir.DataType.from_numpy(fixed[use.value].integers.dtype))
            node.replace_input_with(0, stored[use.value])
            graph.insert_after(node, back)
            continue
        if use.value not in floats:
            back = ir.Node("", "DequantizeLinear", [stored[use.value], step], name=f"{use.value.name}_dequantize")
            back.outputs[0].name = f"{use.value.name}_dequantized"
            back.outputs[0].type, back.outputs[0].shape = use.value.type, use.value.shape
            graph.insert_before(node, back)
            floats[use.value] = back.outputs[0]
        node.replace_input_with(use.position, floats[use.value])
    for value in fixed:
        if value.name is not None and not value.uses() and not value.is_graph_output():
            del graph.initializers[value.name]


def _reports(uses: Sequence[_Use], fixed: Mapping[onnx_ir.Value, Fixed]) -> Iterator[LayerReport]:
    from accel.numerics.fixed_point import snr_db
    from accel.report.quantization import LayerReport

    for use in uses:
        part = fixed[use.value]
        if use.position == 2:  # noqa: PLR2004  (a bias belongs to the layer of the weight before it)
            continue
        yield LayerReport(
            name=use.name,
            operator=use.node.op_type,
            weight_bits=part.integers.dtype.itemsize * 8,
            granularity="tensor",
            weight_scale=(float(part.step), float(part.step)),
            weight_snr_db=snr_db([part]),
            note=f"{part.saturated} of {part.integers.size} weights saturated." if part.saturated else "",
        )


def _errors(
    uses: Sequence[_Use], fixed: Mapping[onnx_ir.Value, Fixed], bits: int, best: int, storage: int
) -> Iterator[str]:
    """What the rule did to the weights, in words."""
    from accel.numerics.fixed_point import snr_db

    parts = list(fixed.values())
    count = sum(part.integers.size for part in parts)
    saturated = sum(part.saturated for part in parts)
    rms = (sum(part.squared_error for part in parts) / count) ** 0.5
    largest = max(part.largest_error for part in parts)
    total = snr_db(parts)
    yield (
        f"round(w * 2^{bits}) in {storage} bits: {saturated / count:.3%} of {count} weights saturated, largest error "
        f"{largest:.3g}, RMS error {rms:.3g}, signal-to-noise {'without loss' if total is None else f'{total:.1f} dB'}."
    )
    lossy = [(ratio, use.name) for use in uses if (ratio := snr_db([fixed[use.value]])) is not None]
    if lossy:
        ratio, name = min(lossy)
        yield f"The worst layer is {name}, with {ratio:.1f} dB."
    if bits != best:
        yield f"With {storage} bits, {best} is the largest number of fraction bits at which no weight saturates."
    elif saturated:
        yield f"Some weights saturate in {storage} bits even without fraction bits."
    else:
        yield f"{bits} is the largest number of fraction bits at which no weight saturates in {storage} bits."
