"""Integer weights, computation in float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from accel.technique import Quantizing

if TYPE_CHECKING:
    import onnx_ir

    from accel.context import Context
    from accel.graph.weights_only import Storage, Target
    from accel.numerics.gram import Gram
    from accel.numerics.rounding import Rounded
    from accel.numerics.scales import Scheme
    from accel.report.quantization import LayerReport

_NAMED = 5
_BYTE = 8


class QuantizeWeights(Quantizing):
    """Store weights in 2 to 8 bits and compute in float: a file of a quarter to a tenth of the size, activations untouched.

    The safest way to a small file. Speed stays what it was, except for large matrix products, which read the integers and get
    faster. Only the method `gptq` needs a dataset. Put this step last: a later one that simplifies the graph may turn the
    weights into floats again.
    """

    technique: Literal["quantize_weights"] = "quantize_weights"
    bits: int = Field(
        8,
        ge=2,
        le=8,
        description="Bits of a weight. 8 loses next to nothing, 4 little with blocks of 32, 2 and 3 need `gptq`. ONNX has types "
        "of 2, 4 and 8 bits; others take the room of the next wider one. 4 bits need opset 21, 2 bits opset 25.",
    )
    block_size: int | None = Field(
        None,
        ge=8,
        le=4096,
        description="Weights that share a scale, along what one output sums over; 32 to 128 is usual for 4 bits and fewer. "
        "null: one scale for each output channel. A scale takes 32 bits.",
    )
    method: Literal["nearest", "hqq", "gptq"] = Field(
        "hqq",
        description="How weights are rounded: to the nearest, with scales from the extremes; with scales that leave the smallest "
        "error (half-quadratic, no data); or so that the errors of a layer's weights cancel out on samples of the dataset.",
    )
    format: Literal["auto", "matmul_nbits", "dequantize", "unpack"] = Field(
        "auto",
        description="How integers become floats: when the file is loaded (`unpack`: runs like the float model), by "
        "DequantizeLinear, or by ONNX Runtime's MatMulNBits for matrix products, which multiplies in 8 bits. `auto` takes what "
        "ONNX Runtime's CPU provider computes fastest. Choose `dequantize` where a later step or another tool reads "
        "DequantizeLinear; most operators then compute it on every run.",
    )
    symmetric: bool = Field(
        True, description="No zero points. With zero points (false), 2 to 4 bits are more exact, and little larger."
    )
    embeddings: bool = Field(True, description="Store tables that rows are looked up in (Gather) in the same way.")
    samples: int = Field(128, ge=1, le=100_000, description="Rows of the dataset that `gptq` uses, at most.")

    @model_validator(mode="after")
    def _kernel_exists(self) -> Self:
        from accel.graph.weights_only import has_kernel

        if self.format == "matmul_nbits" and not has_kernel(self.bits, self.block_size):
            raise ValueError(
                "MatMulNBits has kernels for blocks of 16, 32, 64 and so on, for 2 bits only for 32, 64 and 128; set block_size "
                "to one of these or leave it out"
            )
        return self

    def apply(self, model: onnx_ir.Model, context: Context) -> onnx_ir.Model:
        """Round each weight, and write the integers into a prepared copy."""
        from accel.graph import weights_only
        from accel.graph.integer_weights import store
        from accel.graph.prepare import prepare, refuse_quantized
        from accel.report.quantization import QuantizationReport

        refuse_quantized(model)
        if self.method == "gptq":
            context.calibration("quantize_weights with the method gptq")
        opset = weights_only.opset(model, self.bits, self.block_size, self.format)
        ready, notes = prepare(model, context.workspace, opset=opset)
        chosen = self._chosen(ready.graph, notes)
        storage = {t: weights_only.choose(t, self.bits, self.block_size, self.format) for t in chosen}
        rounded, reports, fell_back = {}, {}, []
        for number, (target, gram) in enumerate(self._measured(ready, chosen, context), 1):
            rounded[target] = self._rounded(target, gram)
            reports[target] = _report(target, rounded[target], gram, self.bits)
            if self.method == "gptq" and gram is None:
                fell_back.append(target.name)
            context.progress("rounding", number, len(chosen), target.name)
        notes += self._remarks(storage, fell_back)
        for target in chosen:
            store(ready, target, rounded[target], storage[target])
        nested = sum(1 for _ in ready.graph.all_nodes()) - len(ready.graph)
        if nested:
            notes.append(f"The {nested} nodes inside If, Loop or Scan were left alone.")
        for note in notes:
            context.note(note)
        context.quantization = QuantizationReport(layers=tuple(reports[target] for target in chosen))
        return ready

    @property
    def _scheme(self) -> Scheme:
        from accel.numerics.scales import Scheme

        return Scheme(self.bits, signed=self.symmetric, symmetric=self.symmetric)

    def _chosen(self, graph: onnx_ir.Graph, notes: list[str]) -> list[Target]:
        """The weights to quantize."""
        import numpy as np

        from accel.errors import TechniqueFailed
        from accel.graph.layers import chosen as names_chosen
        from accel.graph.weights_only import targets, worth

        wanted = names_chosen(graph, self.include, self.exclude)
        found = [t for t in targets(graph, embeddings=self.embeddings) if str(t.node.name) in wanted]
        chosen = [target for target in found if worth(target, self.bits, self.block_size)]
        if not chosen:
            raise TechniqueFailed(
                "The model has no chosen weight that would take less room as integers"
                + (f"; {len(found)} are too small." if found else "."),
                hint="Constant float weights of Conv, ConvTranspose, Gemm, MatMul, GRU, LSTM, RNN and Gather count, outside If, "
                "Loop and Scan, of some hundred numbers at least.",
            )
        for target in chosen:
            if not np.isfinite(target.array).all():
                raise TechniqueFailed(
                    f"The weight of {target.name!r} holds numbers that are not finite.",
                    hint="Leave it in float by `exclude`, or repair the model.",
                )
        if len(chosen) < len(found):
            notes.append(f"Weights so small that they stay in float: {len(found) - len(chosen)}.")
        return chosen

    def _measured(
        self, model: onnx_ir.Model, chosen: list[Target], context: Context
    ) -> Iterator[tuple[Target, Gram | None]]:
        """Each weight, and what its layers are fed where that is known."""
        from accel.numerics.gram import grams, measurable

        of_layer: dict[str, tuple[Target, int]] = {}
        for target in chosen:
            fed = [layer for layer in target.layers if measurable(layer)] if self.method == "gptq" else []
            of_layer |= {layer.name: (target, len(fed)) for layer in fed}
            if not fed:
                yield target, None
        if not of_layer:
            return
        layers = [layer for target in chosen for layer in target.layers if layer.name in of_layer]
        calibration = context.calibration("quantize_weights with the method gptq")
        sums: dict[Target, tuple[Gram, int]] = {}
        for layer, gram in grams(model, layers, calibration, self.samples, context.workspace, tell=context.progress):
            target, readers = of_layer[layer.name]
            total, seen = sums.pop(target, (None, 0))
            total = gram if total is None else total + gram
            if seen + 1 == readers:
                yield target, total
            else:
                sums[target] = (total, seen + 1)

    def _rounded(self, target: Target, gram: Gram | None) -> Rounded:
        from accel.numerics.rounding import gptq, half_quadratic, nearest

        matrix, scheme = target.matrix, self._scheme
        if self.method == "nearest":
            return nearest(matrix, scheme, self.block_size)
        start = half_quadratic(matrix, scheme, self.block_size)
        if gram is None:
            return start
        chosen = gptq(matrix, *start.spread(), gram.matrix, limits=(scheme.low, scheme.high))
        return replace(start, integers=chosen.astype(scheme.dtype))

    def _remarks(self, storage: Mapping[Target, Storage], fell_back: list[str]) -> Iterator[str]:
        """What became of the weights, in words."""
        from accel.graph.weights_only import has_kernel, width

        wide = width(self.bits)
        if wide != self.bits:
            yield f"ONNX has no type of {self.bits} bits: the integers are stored in {wide} bits each."
        kinds: Counter[Storage] = Counter(storage.values())
        if kinds["unpack"]:
            yield (
                f"Of {len(storage)} weights, {kinds['unpack']} become floats when the file is loaded: it is smaller, but runs with "
                "the speed and memory of the float model."
            )
        other = [t for t, kind in storage.items() if self.format == "matmul_nbits" and kind == "unpack"]
        if other:
            yield f"MatMulNBits takes the matrix of one product only; these are unpacked instead: {_named(other)}."
        tables = [target for target, kind in storage.items() if kind == "dequantize" and target.table]
        if tables and wide < _BYTE:
            yield f"Gather takes no integers of {wide} bits: the tables of {_named(tables)} take 8 bits for each number."
        fused = [t for t, kind in storage.items() if kind == "dequantize" and t.product]
        merged = fused if has_kernel(self.bits, self.block_size) else []
        if merged or kinds["matmul_nbits"]:
            yield (
                f"Of {len(storage)} weights, {len(merged) + kinds['matmul_nbits']} stay integers while the model runs: ONNX "
                "Runtime multiplies them with activations that it quantizes to 8 bits (MatMulNBits)."
            )
        slow = kinds["dequantize"] - len(merged) - len(tables)
        if slow:
            yield (
                f"Of {len(storage)} weights, {slow} are dequantized on every run, as no kernel of ONNX Runtime's CPU provider takes "
                "their integers: convolutional networks get two to eight times slower. The format `unpack` costs no time."
            )
        if fell_back:
            yield f"Rounded without data, since they are no plain products: {', '.join(fell_back[:_NAMED])}{_more(fell_back)}."


def _named(chosen: list[Target]) -> str:
    return ", ".join(target.name for target in chosen[:_NAMED]) + _more(chosen)


def _more(names: list[str] | list[Target]) -> str:
    return f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""


def _report(target: Target, rounded: Rounded, gram: Gram | None, bits: int) -> LayerReport:
    import numpy as np

    from accel.numerics.rounding import output_error
    from accel.numerics.scales import noise_db
    from accel.report.quantization import LayerReport

    matrix, floats = target.matrix, rounded.floats()
    output = None
    if gram is not None:
        signal, noise = output_error(matrix, gram.matrix), output_error(matrix - floats, gram.matrix)
        output = 10 * float(np.log10(signal / noise)) if signal > 0 and noise > 0 else None
    scale = rounded.parameters.scale
    return LayerReport(
        name=target.name,
        operator=target.node.op_type,
        weight_bits=bits,
        granularity="channel" if scale.shape[1] == 1 else "block",
        weight_scale=(float(scale.min()), float(scale.max())),
        weight_snr_db=noise_db(matrix, floats),
        output_snr_db=output,
    )
