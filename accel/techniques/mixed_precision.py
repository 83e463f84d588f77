"""As many layers in integers as a contract allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from accel.evaluation.contract import Contract
from accel.technique import Quantizing

if TYPE_CHECKING:
    import onnx_ir

    from accel.context import Context


class MixedPrecision(Quantizing):
    """Quantize like quantize_static, and keep the smallest set of layers in float with which the contract is kept.

    How much error each layer makes by itself is measured in one pass over shared activations; then whole files are tried on
    rows set apart: more and more of the most sensitive layers in float until the bound is kept, then parts of them given back,
    halves first. The names come in the report, ready to be pasted into `exclude` of quantize_static.
    """

    technique: Literal["mixed_precision"] = "mixed_precision"
    needs_data: ClassVar[bool] = True

    contract: Contract = Field(
        Contract(),
        description="Bound on the loss. It is kept with a standard error to spare on the rows that layers are chosen by, and "
        "judged on others.",
    )
    samples: int = Field(100, ge=1, le=100_000, description="Rows of the dataset to measure ranges on, at most.")
    calibration: Literal["auto", "minmax", "moving_average", "percentile", "entropy", "mse"] = Field(
        "auto", description="How the range of an activation is chosen (see quantize_static)."
    )
    tolerance: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share by which ranges may still move when calibration stops early; 0 uses all samples.",
    )
    sensitive_layers: Literal["float", "int16"] = Field(
        "float",
        description="What the sensitive layers get: float, or integers with 16-bit activations, for hardware that has them "
        "(processors compute these in float).",
    )

    @property
    def chooses(self) -> bool:
        """It always does."""
        return True

    def apply(self, model: onnx_ir.Model, context: Context) -> onnx_ir.Model:
        """Calibrate once, rank the layers, and search for the smallest set that must stay."""
        import json

        from accel.numerics.static import Settings
        from accel.numerics.static_run import StaticRun

        run = StaticRun.begin(
            model,
            context,
            Settings(method="minmax" if self.calibration == "auto" else self.calibration),
            operators=("Conv", "Gemm", "MatMul"),
            include=self.include,
            exclude=self.exclude,
            samples=self.samples,
            tolerance=self.tolerance,
            contract=self.contract,
            sampled=self.calibration not in {"minmax", "moving_average"},
            stay=self.sensitive_layers,
        )
        if self.calibration == "auto":
            run.choose_method()
        run.keep(None, stay=self.sensitive_layers)
        result = run.finish(diagnose=True)
        names = sorted(run.wide or run.in_float)
        context.note(
            f"{len(names)} of {len(run.static.chosen)} layers stay in {self.sensitive_layers}: "
            f'{{"technique": "quantize_static", "exclude": {json.dumps(names)}}}'
        )
        return result
