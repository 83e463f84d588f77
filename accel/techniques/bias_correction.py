"""Correct the biases of a quantized model, so that its layers give the same means as before."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from accel.technique import Technique

if TYPE_CHECKING:
    import onnx_ir

    from accel.context import Context

_WORSE = 1.26
"""Growth of the noise at the outputs that no correction may cause: 1 dB."""
_NAMED = 3
"""Names that a note gives as examples."""


class BiasCorrection(Technique):
    """Correct the biases of a quantized model for the mean error of its layers. Put it behind a quantizing step.

    Rounded weights move the mean of a layer's output, and the layers behind add that up. The error is measured on samples,
    without labels, and taken off the biases, which costs nothing when the model runs. It helps most where weights are
    coarse: few bits, one scale for each tensor, depthwise convolutions.
    """

    technique: Literal["bias_correction"] = "bias_correction"
    needs_data: ClassVar[bool] = True
    follows_quantization: ClassVar[bool] = True

    method: Literal["analytic", "data"] = Field(
        "analytic",
        description="`analytic` takes off what the rounded weights do to the mean of each layer's input in the float model. "
        "`data` compares the outputs of both models layer after layer, from the first to the last, which catches rounded "
        "activations and the zeros around images too; it takes longer, and fewer samples where activations are large.",
    )
    samples: int = Field(64, ge=1, le=100_000, description="Rows of the dataset to measure the means on.")

    def apply(self, model: onnx_ir.Model, context: Context) -> onnx_ir.Model:
        """Measure the means of both models, and correct (Nagel et al. 2019, arXiv 1906.04721)."""
        from accel.errors import TechniqueFailed
        from accel.graph.layers import layers
        from accel.graph.load import copied
        from accel.graph.prepare import prepare
        from accel.graph.quantized import quantized_layers
        from accel.numerics.bias_run import BiasRun

        calibration = context.calibration("bias_correction")
        quantized = quantized_layers(model.graph)
        if context.reference is None or not quantized:
            lacking = "there is no float model" if quantized else "this model has no layer whose weight is dequantized"
            raise TechniqueFailed(
                f"bias_correction compares a quantized model with the float model that it was made from, and {lacking}.",
                hint="Put a quantizing step such as quantize_static before it in the same recipe.",
            )
        reference, _ = prepare(context.reference, context.workspace)
        floats = {layer.name: layer for layer in layers(reference.graph)}
        chosen = {
            layer.name: floats[layer.name]
            for layer in quantized
            if layer.name in floats and layer.weight.integers.shape == floats[layer.name].weight.shape
        }
        if not chosen:
            raise TechniqueFailed(
                "No quantized layer has the name and the shape of a layer of the float model.",
                hint="Put bias_correction right behind the quantizing step: what comes between may rename nodes.",
            )
        result = copied(model)
        run = BiasRun(chosen, reference, calibration, self.samples, context)
        before = run.measure(result)
        left = run.correct_by_data(result) if self.method == "data" else run.correct(result, before)
        after = run.measure(result)
        for reason, names in left.items():
            context.note(
                f"Not corrected: {', '.join(names[:_NAMED])}{' and others' if len(names) > _NAMED else ''} ({reason})."
            )
        if len(quantized) > len(chosen):
            context.note(f"{len(quantized) - len(chosen)} quantized layers are not in the float model, and were left.")
        context.note(
            f"The mean error of {len(chosen)} layers' outputs went from {before.error:.2%} to {after.error:.2%} of their "
            f"means; signal over noise of the model's outputs from {before.decibels} to {after.decibels} dB."
        )
        if before.noise is not None and after.noise is not None and after.noise > _WORSE * before.noise:
            context.note("That made the outputs worse, so the biases were left as they were.")
            return copied(model)
        return result
