"""Operators that are one function of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from accel.graph.torch_graph.registry import operator


def native(functions: Mapping[str, Callable[..., Tensor]], *, since: int = 1, domain: str = "") -> None:
    """Register operators without attributes, whose inputs are the arguments of a function.

    Args:
        functions: What computes each, by the operator's name.
        since: The first version that this is true for.
        domain: Of the operators; ``""`` is ONNX's own.
    """
    for name, function in functions.items():
        _register(name, function, since, domain)


def _register(name: str, function: Callable[..., Tensor], since: int, domain: str) -> None:
    operator(name, since=since, domain=domain)(lambda _node: function)
