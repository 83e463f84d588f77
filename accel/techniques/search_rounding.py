"""Round the weights of a quantized model so that its layers' outputs change least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from accel.technique import Technique

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx_ir

    from accel.context import Context
    from accel.graph.layers import Layer
    from accel.graph.qdq import QuantizedWeight
    from accel.graph.quantized import QuantizedLayer
    from accel.numerics.gram import Gram
    from accel.numerics.scales import Float32
    from accel.report.quantization import LayerReport

    Array = npt.NDArray[np.generic]

_NAMED = 5


@dataclass(frozen=True, slots=True)
class _Pair:
    """The integers of a weight, and the float layers that it came from."""

    quantized: QuantizedLayer
    floats: tuple[Layer, ...]

    @property
    def layer(self) -> Layer:
        """The quantized layer, with the floats that its integers stand for."""
        from accel.graph.layers import Layer

        node = self.quantized.node
        return Layer(node, self.quantized.weight.floats(), None, node.outputs[0])

    def matrix(self, array: Array) -> Array:
        """A weight's array as [outputs, products]."""
        import numpy as np

        axis = self.layer.channel_axis
        return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)

    def parameters(self) -> tuple[Float32, npt.NDArray[np.int32]]:
        """Scale and zero point of each weight, [outputs, products]."""
        import numpy as np

        from accel.numerics.scales import spread

        weight = self.quantized.weight
        shape, given = weight.integers.shape, weight.parameters
        scale = np.broadcast_to(spread(given.scale, shape, weight.granularity), shape)
        zero = np.broadcast_to(spread(given.zero_point, shape, weight.granularity), shape)
        return self.matrix(scale).astype(np.float32), self.matrix(zero).astype(np.int32)

    def write(self, matrix: Array) -> None:
        """Store [outputs, products] as the weight's integers."""
        import numpy as np
        import onnx_ir as ir

        value, weight = self.quantized.integers, self.quantized.weight
        axis = self.layer.channel_axis
        moved = np.moveaxis(weight.integers, axis, 0).shape
        array = np.ascontiguousarray(np.moveaxis(matrix.reshape(moved), 0, axis)).astype(weight.integers.dtype)
        value.const_value = ir.Tensor(array, dtype=value.dtype, name=value.name)


