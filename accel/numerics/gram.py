"""Gram matrices X^T X of what layers are fed: how errors of their weights add up in their outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accel.context import Calibration, Tell, rows_in
from accel.errors import BadDataset
from accel.graph.layers import Layer
from accel.graph.observe import Probe, observe

if TYPE_CHECKING:
    import onnx_ir as ir

Array = npt.NDArray[np.generic]
Float32 = npt.NDArray[np.float32]
Columns = Callable[[Float32, int, int], Float32]
"""Takes an activation, a number of places and a start; gives [groups, rows, columns], what weights are multiplied with."""

_BATCH = 8
"""Rows at a time, at most."""
_ROWS, _PLACES = 32, 64
"""So many rows are counted for each column, over all samples, but not less than so many places of a sample: neighbours are
alike, and more rows than that changed no rounding."""
_PRIME = 1_000_003
"""Distance between the starts of successive batches."""
_BUDGET = 256 << 20
"""Bytes of Gram matrices that are collected in one pass over the samples."""


@dataclass(frozen=True, slots=True)
class Gram:
    """The sum of x x^T over the inputs that a layer's weights are multiplied with."""

    matrix: Float32
    """[groups, columns, columns], in the order of :attr:`accel.graph.layers.Layer.matrix`."""
    rows: int
    """How many inputs were counted for each group."""

    def __add__(self, other: Gram) -> Gram:
        """The same weights, fed from two places."""
        return Gram(self.matrix + other.matrix, self.rows + other.rows)


def measurable(layer: Layer) -> bool:
    """Whether a layer's output is one matrix product for each group: Conv, Gemm, and MatMul with a matrix."""
    return layer.operator in {"Conv", "Gemm"} or (layer.operator == "MatMul" and layer.weight.ndim == 2)  # noqa: PLR2004


def grams(
    model: ir.Model,
    chosen: Sequence[Layer],
    calibration: Calibration,
    samples: int,
    workspace: Path,
    *,
    budget: int = _BUDGET,
    tell: Tell = lambda *_: None,
) -> Iterator[tuple[Layer, Gram]]:
    """Run a float graph on samples and sum up what its layers are fed.

    Memory does not grow with the samples: each batch is reduced at once, and where all matrices together are larger
    than the budget, the samples are read several times. Layers that are fed the same share a matrix.

    Args:
        model: A float graph.
        chosen: Its layers, measurable ones.
        calibration: The samples.
        samples: How many are used, at most.
        workspace: Folder for the instrumented graph.
        budget: Bytes of matrices that are held at a time; one is held in any case.
        tell: Told of the progress.

    Yields:
        Each layer with its Gram matrix, in order of what feeds them.

    Raises:
        BadDataset: There is no sample, or a layer is fed what is not finite.
    """
    fed: dict[tuple[str | None, _Windows | None], list[Layer]] = {}
    for layer in chosen:
        fed.setdefault((layer.input.name, _Windows.of(layer) if layer.operator == "Conv" else None), []).append(layer)
    groups = list(fed.values())
    passes = list(_passes(groups, budget))
    for number, part in enumerate(passes):
        first = [layers[0] for layers in part]
        collected = _collect(
            model, first, calibration, samples, workspace, _counted(tell, samples, number, len(passes))
        )
        for layers, gram in zip(part, collected, strict=True):
            yield from ((layer, gram) for layer in layers)


def _passes(groups: Sequence[list[Layer]], budget: int) -> Iterator[list[list[Layer]]]:
    part: list[list[Layer]] = []
    held = 0
    for layers in groups:
        size = 4 * layers[0].group * layers[0].matrix.shape[1] ** 2
        if part and held + size > budget:
            yield part
            part, held = [], 0
        part.append(layers)
        held += size
    if part:
        yield part


def _counted(tell: Tell, samples: int, number: int, passes: int) -> Callable[[int], None]:
    return lambda done: tell("calibrating", number * samples + done, passes * samples, "")


