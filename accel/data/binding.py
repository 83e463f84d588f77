"""How a dataset's columns become a model's inputs, which column is the target, and how the output is read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Value(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Cast(_Value):
    """Convert to another element type."""

    step: Literal["cast"] = "cast"
    dtype: Literal["float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64", "bool"]


class Scale(_Value):
    """Multiply, then add; the result is float32."""

    step: Literal["scale"] = "scale"
    multiply: float = 1.0
    add: float = 0.0


class Normalize(_Value):
    """Subtract the mean and divide by the standard deviation, one value or one for each channel."""

    step: Literal["normalize"] = "normalize"
    mean: tuple[float, ...] = Field(min_length=1)
    std: tuple[float, ...] = Field(min_length=1)
    axis: int = Field(1, description="Axis of the channels in the batch; 0 is the batch itself.")


class Transpose(_Value):
    """Reorder the axes of one row (without the batch)."""

    step: Literal["transpose"] = "transpose"
    axes: tuple[int, ...]


class Reshape(_Value):
    """Give one row (without the batch) another shape; -1 once for what is left."""

    step: Literal["reshape"] = "reshape"
    shape: tuple[int, ...]


class AddAxis(_Value):
    """Insert an axis of size 1 into the batch; axis 1 is a channel axis."""

    step: Literal["add_axis"] = "add_axis"
    axis: int = Field(ge=1)


class Pad(_Value):
    """Pad one row with a constant: (before, after) for each axis without the batch."""

    step: Literal["pad"] = "pad"
    widths: tuple[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]], ...]
    value: float = 0.0


class Resize(_Value):
    """Resize images bilinearly to (height, width); the last two axes of the batch are the image."""

    step: Literal["resize"] = "resize"
    height: int = Field(ge=1)
    width: int = Field(ge=1)


BindingStep = Annotated[
    Cast | Scale | Normalize | Transpose | Reshape | AddAxis | Pad | Resize, Field(discriminator="step")
]


class ColumnInput(_Value):
    """An input that comes from a column, after some steps."""

    column: str
    steps: tuple[BindingStep, ...] = ()


class ConstantInput(_Value):
    """An input that is the same for every call."""

    constant: float
    shape: tuple[Annotated[int, Field(ge=0)], ...] = ()


class CtcGreedy(_Value):
    """Read scores [samples, steps, classes] as a sequence: the best class of each step, repetitions merged, blanks dropped.

    The target is [samples, length] of whole numbers; those below 0 and the blank are padding. A sample is right when its whole
    sequence is: the metrics are `accuracy` and `agreement`. Source: Graves et al., ICML 2006.
    """

    decoder: Literal["ctc_greedy"] = "ctc_greedy"
    blank: int = Field(0, ge=0, description="Number of the class that stands for nothing.")
    trim: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (),
        max_length=64,
        description="Classes that are dropped at both ends of a sequence, of the output and of the target, such as the space.",
    )


class Threshold(_Value):
    """Read each number of the output as a decision: yes from a bound on, no below it.

    The target has the shape of the output, apart from axes of size 1 at the end, and holds 0 or 1; above 0 is yes. The metrics
    are `f1`, `accuracy` and `agreement` over all decisions, and of one row of labels a sample `macro_f1` and `auc` (means over
    labels) and `exact_match`; their intervals keep the decisions of a sample together.
    """

    decoder: Literal["threshold"] = "threshold"
    at: float = Field(0.5, description="The bound; 0 where the output is a logit.")


class Embedding(_Value):
    """Read the output as a vector for each sample, and compare vectors by their cosine.

    With `second`, each row is a pair: the model runs on both, and the cosine of its two vectors is held against the target, the
    pair's score: the metric is `spearman`. Without it, each vector is held against the target's, or where there is none against the
    baseline's: the metric is `cosine`.
    """

    decoder: Literal["embedding"] = "embedding"
    second: dict[str, ColumnInput | ConstantInput] | None = Field(
        None, description="Inputs of the second of each pair; what is left out is as for the first."
    )


Decoder = Annotated[CtcGreedy | Threshold | Embedding, Field(discriminator="decoder")]


class Binding(_Value):
    """Explicit binding; what is left out is matched by name and shape."""

    inputs: dict[str, ColumnInput | ConstantInput] = Field(
        default_factory=dict, description="For each input of the model, where it comes from."
    )
    target: str | None = Field(None, description="Column that holds the labels.")
    group: str | None = Field(
        None,
        description="Column that says which rows belong together, such as the speaker or the patient: intervals are then drawn from "
        "groups, since rows of one group are no independent samples.",
    )
    output: str | None = Field(None, description="Output that is compared with the target; the first one if left out.")
    decoder: Decoder | None = Field(
        None,
        description="How the output is read where it is no class and no value a sample: as sequences, as many decisions, or as a vector.",
        examples=[{"decoder": "ctc_greedy", "blank": 0}, {"decoder": "threshold", "at": 0.5}],
    )
