"""Tensors drawn by chance: from the generator of the graph's mode, or from one of its own where a node has a seed."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import onnx_ir as ir
import torch
from torch import Tensor

from accel.graph.torch_graph.dtypes import FLOATS, torch_dtype
from accel.graph.torch_graph.node import Node
from accel.graph.torch_graph.registry import Run, operator

Source = Callable[[], torch.Generator | None]
Draw = Callable[[Sequence[int], torch.dtype], Tensor]


@operator("RandomNormal", random=True)
def random_normal(node: Node) -> Run:
    """Numbers of a normal distribution in a shape that the node names."""
    return _named(node, _normal(node))


@operator("RandomNormalLike", random=True)
def random_normal_like(node: Node) -> Run:
    """Numbers of a normal distribution in the shape of another tensor."""
    return _like(node, _normal(node))


@operator("RandomUniform", random=True)
def random_uniform(node: Node) -> Run:
    """Numbers that lie evenly between two bounds in a shape that the node names."""
    return _named(node, _uniform(node))


@operator("RandomUniformLike", random=True)
def random_uniform_like(node: Node) -> Run:
    """Numbers that lie evenly between two bounds in the shape of another tensor."""
    return _like(node, _uniform(node))


@operator("Bernoulli", since=15, random=True)
def bernoulli(node: Node) -> Run:
    """One with the probability that an element tells, or else zero. It has no gradient."""
    dtype, source = node.type_of("dtype"), _source(node)
    held = None if dtype is None else torch_dtype(dtype)

    def run(x: Tensor) -> Tensor:
        drawn = torch.bernoulli(x.detach().to(_device(source)), generator=source())
        return drawn.to(x.device, held or x.dtype)

    return run


@operator("Multinomial", since=7, random=True)
def multinomial(node: Node) -> Run:
    """Numbers of classes drawn by their log-probabilities [batch, classes], which need not sum to one."""
    dtype, source = torch_dtype(node.type_of("dtype") or ir.DataType.INT32), _source(node)
    count = node.int("sample_size", 1)

    def run(x: Tensor) -> Tensor:
        probabilities = x.detach().to(_device(source)).softmax(1)
        drawn = torch.multinomial(probabilities, count, replacement=True, generator=source())
        return drawn.to(x.device, dtype)

    return run


def _normal(node: Node) -> Draw:
    mean, scale, source = node.float("mean", 0.0), node.float("scale", 1.0), _source(node)
    return lambda shape, dtype: (
        torch.randn(shape, generator=source(), dtype=dtype, device=_device(source)) * scale + mean
    )


def _uniform(node: Node) -> Draw:
    low, high, source = node.float("low", 0.0), node.float("high", 1.0), _source(node)
    return lambda shape, dtype: (
        torch.rand(shape, generator=source(), dtype=dtype, device=_device(source)) * (high - low) + low
    )


def _named(node: Node, draw: Draw) -> Run:
    shape, dtype = node.ints("shape"), torch_dtype(node.type_of("dtype") or ir.DataType.FLOAT)
    return lambda: draw(shape, dtype)


def _like(node: Node, draw: Draw) -> Run:
    wanted = node.type_of("dtype")
    dtype = None if wanted is None else torch_dtype(wanted)

    def run(x: Tensor) -> Tensor:
        # what is no float only gives its shape
        return draw(x.shape, dtype or (x.dtype if x.dtype in FLOATS else torch.float32)).to(x.device)

    return run


def _source(node: Node) -> Source:
    """Where a node's chance comes from; with a seed each run goes on where the one before it stopped."""
    if not node.has("seed"):
        mode = node.mode
        return lambda: mode.generator
    own = torch.Generator()
    # all bits of the number count: 0.25 and 0.5 are different seeds
    own.manual_seed(int.from_bytes(struct.pack("<f", node.float("seed", 0.0)), "little"))
    return lambda: own


def _device(source: Source) -> torch.device:
    """Where numbers are drawn; a generator knows only its own device."""
    generator = source()
    return torch.device("cpu") if generator is None else generator.device