class SearchRounding(Technique):
    """Choose anew for each weight of a quantized model whether it is rounded up or down. Put it behind a quantizing step.

    Rounding each weight to the nearest is not best for a layer: what counts is the error of its output, where errors of weights
    can cancel out. On samples, without labels, the integers are chosen that leave the least; scales, size and speed stay as they
    are. It helps most at 4 bits and fewer.
    """

    technique: Literal["search_rounding"] = "search_rounding"
    needs_data: ClassVar[bool] = True
    follows_quantization: ClassVar[bool] = True

    samples: int = Field(
        128, ge=1, le=100_000, description="Rows of the dataset that outputs are compared on, at most."
    )
    iterations: int = Field(5, ge=1, le=100, description="Rounds over all weights of a layer, at most.")

    def apply(self, model: onnx_ir.Model, context: Context) -> onnx_ir.Model:
        """Measure the layers' inputs on the float model, and search (Nagel et al. 2020, arXiv 2004.10568)."""
        from accel.errors import TechniqueFailed
        from accel.graph.load import copied
        from accel.graph.prepare import prepare
        from accel.graph.quantized import quantized_layers
        from accel.numerics.gram import grams
        from accel.report.quantization import QuantizationReport

        if context.reference is None or not quantized_layers(model.graph):
            lacking = "there is no float model" if context.reference is None else "no weight of it is dequantized"
            raise TechniqueFailed(
                "search_rounding needs what quantize_static or another quantizing step made, and the float model that it was "
                f"made from, and {lacking}.",
                hint="Put a quantizing step whose weights are dequantized before it in the same recipe.",
            )
        calibration = context.calibration("search_rounding")
        result = copied(model)
        reference, _ = prepare(context.reference, context.workspace)
        pairs, left = _pairs(reference.graph, result.graph)
        readers = {layer.name: pair for pair in pairs for layer in pair.floats}
        chosen = [layer for pair in pairs for layer in pair.floats]
        sums: dict[str, tuple[Gram, int]] = {}
        reports: dict[str, LayerReport] = {}
        kept = []
        for layer, gram in grams(
            reference, chosen, calibration, self.samples, context.workspace, tell=context.progress
        ):
            pair = readers[layer.name]
            total, seen = sums.pop(pair.quantized.name, (None, 0))
            total = gram if total is None else total + gram
            if seen + 1 < len(pair.floats):
                sums[pair.quantized.name] = (total, seen + 1)
                continue
            before, after, report = self._round(pair, total)
            reports[pair.quantized.name] = report
            kept.append(after / before if before > 0 else 1.0)
            context.progress("rounding", len(reports), len(pairs), pair.quantized.name)
        if not kept:
            raise TechniqueFailed(
                "No quantized layer has the name and weight of a layer of the float model.",
                hint="Put search_rounding right behind the quantizing step: what comes between may rename or change nodes.",
            )
        context.note(
            f"On the calibration samples, the squared error that rounded weights cause in their layer's output fell by "
            f"{1 - sum(kept) / len(kept):.0%} on average over {len(kept)} layers; the least gain was {1 - max(kept):.0%}."
        )
        if left:
            more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
            context.note(f"Left as they were: {', '.join(left[:_NAMED])}{more}.")
        context.quantization = QuantizationReport(
            layers=tuple(reports[pair.quantized.name] for pair in pairs if pair.quantized.name in reports)
        )
        return result

    def _round(self, pair: _Pair, gram: Gram) -> tuple[float, float, LayerReport]:
        """Search one weight; its output error before and after."""
        import numpy as np

        from accel.numerics.rounding import gptq, output_error, search
        from accel.numerics.scales import noise_db
        from accel.report.quantization import LayerReport

        weight, matrix = pair.quantized.weight, pair.floats[0].matrix
        scale, zero = pair.parameters()
        old = pair.matrix(weight.integers).astype(np.int32)
        # Integers beyond those in use may be forbidden: weights of 7 bits are stored as int8, too.
        limits = (int(old.min()), int(old.max()))

        def error(integers: np.ndarray) -> float:
            return output_error(matrix - (integers - zero) * scale, gram.matrix)

        start = gptq(matrix, scale, zero, gram.matrix, limits=limits)
        new = search(matrix, start, scale, zero, gram.matrix, limits=limits, iterations=self.iterations)
        before, after = error(old), error(new)
        if after < before:
            pair.write(new)
        else:
            new, after = old, before
        signal = output_error(matrix, gram.matrix)
        report = LayerReport(
            name=pair.quantized.name,
            operator=pair.quantized.node.op_type,
            weight_bits=weight.scheme.bits,
            granularity=_granularity(weight),
            weight_scale=(float(scale.min()), float(scale.max())),
            weight_snr_db=noise_db(matrix, (new - zero) * scale),
            output_snr_db=10 * float(np.log10(signal / after)) if signal > 0 and after > 0 else None,
        )
        return before, after, report


def _granularity(weight: QuantizedWeight) -> Literal["tensor", "channel", "block"]:
    if weight.granularity.axis is None:
        return "tensor"
    return "channel" if weight.granularity.block is None else "block"


def _pairs(reference: onnx_ir.Graph, quantized: onnx_ir.Graph) -> tuple[list[_Pair], list[str]]:
    """Each weight's integers with the float layers that read the same weight, and the names of layers without such."""
    from accel.graph.layers import layers
    from accel.graph.quantized import quantized_layers
    from accel.numerics.gram import measurable
    from accel.numerics.scales import noise_db

    floats = {layer.name: layer for layer in layers(reference) if measurable(layer)}
    found: dict[onnx_ir.Value, _Pair] = {}
    left = []
    for layer in quantized_layers(quantized):
        known = floats.get(layer.name)
        if known is None or known.operator != layer.node.op_type:
            left.append(layer.name)
            continue
        pair = found.get(layer.integers, _Pair(layer, ()))
        ours = pair.layer.matrix
        snr = noise_db(known.matrix, ours) if known.matrix.shape == ours.shape else -1.0
        if snr is not None and snr <= 0:
            left.append(layer.name)
            continue
        found[layer.integers] = _Pair(pair.quantized, (*pair.floats, known))
    return list(found.values()), left
