"""What a technique is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field

from accel.evaluation.contract import Contract

if TYPE_CHECKING:
    import onnx_ir

    from accel.context import Context


class Technique(BaseModel, ABC):
    """A way to make a model smaller or faster.

    A subclass is one technique: its fields are the parameters a caller may set, its docstring is the help text
    that Swagger UI shows, and ``apply`` does the work. Defining the class registers it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    known: ClassVar[dict[str, type[Technique]]] = {}
    needs_data: ClassVar[bool] = False
    """Whether the technique reads calibration samples, so that a job without a dataset is refused at the door."""

    follows_quantization: ClassVar[bool] = False
    """Whether the technique mends a quantized model, so that a recipe has a quantizing step before it."""

    @property
    def chooses(self) -> bool:
        """Whether the technique chooses between results on samples of its own, apart from those it is judged on."""
        return False

    @property
    def promise(self) -> Contract | None:
        """The bound on quality that its result is held to."""
        return None

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "technique" not in cls.model_fields:  # a base of techniques
            return
        if cls.tag() in Technique.known:
            raise TypeError(f"two techniques are called {cls.tag()!r}")
        Technique.known[cls.tag()] = cls

    @classmethod
    def tag(cls) -> str:
        """The value of ``technique`` that selects this class in a request."""
        (tag,) = get_args(cls.model_fields["technique"].annotation)
        return str(tag)

    @abstractmethod
    def apply(self, model: onnx_ir.Model, context: Context) -> onnx_ir.Model:
        """Return the compressed model; the given one stays as it was.

        Raises:
            TechniqueFailed: the technique does not fit this model; the message names the node or tensor.
        """


class Quantizing(Technique):
    """A technique that stores numbers in fewer bits: of chosen nodes, and held to a contract of its own if asked."""

    include: tuple[str, ...] = Field(
        (),
        max_length=1000,
        description="Quantize these nodes only: names, operators, or patterns where * and ? stand for parts of a name. All, "
        "if left out.",
    )
    exclude: tuple[str, ...] = Field(
        (),
        max_length=1000,
        description="Nodes to leave in float: names, operators, or patterns where * and ? stand for parts of a name.",
    )
    contract: Contract | None = Field(
        None,
        description="Bound on the loss of this step's result, judged on the file loaded again, on rows that nothing was "
        "calibrated on or chosen by. The report says `met`, `not_met` with what would lose less, or `inconclusive`.",
    )

    @property
    def promise(self) -> Contract | None:
        """The contract of this step."""
        return self.contract
