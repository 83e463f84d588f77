"""Where a kernel is laid on its input: strides, dilations and padding of convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import unsupported

Sizes = tuple[int, ...]
"""One number for each spatial axis; the one of a tuple of one stands for all of them."""
_AUTOMATIC = frozenset({"NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"})


@dataclass(frozen=True, slots=True)
class Windows:
    """How a kernel moves over the spatial axes of its input."""

    kernel: Sizes
    """Empty where only the weight tells."""
    strides: Sizes
    dilations: Sizes
    begins: Sizes
    """What is added before each axis; less than zero cuts."""
    ends: Sizes
    """What is added behind each axis."""
    same: str
    """``SAME_UPPER`` or ``SAME_LOWER`` where padding follows from sizes, which sets ``begins`` and ``ends`` aside."""
    ceil: bool
    """Whether a last window may reach beyond the padding."""

    @property
    def even(self) -> bool:
        """Whether both ends of each axis get the same padding, whatever the sizes, so that PyTorch's kernels pad."""
        return not self.same and self.begins == self.ends and min(self.begins) >= 0

    def extent(self, kernel: Sequence[int]) -> Sizes:
        """How far a window reaches along each axis: its elements and the gaps between them."""
        return tuple(
            (size - 1) * step + 1 for size, step in zip(kernel, spread(self.dilations, len(kernel)), strict=True)
        )

    def padding(self, sizes: Sequence[int], kernel: Sequence[int]) -> tuple[Sizes, Sizes]:
        """What is added before and behind each axis of an input of some spatial sizes."""
        rank = len(sizes)
        if not self.same:
            return spread(self.begins, rank), spread(self.ends, rank)
        strides, extent = spread(self.strides, rank), self.extent(kernel)
        outputs = tuple(-(-size // stride) for size, stride in zip(sizes, strides, strict=True))
        totals = tuple(
            max(0, (output - 1) * stride + reach - size)
            for output, stride, reach, size in zip(outputs, strides, extent, sizes, strict=True)
        )
        return halves(totals, upper=self.same == "SAME_UPPER")

    def outputs(self, sizes: Sequence[int], begins: Sizes, ends: Sizes) -> Sizes:
        """How many windows fit along each axis. One that would begin in the padding behind an axis is left out."""
        found = []
        for size, begin, end, stride, reach in zip(
            sizes, begins, ends, spread(self.strides, len(sizes)), self.extent(self.kernel), strict=True
        ):
            room = size + begin + end - reach
            count = (-(-room // stride) if self.ceil else room // stride) + 1
            if self.ceil and (count - 1) * stride >= size + begin:
                count -= 1
            found.append(count)
        return tuple(found)


def windows_of(node: Node) -> Windows:
    """The windows of a convolution or of a pool, by its attributes.

    Raises:
        UnsupportedOperator: ``auto_pad`` is none that ONNX knows.
    """
    automatic = node.string("auto_pad", "NOTSET")
    if automatic not in _AUTOMATIC:
        raise unsupported(node, f"its auto_pad {automatic!r} is unknown")
    pads = node.ints("pads") if automatic == "NOTSET" else ()
    half = len(pads) // 2
    return Windows(
        kernel=node.ints("kernel_shape"),
        strides=node.ints("strides") or (1,),
        dilations=node.ints("dilations") or (1,),
        begins=pads[:half] or (0,),
        ends=pads[half:] or (0,),
        same=automatic if automatic.startswith("SAME") else "",
        ceil=bool(node.int("ceil_mode", 0)),
    )


def spread(sizes: Sizes, rank: int) -> Sizes:
    """A number for each of some axes."""
    return sizes * rank if len(sizes) == 1 else sizes


def halves(totals: Sequence[int], *, upper: bool) -> tuple[Sizes, Sizes]:
    """What goes before and behind each axis of a total; the odd one goes behind if ``upper``, before if not."""
    small, large = tuple(total // 2 for total in totals), tuple(total - total // 2 for total in totals)
    return (small, large) if upper else (large, small)


def in_pairs(begins: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Padding as ``torch.nn.functional.pad`` takes it: pairs, the last axis first."""
    return list(chain.from_iterable(zip(reversed(begins), reversed(ends), strict=True)))
