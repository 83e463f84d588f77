"""Integer weights, activations quantized while running."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from accel.technique import Quantizing

if TYPE_CHECKING:
    import onnx_ir

    from accel.context import Context
    from accel.graph.dynamic import Embedding
    from accel.graph.layers import Layer

_PRODUCTS = ("Gemm", "MatMul")
_FLOAT_ONLY = ("ConvTranspose", "GRU", "RNN")
"""Operators with weights that no runtime computes in integers this way."""


class QuantizeDynamic(Quantizing):
    """Store weights of matrix products and embeddings in 8 bits, quantize activations while running. Needs no data.

    Good for transformers and fully connected networks. The range of an activation is that of the batch it is in, so
    that a sample's result depends a little on its neighbours. Convolutions and LSTM are left in float unless asked for.
    """

    technique: Literal["quantize_dynamic"] = "quantize_dynamic"
    per_channel: bool = Field(True, description="One scale for each output channel instead of one for the tensor.")
    symmetric: bool = Field(
        True,
        description="Weights of matrix products around 0. Off, they get zero points of their own, which is a little "
        "more exact where they lie to one side of 0, and slower on some processors.",
    )
    reduce_range: bool = Field(
        False, description="Weights in 7 bits, for x86 processors without VNNI, where 8-bit products can saturate."
    )
    embeddings: bool = Field(
        True,
        description="Store tables that rows are looked up in (Gather, 4,096 numbers or more) in 8 bits, with a scale "
        "for each row. Off where a table holds numbers that must stay exact.",
    )
    convolutions: bool = Field(
        False,
        description="Quantize Conv too: a smaller file, but mostly a model that is several times slower on processors, "
        "and less accurate. quantize_static is the better choice for convolutions.",
    )
    recurrent: bool = Field(
        False,
        description="Quantize LSTM too, by an operator that only ONNX Runtime has: the file runs nowhere else. Its "
        "state is quantized at each step, so compare the accuracy on long sequences. GRU has no integer form.",
    )

    def apply(self, model: onnx_ir.Model, context: Context) -> onnx_ir.Model:
        """Rewrite the chosen nodes of a prepared copy."""
        from accel.errors import TechniqueFailed
        from accel.graph import dynamic
        from accel.graph.layers import layers
        from accel.graph.prepare import prepare, refuse_quantized
        from accel.numerics.scales import Scheme
        from accel.report.quantization import LayerReport, QuantizationReport

        refuse_quantized(model)
        ready, notes = prepare(model, context.workspace)
        graph = ready.graph
        wanted = self._wanted(graph)
        chosen = [
            layer
            for layer in layers(graph, (*_PRODUCTS, "Conv") if self.convolutions else _PRODUCTS)
            if layer.name in wanted
        ]
        lstms = [node for node in dynamic.recurrent(graph) if self.recurrent and node.name in wanted]
        tables = [table for table in dynamic.embeddings(graph) if self.embeddings and table.name in wanted]
        tables, shared = _alone(tables, chosen)
        if not (chosen or lstms or tables):
            kinds = Counter(node.op_type for node in graph.all_nodes())
            raise TechniqueFailed(
                "The model has nothing that is quantized by these parameters: no chosen matrix product or embedding "
                "with constant float weights outside If, Loop and Scan.",
                hint=f"It has {', '.join(f'{count} {kind}' for kind, count in kinds.most_common(8))}; "
                "`convolutions` and `recurrent` add to what is quantized.",
            )
        left = _left(graph, {*(layer.name for layer in chosen), *(str(node.name) for node in lstms)})
        in_float = [
            LayerReport(name=layer.name, operator=layer.operator, weight_bits=None)
            for layer in layers(graph)
            if layer.node not in {part.node for part in chosen}
        ]
        scheme = Scheme(7 if self.reduce_range else 8, symmetric=self.symmetric)
        done = dynamic.rewrite(ready, chosen, tables, lstms, scheme=scheme, per_channel=self.per_channel)
        context.quantization = QuantizationReport(layers=(*done, *in_float))
        kinds = Counter(layer.operator for layer in done)
        for note in (*notes, f"Quantized: {_counted(kinds)}.", *left, *shared):
            context.note(note)
        return ready

    def _wanted(self, graph: onnx_ir.Graph) -> set[str]:
        from accel.graph.layers import chosen

        return chosen(graph, self.include, self.exclude)


def _alone(tables: list[Embedding], chosen: list[Layer]) -> tuple[list[Embedding], list[str]]:
    """The embeddings whose float table nothing needs any more; a remark on each of the others."""
    replaced = {table.node for table in tables} | {layer.node for layer in chosen}
    alone, notes = [], []
    for table in tables:
        value = table.node.inputs[0]
        users = [use.node for use in value.uses() if use.node not in replaced] if value is not None else []
        if users:
            notes.append(f"The table of {table.name} stays in float, since {users[0].name} needs it.")
        else:
            alone.append(table)
    return alone, notes


def _left(graph: onnx_ir.Graph, quantized: set[str]) -> list[str]:
    """What has weights and was left in float."""
    from accel.graph.layers import LAYER_OPERATORS, constant

    weighted = (*LAYER_OPERATORS, "LSTM", *_FLOAT_ONLY)
    kept: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    outside = set(graph)
    for node in graph.all_nodes():
        if node.op_type not in weighted:
            continue
        if node not in outside:
            inside[node.op_type] += 1
        elif str(node.name) not in quantized and constant(node.inputs[1]) is not None:
            kept[node.op_type] += 1
    notes = [f"Left in float: {_counted(kept)}."] if kept else []
    return [*notes, f"Left alone inside If, Loop or Scan: {_counted(inside)}."] if inside else notes


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
