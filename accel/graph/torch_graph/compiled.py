"""A graph compiled for inputs of some shapes, to be run without gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

from accel.errors import AccelError, UnsupportedOperator
from accel.graph.torch_graph.graph import TorchGraph

Forward = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
_NUMBERS = frozenset({torch.tensor, torch.arange})
"""Functions that shapes become tensors by."""


def compiled(graph: TorchGraph, feeds: Mapping[str, Tensor]) -> Forward:
    """Compile a graph by PyTorch's Inductor, which takes seconds to minutes.

    The graph is traced with tensors that have shapes but no values. So its arithmetic of shapes is done once, and what depends on
    values, such as the branch of an If or the length of what NonZero finds, cannot be compiled instead of being taken for fixed.

    Args:
        graph: What to compile.
        feeds: Inputs of the shapes that it is compiled for; it runs with no others.

    Raises:
        UnsupportedOperator: The graph cannot be compiled; the message names the node where one is at fault.
    """
    from torch import _inductor

    def flat(*given: Tensor) -> list[Tensor]:
        with _Constants():
            found = graph(dict(zip(graph.inputs, given, strict=True)))
        return [_tensor(name, found[name]) for name in graph.outputs]

    inputs = [feeds[name] for name in graph.inputs]
    try:
        with torch.no_grad():
            run = _inductor.compile(make_fx(flat, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs), [*inputs])
    except Exception as error:  # each of the compiler's many layers has errors of its own
        said = error.message if isinstance(error, AccelError) else str(error).partition("\n")[0][:300]
        raise UnsupportedOperator(
            f"The graph cannot be compiled: {said}", hint="What depends on values cannot; run it without compiling."
        ) from error
    return lambda given: dict(zip(graph.outputs, run(*(given[name] for name in graph.inputs)), strict=True))


class _Constants(TorchFunctionMode):
    """Computes at once what depends on no input."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        known = all(type(tensor) is not FakeTensor for tensor in tensors) if tensors else func in _NUMBERS
        if not known:
            return func(*args, **(kwargs or {}))
        with _disable_current_modes():
            return func(*args, **(kwargs or {}))


def _tensor(name: str, value: object) -> Tensor:
    if not isinstance(value, Tensor):
        raise TypeError(f"its output {name!r} is no tensor")
    return value