def _collect(
    model: ir.Model,
    chosen: Sequence[Layer],
    calibration: Calibration,
    samples: int,
    workspace: Path,
    tell: Callable[[int], None],
) -> list[Gram]:
    probes = [Probe(str(layer.input.name), "all") for layer in chosen]
    reductions = [columns(layer) for layer in chosen]
    sums = [np.zeros((layer.group, *[layer.matrix.shape[1]] * 2), np.float32) for layer in chosen]
    rows = [0] * len(chosen)
    places = [max(_PLACES, -(-_ROWS * layer.matrix.shape[1] // samples)) for layer in chosen]
    observed, done = None, 0
    for number, batch in enumerate(calibration.batches(samples, calibration.batch_size(_BATCH))):
        observed = observed or observe(model, probes, batch, workspace)
        found: Mapping[Probe, tuple[Array, ...]] = observed.run(batch)
        for at, (probe, reduce) in enumerate(zip(probes, reductions, strict=True)):
            seen = reduce(found[probe][0].astype(np.float32, copy=False), places[at], number * _PRIME)
            with np.errstate(all="ignore"):  # what is not finite is looked for below
                sums[at] += np.swapaxes(seen, 1, 2) @ seen
            rows[at] += seen.shape[1]
        done += rows_in(batch)
        tell(done)
    if not done:
        raise BadDataset("There is no sample to calibrate on.", hint="Give a dataset with rows in the split `train`.")
    for layer, total in zip(chosen, sums, strict=True):
        if not np.isfinite(total).all():
            raise BadDataset(
                f"On the calibration samples, the layer {layer.name!r} is fed values that are not finite.",
                hint="Look for NaN, infinity and values far from what the model was trained on.",
            )
    return [Gram(total, count) for total, count in zip(sums, rows, strict=True)]


@dataclass(frozen=True, slots=True)
class _Windows:
    """The parts of an input that a convolution's weights are multiplied with."""

    kernel: tuple[int, ...]
    group: int
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str

    @classmethod
    def of(cls, layer: Layer) -> _Windows:
        attributes, kernel = layer.node.attributes, layer.weight.shape[2:]
        ones, zeros = (1,) * len(kernel), (0,) * (2 * len(kernel))
        return cls(
            kernel,
            layer.group,
            tuple(attributes.get_ints("strides", ones)),
            tuple(attributes.get_ints("dilations", ones)),
            tuple(attributes.get_ints("pads", zeros)),
            attributes.get_string("auto_pad", "NOTSET"),
        )

    def columns(self, activation: Float32, limit: int, start: int) -> Float32:
        """[groups, rows, columns] of an activation [batch, channels, *places]."""
        batch, channels = activation.shape[:2]
        padded = np.pad(activation, [(0, 0), (0, 0), *self._padding(activation.shape[2:])])
        spans = [(size - 1) * step + 1 for size, step in zip(self.kernel, self.dilations, strict=True)]
        axes = tuple(range(2, activation.ndim))
        view = np.lib.stride_tricks.sliding_window_view(padded, spans, axes)
        index: list[Any] = [slice(None), slice(None)]
        index += [slice(None, None, step) for step in (*self.strides, *self.dilations)]
        view = view[tuple(index)]
        places = view.shape[2 : activation.ndim]
        taken = np.unravel_index(_some(math.prod(places), limit, start), places)
        picked = view[:, :, *taken]  # [batch, channels, places, *kernel]
        split = picked.reshape(batch, self.group, channels // self.group, len(taken[0]), math.prod(self.kernel))
        rows: Float32 = split.transpose(1, 0, 3, 2, 4).reshape(self.group, batch * len(taken[0]), -1)
        return rows

    def _padding(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        if self.auto_pad not in {"SAME_UPPER", "SAME_LOWER"}:
            pads = self.pads if self.auto_pad == "NOTSET" else (0,) * len(self.pads)
            return list(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))
        both = []
        for size, kernel, stride, dilation in zip(sizes, self.kernel, self.strides, self.dilations, strict=True):
            lacking = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            less, more = lacking // 2, lacking - lacking // 2
            both.append((less, more) if self.auto_pad == "SAME_UPPER" else (more, less))
        return both


def _product(activation: Float32, limit: int, start: int) -> Float32:
    """[1, rows, columns] of what a matrix is multiplied with."""
    columns = activation.shape[-1]
    samples = len(activation) if activation.ndim > 1 else 1
    rows = activation.reshape(samples, -1, columns)
    return rows[:, _some(rows.shape[1], limit, start)].reshape(1, -1, columns)


def _some(count: int, limit: int, start: int) -> npt.NDArray[np.intp]:
    """Numbers below ``count`` at even distances, ``limit`` of them at most."""
    step = max(1, -(-count // limit))
    step += 1 - step % 2  # odd, so that it falls out of step with widths
    return np.arange(start % step, count, step)


def columns(layer: Layer) -> Columns:
    """How to get at what a measurable layer's weights are multiplied with.

    Returns:
        A function of an activation, as the layer is fed it, of the number of places of a sample that are wanted at most, and
        of where their choice begins; gives [groups, rows, columns].
    """
    return _Windows.of(layer).columns if layer.operator == "Conv" else _product
