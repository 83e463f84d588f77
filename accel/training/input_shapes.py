"""What a row of a dataset is for a new network: numbers of a table, an image, a series, or tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["table", "image", "series", "tokens"]
Layout = Literal["auto", "channels_first", "channels_last"]
"""Where rows have their channels: on the first axis, the last one, or the smaller of the two (the first where both are alike)."""

NEEDED: dict[Kind, str] = {
    "table": "rows of numbers of any shape, from one column or several",
    "image": "images [height, width], [channels, height, width] or [height, width, channels]",
    "series": "series [length], [channels, length] or [length, channels]",
    "tokens": "whole numbers [length] that stand for tokens",
}
"""What a row of each kind looks like, for messages."""


@dataclass(frozen=True, slots=True)
class InputShape:
    """What one row of an input is like, as the dataset has it after the binding's steps."""

    name: str
    dtype: str
    """As NumPy calls it."""
    shape: tuple[int, ...]
    """Without the axis over rows."""
    ids: int | None = None
    """One more than the largest value, where all are whole numbers from 0 up; None where that is not so, or not known."""

    def __str__(self) -> str:
        """As messages show it."""
        return f"{self.name!r}, {self.dtype} {list(self.shape)}"

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers, not counting truth values."""
        return self.dtype.startswith(("int", "uint"))

    def kinds(self) -> frozenset[Kind]:
        """What it may be; nothing where rows are empty or hold no numbers."""
        if not self.dtype.startswith(("float", "int", "uint", "bool")) or 0 in self.shape:
            return frozenset()
        match len(self.shape):
            case 1:
                return frozenset({"table", "series", "tokens"} if self.whole else {"table", "series"})
            case 2:
                return frozenset({"table", "image", "series"})
            case 3:
                return frozenset({"table", "image"})
            case _:
                return frozenset({"table"})

    def channels_last(self, layout: Layout) -> bool:
        """Whether the channels of an image or series are on the last axis."""
        if layout == "auto":
            return self.shape[-1] < self.shape[0]
        return layout == "channels_last"


def kinds(inputs: Sequence[InputShape]) -> frozenset[Kind]:
    """What the inputs of a model may be together: several are a table."""
    found = [shape.kinds() for shape in inputs]
    if len(found) == 1:
        return found[0]
    return frozenset({"table"}) if found and all(found) else frozenset()
