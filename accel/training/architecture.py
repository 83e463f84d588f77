"""What an architecture is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, Field

from accel.errors import BindingMismatch
from accel.training.input_shapes import NEEDED, InputShape, Kind, Layout, kinds
from accel.training.losses import Task

if TYPE_CHECKING:
    import onnx_ir

    from accel.graph.building import GraphBuilder

OUTPUTS: dict[Task, str] = {"classification": "logits", "multi_label": "logits", "regression": "values"}
"""What the output of a new model is called."""
_HEAD_GAIN = 1 / 3


class Architecture(BaseModel, ABC):
    """A network to train from scratch.

    A subclass is one architecture: its fields are the parameters a caller may set, its docstring is the help text that
    Swagger UI shows, and ``build`` writes the graph. Defining the class registers it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    known: ClassVar[dict[str, type[Architecture]]] = {}
    takes: ClassVar[tuple[Kind, ...]]
    """What its rows may be."""

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: object) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "architecture" not in cls.model_fields:  # a base of architectures
            return
        if cls.tag() in Architecture.known:
            raise TypeError(f"two architectures are called {cls.tag()!r}")
        Architecture.known[cls.tag()] = cls

    @classmethod
    def tag(cls) -> str:
        """The value of ``architecture`` that selects this class in a request."""
        (tag,) = get_args(cls.model_fields["architecture"].annotation)
        return str(tag)

    @abstractmethod
    def build(
        self, inputs: tuple[InputShape, ...], outputs: int, seed: int, task: Task = "classification"
    ) -> onnx_ir.Model:
        """Write the network with its initial weights; the same call gives the same bytes.

        Args:
            inputs: What a row of the dataset is like; the model takes rows as they are there, as float32, or tokens as int64.
            outputs: Classes, labels or values to predict.
            seed: Of the initial weights.
            task: Names the output: ``logits`` [batch, outputs], or ``values`` for a regression.

        Returns:
            A graph of standard operators, opset 21, in the form for inference; the axis over rows has no fixed size.

        Raises:
            BindingMismatch: The rows do not fit; the message has both sides.
            TooLarge: The weights would not fit one ONNX file.
        """

    @classmethod
    def begin(cls, inputs: tuple[InputShape, ...], seed: int) -> GraphBuilder:
        """An empty graph for rows that fit.

        Raises:
            BindingMismatch: They do not; says which architectures would.
        """
        from accel.graph.building import GraphBuilder

        cls.refuse_misfit(inputs)
        return GraphBuilder(cls.tag(), seed)

    @classmethod
    def end(cls, graph: GraphBuilder, features: onnx_ir.Value, outputs: int, task: Task) -> onnx_ir.Model:
        """The finished model: a last layer over features [batch, width], small at first so that all answers are nearly even."""
        from accel.graph.building import sizes
        from accel.graph.initial_weights import he

        head = graph.linear("head", features, outputs, initial=he(sizes(features)[1], _HEAD_GAIN))
        return graph.finish(head, OUTPUTS[task])

    @classmethod
    def refuse_misfit(cls, inputs: tuple[InputShape, ...]) -> None:
        """Refuse rows that are of no kind that the architecture takes.

        Raises:
            BindingMismatch: They are not; says which architectures would fit.
        """
        found = kinds(inputs)
        if found.intersection(cls.takes):
            return
        fitting = sorted(tag for tag, known in Architecture.known.items() if found.intersection(known.takes))
        given = "; ".join(map(str, inputs)) or "nothing"
        raise BindingMismatch(
            f"The architecture {cls.tag()!r} takes {' or '.join(NEEDED[kind] for kind in cls.takes)}. "
            f"The dataset gives {given}.",
            hint=f"Architectures that fit: {', '.join(fitting)}."
            if fitting
            else "No architecture fits: each row must hold numbers, as many in one row as in another.",
        )

    def too_small(self, shape: InputShape, halvings: str, hint: str) -> BindingMismatch:
        """The error for rows of the right kind that too little would be left of."""
        return BindingMismatch(f"The architecture {self.tag()!r} {halvings}; the dataset gives {shape}.", hint=hint)


class ImageArchitecture(Architecture):
    """A network that takes images."""

    takes: ClassVar[tuple[Kind, ...]] = ("image",)

    layout: Layout = Field(
        "auto",
        description="Which axis of an image holds its channels, where it has three; `auto` takes the smaller of the first and the last.",
    )
