"""How weights are changed by their gradients. Each is PyTorch's own optimiser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

if TYPE_CHECKING:
    from torch.optim import Optimizer as TorchOptimizer

Groups = Sequence[dict[str, Any]]
"""Parameters in groups, as PyTorch takes them: ``params``, and what differs from the optimiser's own settings."""

_Share = Annotated[float, Field(ge=0, lt=1)]


class _Optimizer(BaseModel, ABC):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    full_batch: ClassVar[bool] = False
    """Whether one step takes all rows."""

    learning_rate: float = Field(gt=0, description="Size of a step before the schedule.")
    weight_decay: float = Field(
        0.0,
        ge=0,
        description="How strongly weights are pulled towards 0; biases and normalisations are not.",
    )

    @abstractmethod
    def build(self, parameters: Groups) -> TorchOptimizer:
        """PyTorch's optimiser of some parameters."""


class GradientDescent(_Optimizer):
    """Gradient descent on all rows at once: one step an epoch. Rows are summed up in batches, so that memory stays small."""

    optimizer: Literal["gradient_descent"] = "gradient_descent"
    full_batch: ClassVar[bool] = True

    learning_rate: float = Field(0.1, gt=0, description="Size of a step before the schedule.")

    def build(self, parameters: Groups) -> TorchOptimizer:
        """``torch.optim.SGD`` without momentum."""
        import torch

        return torch.optim.SGD(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)


class Sgd(_Optimizer):
    """Stochastic gradient descent: a step for each batch (Robbins and Monro 1951), with momentum if asked."""

    optimizer: Literal["sgd"] = "sgd"

    learning_rate: float = Field(0.05, gt=0, description="Size of a step before the schedule.")
    momentum: _Share = Field(0.9, description="Share of the last step that is kept; 0 for none.")
    nesterov: bool = Field(False, description="Take the gradient where momentum alone would lead (Nesterov 1983).")

    @model_validator(mode="after")
    def _has_momentum(self) -> Sgd:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    def build(self, parameters: Groups) -> TorchOptimizer:
        """``torch.optim.SGD``."""
        import torch

        return torch.optim.SGD(
            parameters,
            lr=self.learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
        )


class Adagrad(_Optimizer):
    """A step of its own for each weight, smaller the more it moved so far (Duchi et al. 2011)."""

    optimizer: Literal["adagrad"] = "adagrad"

    learning_rate: float = Field(0.01, gt=0, description="Size of a step before the schedule.")
    epsilon: float = Field(1e-10, gt=0, description="Added to what is divided by.")

    def build(self, parameters: Groups) -> TorchOptimizer:
        """``torch.optim.Adagrad``."""
        import torch

        return torch.optim.Adagrad(parameters, lr=self.learning_rate, eps=self.epsilon, weight_decay=self.weight_decay)


class RmsProp(_Optimizer):
    """Steps divided by a running size of each weight's gradient (Tieleman and Hinton 2012)."""

    optimizer: Literal["rmsprop"] = "rmsprop"

    learning_rate: float = Field(0.001, gt=0, description="Size of a step before the schedule.")
    smoothing: _Share = Field(0.99, description="Share of the running size that is kept at each step.")
    momentum: _Share = Field(0.0, description="Share of the last step that is kept; 0 for none.")
    epsilon: float = Field(1e-8, gt=0, description="Added to what is divided by.")

    def build(self, parameters: Groups) -> TorchOptimizer:
        """``torch.optim.RMSprop``."""
        import torch

        return torch.optim.RMSprop(
            parameters,
            lr=self.learning_rate,
            alpha=self.smoothing,
            momentum=self.momentum,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
        )


class Adam(_Optimizer):
    """Running means of gradient and of its square (Kingma and Ba 2015). Weight decay is part of the gradient."""

    optimizer: Literal["adam"] = "adam"

    learning_rate: float = Field(0.001, gt=0, description="Size of a step before the schedule.")
    betas: tuple[_Share, _Share] = Field(
        (0.9, 0.999), description="Shares of the two running means that are kept at each step."
    )
    epsilon: float = Field(1e-8, gt=0, description="Added to what is divided by.")

    def build(self, parameters: Groups) -> TorchOptimizer:
        """``torch.optim.Adam``."""
        import torch

        return torch.optim.Adam(
            parameters,
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
        )


class AdamW(_Optimizer):
    """Adam whose weight decay is apart from the gradient (Loshchilov and Hutter 2019)."""

    optimizer: Literal["adamw"] = "adamw"

    learning_rate: float = Field(0.001, gt=0, description="Size of a step before the schedule.")
    betas: tuple[_Share, _Share] = Field(
        (0.9, 0.999), description="Shares of the two running means that are kept at each step."
    )
    epsilon: float = Field(1e-8, gt=0, description="Added to what is divided by.")
    weight_decay: float = Field(
        0.01,
        ge=0,
        description="How strongly weights are pulled towards 0; biases and normalisations are not.",
    )

    def build(self, parameters: Groups) -> TorchOptimizer:
        """``torch.optim.AdamW``."""
        import torch

        return torch.optim.AdamW(
            parameters,
            lr=self.learning_rate,
            betas=self.betas,
            eps=self.epsilon,
            weight_decay=self.weight_decay,
        )


Optimizer = Annotated[
    GradientDescent | Sgd | Adagrad | RmsProp | Adam | AdamW,
    Field(discriminator="optimizer"),
]
adapter: TypeAdapter[GradientDescent | Sgd | Adagrad | RmsProp | Adam | AdamW] = TypeAdapter(Optimizer)
