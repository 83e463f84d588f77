"""Integer weights and activations, with ranges measured on data."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from accel.technique import Quantizing

if TYPE_CHECKING:
    import onnx_ir

    from accel.context import Context


class QuantizeStatic(Quantizing):
    """Store weights and compute in 8 bits, with the ranges of activations measured on samples of the dataset.

    A quarter of the size, and mostly the fastest file on processors. The defaults are what runs fastest and everywhere:
    unsigned activations, signed weights with a scale for each output channel, convolutions and matrix products only. Layers
    that would break the model stay in float, and the report names them; with a contract, as many as keep it. Models of a few microseconds gain nothing: keep them.
    """

    technique: Literal["quantize_static"] = "quantize_static"
    needs_data: ClassVar[bool] = True

    samples: int = Field(100, ge=1, le=100_000, description="Rows of the dataset to measure ranges on, at most.")
    calibration: Literal["auto", "minmax", "moving_average", "percentile", "entropy", "mse"] = Field(
        "auto",
        description="How the range of an activation is chosen: the extremes that were seen, these smoothed over batches, a "
        "share of the values, the range that keeps most of the distribution (Kullback-Leibler divergence; cuts much on small "
        "networks), or the one with the least mean squared error. `auto` tries minmax, percentile and mse on rows set apart, "
        "and takes the one whose outputs are nearest to the float model's.",
    )
    percentile: float = Field(
        99.999, gt=50, le=100, description="Share of the values in percent that `percentile` keeps."
    )
    tolerance: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Calibration stops before all samples are used when the number of samples doubled and no range moved by "
        "more than this share of itself; 0 uses all samples.",
    )
    weight_bits: int = Field(
        8,
        ge=2,
        le=8,
        description="Bits of weights, stored as int8. 7 never saturates on x86 processors without VNNI (see `portable`).",
    )
    symmetric_weights: bool = Field(True, description="Weights without zero point; others have no fast kernel.")
    activation_bits: Literal[8, 16] = Field(
        8, description="Bits of activations. 16 is for hardware that has them: processors compute such a file in float."
    )
    activation_type: Literal["unsigned", "signed"] = Field(
        "unsigned",
        description="Signed activations are several times slower on x86-64 and do not load in every runtime.",
    )
    symmetric_activations: bool = Field(
        False, description="Activations with the zero point in the middle of the range."
    )
    per_channel: bool = Field(True, description="One scale for each output channel instead of one for the weight.")
    block_size: int | None = Field(
        None,
        ge=16,
        le=1024,
        description="One scale for so many weights of a matrix product, computed in float (opset 21).",
    )
    operators: tuple[Literal["Conv", "ConvTranspose", "Gemm", "MatMul"], ...] = Field(
        ("Conv", "Gemm", "MatMul"),
        min_length=1,
        description="Operators to quantize. ConvTranspose has no integer kernel in ONNX Runtime.",
    )
    store_others: bool = Field(
        True,
        description="Store weights that no kernel multiplies as integers (embeddings, LSTM, GRU, RNN) in 8 bits too: a smaller "
        "file at the same speed, since they are floats again once it is loaded.",
    )
    keep_snr_db: float | None = Field(
        15.0,
        description="If the signal-to-noise ratio of the outputs falls below this, in decibels, the smallest set of layers "
        "that mends it is left in float. Needs no labels. null leaves no layer in float.",
    )
    portable: bool = Field(
        False,
        description="Give 7-bit weights to the layers whose 16-bit sums could saturate on processors without VNNI, so that "
        "results are the same everywhere, whatever comes in.",
    )
    diagnose: bool = Field(
        True,
        description="Look at each layer by itself, and report its noise, its channels, and whether it is the same on every "
        "processor. Takes about as long as calibrating.",
    )

    @property
    def chooses(self) -> bool:
        """Candidates are compared where there is something to choose."""
        return self.calibration == "auto" or self.keep_snr_db is not None or self.contract is not None

    def apply(self, model: onnx_ir.Model, context: Context) -> onnx_ir.Model:
        """Calibrate, choose ranges, leave in float what breaks the model, and rewrite the graph."""
        from accel.numerics.scales import Scheme
        from accel.numerics.static import Settings
        from accel.numerics.static_run import StaticRun

        settings = Settings(
            method="minmax" if self.calibration == "auto" else self.calibration,
            percentile=self.percentile,
            weights=Scheme(self.weight_bits, signed=True, symmetric=self.symmetric_weights),
            activations=Scheme(
                self.activation_bits,
                signed=self.activation_type == "signed",
                symmetric=self.symmetric_activations,
            ),
            per_channel=self.per_channel,
            block_size=self.block_size,
            stored=self.store_others,
        )
        run = StaticRun.begin(
            model,
            context,
            settings,
            operators=self.operators,
            include=self.include,
            exclude=self.exclude,
            samples=self.samples,
            tolerance=self.tolerance,
            contract=self.contract,
            sampled=self.calibration not in {"minmax", "moving_average"},
        )
        if self.portable:
            run.make_portable()
        if self.calibration == "auto":
            run.choose_method()
        run.keep(None if self.keep_snr_db is None else 10 ** (-self.keep_snr_db / 10))
        return run.finish(diagnose=self.diagnose)
