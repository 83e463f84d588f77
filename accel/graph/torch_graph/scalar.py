"""Tensors of one number as Python's own numbers, for which PyTorch's kernels are many times faster."""

from __future__ import annotations

from torch import Tensor


class Scalar:
    """An input of a node that is mostly one number that never changes."""

    def __init__(self) -> None:
        self._tensor: Tensor | None = None
        self._number = 0.0

    def read(self, tensor: Tensor) -> float | None:
        """The number, fetched again only when it is another tensor; None if there are several, or one that is trained.

        Not for tensors that are changed in place: the number that they had first is given for ever.
        """
        if tensor.requires_grad or tensor.numel() != 1:
            return None
        if tensor is not self._tensor:
            self._tensor, self._number = tensor, tensor.item()
        return self._number
