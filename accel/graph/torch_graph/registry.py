"""Which operators there are: by domain, name, and the version of the operator set that each begins with."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from accel.errors import UnsupportedOperator
from accel.graph.torch_graph.node import Node, Value

Run = Callable[..., "Value | tuple[Value, ...]"]
"""Computes a node: its inputs in order (None where one is left out), its output or outputs.

The operator of a node with sub-graphs is also given ``outer``, the values around it that these read.
"""
Build = Callable[[Node], Run]
"""Reads a node's attributes once, and gives what computes it.

Raises:
    UnsupportedOperator: This form of the operator is not covered.
"""

_KNOWN: dict[tuple[str, str], list[tuple[int, Build]]] = {}
_RANDOM: set[tuple[str, str]] = set()
_STANDARD = "ai.onnx"


def operator(name: str, *, since: int = 1, domain: str = "", random: bool = False) -> Callable[[Build], Build]:
    """Register how an operator is built.

    Args:
        name: The operator.
        since: The first version of its domain that this is true for; the next registered one ends it.
        domain: ``""`` is ONNX's own.
        random: Whether two runs differ, so that it must not be computed ahead.
    """

    def register(build: Build) -> Build:
        known = _KNOWN.setdefault((domain, name), [])
        if since in {version for version, _ in known}:
            raise TypeError(f"{name} is registered twice for version {since}")
        known.append((since, build))
        known.sort(key=lambda entry: entry[0])
        if random:
            _RANDOM.add((domain, name))
        return build

    return register


def build(node: Node) -> Run:
    """What computes a node.

    Raises:
        UnsupportedOperator: The operator, or this form of it, is not covered.
    """
    _load()
    known = _KNOWN.get((_domain(node.native.domain), node.native.op_type), [])
    place = bisect_right([since for since, _ in known], node.version) - 1
    if place < 0:
        version = f" of version {node.version}" if known else ""
        raise unsupported(node, f"the operator{version} is not among those that are covered")
    try:
        return known[place][1](node)
    except TypeError as error:  # an element type that PyTorch does not have
        raise unsupported(node, str(error)) from error


def unsupported(node: Node, why: str) -> UnsupportedOperator:
    """The error for a node that cannot be run in PyTorch."""
    return UnsupportedOperator(
        f"The node {node.name!r} ({node.operator}) cannot be run in PyTorch: {why}.",
        hint="Techniques that do not train still work on this model: quantize_static, quantize_dynamic, quantize_weights, "
        "convert_float16 and others of GET /v1/techniques.",
    )


def is_random(domain: str, name: str) -> bool:
    """Whether two runs of an operator differ."""
    return (_domain(domain), name) in _RANDOM


def supported() -> dict[tuple[str, str], tuple[int, ...]]:
    """The versions that are covered from, by domain and operator."""
    _load()
    return {key: tuple(since for since, _ in known) for key, known in sorted(_KNOWN.items())}


def _domain(domain: str) -> str:
    return "" if domain == _STANDARD else domain


def _load() -> None:
    import accel.graph.torch_graph.operators  # noqa: F401  (registers each of them)
