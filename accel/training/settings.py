"""How a model is trained, whatever it is trained for: by a training job, and by the techniques that train."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class EarlyStopping(BaseModel):
    """End before the last epoch when nothing gets better."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    patience: int = Field(5, ge=1, description="Epochs without a better result that are waited for.")
    min_delta: float = Field(
        0.0, ge=0, description="How much better a result must be to count, in the unit of the metric that is watched."
    )


class TrainingSettings(BaseModel):
    """How long, in which batches, how exact and on what a model is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    epochs: int = Field(10, ge=1, le=100_000, description="How often every row is seen, at most.")
    budget_seconds: float | None = Field(
        None,
        gt=0,
        description="Longest time; what was spent before a restart counts. The best weights until then are kept.",
    )
    batch_size: int = Field(
        128,
        ge=1,
        description="Rows of a batch, over all processes. An epoch's batches are of even size, so that none is left over.",
    )
    accumulate: int = Field(
        1, ge=1, description="Batches whose gradients are added up for one step, where memory holds no larger batch."
    )
    clip_norm: float | None = Field(
        None, gt=0, description="Largest norm of all gradients together; larger ones are shortened."
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="What layers compute in; weights stay as they are. float16 scales the loss, and needs CUDA.",
    )
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Keep a running mean of the weights, with so much of it kept at each step, and use that; "
        "it begins with less, so that early weights are forgotten.",
        examples=[0.999],
    )
    early_stopping: EarlyStopping | None = Field(None, description="All epochs, if left out.")
    validation: Annotated[float, Field(ge=0, lt=1)] | str | None = Field(
        None,
        description="What progress is judged by, and the best weights are chosen by: a split's name, or a share of the rows that would "
        "be trained on; drawn for each class, and by whole groups where the binding names a column of groups. If left out, the split "
        "`validation` where there is one, else a tenth. 0 for nothing: the last weights are the result.",
        examples=[0.1, "validation"],
    )
    batch_norm: Literal["train", "hold"] = Field(
        "train",
        description="Whether BatchNormalization takes the statistics of each batch and learns running ones, or keeps those that it has.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of everything that draws at random.")
    threads: int | None = Field(
        None, ge=1, le=1024, description="Threads of each process; the cores that there are, shared out, if left out."
    )
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes on each host that share out every batch; on CUDA each has a device of its own.",
    )
    device: Literal["cpu", "cuda"] = "cpu"

    @model_validator(mode="after")
    def _fits_its_device(self) -> TrainingSettings:
        if self.precision == "float16" and self.device != "cuda":
            raise ValueError("float16 needs device cuda; on a processor use bfloat16 or float32")
        return self

    @model_validator(mode="after")
    def _shares_out_its_batches(self) -> TrainingSettings:
        if self.batch_size < self.processes:
            raise ValueError("batch_size must be at least processes: each gets a part of every batch")
        return self

    @model_validator(mode="after")
    def _can_stop_early(self) -> TrainingSettings:
        if self.early_stopping is not None and self.validation == 0:
            raise ValueError("early_stopping needs a validation part")
        return self
