"""ONNX's own tests of operators, run through the differentiable executor."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from accel.errors import AccelError, UnsupportedOperator
from accel.graph.torch_graph.dtypes import to_torch
from accel.graph.torch_graph.graph import TorchGraph, nothing


@dataclass(frozen=True)
class Case:
    """One of ONNX's tests: a model of a few nodes, its inputs, and what it must give."""

    name: str
    model: onnx.ModelProto
    inputs: list[Any]
    outputs: list[Any]
    rtol: float
    atol: float

    @property
    def operators(self) -> set[str]:
        """What its graph and sub-graphs are made of."""
        return {node.op_type for node in ir.from_proto(self.model).graph.all_nodes()}


def cases(operators: set[str] | None = None) -> Iterator[Case]:
    """Those whose first node is one of some operators; all, if left out."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    for case in found:
        if operators is not None and not {node.op_type for node in case.model.graph.node} & operators:
            continue
        for inputs, outputs in case.data_sets:
            yield Case(case.name, case.model, inputs, outputs, case.rtol, case.atol)


def check(case: Case) -> str:
    """Why a case fails; empty if it passes, ``not covered: ...`` where an operator is left out."""
    try:
        model = ir.from_proto(case.model)
        feeds = {value.name or "": _held(given) for value, given in zip(model.graph.inputs, case.inputs, strict=False)}
        graph = TorchGraph(model, nothing)
        feeds |= dict.fromkeys(name for name in graph.inputs if name not in feeds)
        with torch.no_grad():
            found = graph(feeds)
    except UnsupportedOperator as error:
        return f"not covered: {error.message}"
    except AccelError as error:
        return error.message
    for expected, (name, value) in zip(case.outputs, found.items(), strict=False):
        said = _differs(expected, value, case)
        if said:
            return f"{name}: {said}"
    return ""


def _held(given: Any) -> Any:
    if given is None:
        return None
    if isinstance(given, list):
        return [_held(part) for part in given]
    if isinstance(given, onnx.TensorProto):
        try:
            return to_torch(ir.from_proto(given))
        except TypeError as error:  # an element type that PyTorch does not have
            raise UnsupportedOperator(str(error)) from error
    array = np.asarray(given)
    if array.dtype.kind in "OUS":
        raise UnsupportedOperator("texts")
    return to_torch(ir.tensor(array))


def _differs(expected: Any, found: Any, case: Case) -> str:
    if expected is None or (isinstance(expected, list) and isinstance(found, list)):
        wanted = expected or []
        if len(wanted) != len(found or []):
            return f"{len(found or [])} parts instead of {len(wanted)}"
        return next((said for a, b in zip(wanted, found or [], strict=True) if (said := _differs(a, b, case))), "")
    if found is None:
        return "nothing"
    wanted = _held(expected)
    if tuple(wanted.shape) != tuple(found.shape):
        return f"shape {tuple(found.shape)} instead of {tuple(wanted.shape)}"
    if wanted.dtype != found.dtype:
        return f"{found.dtype} instead of {wanted.dtype}"
    if wanted.dtype.is_floating_point or wanted.dtype.is_complex:
        wide = torch.complex128 if wanted.dtype.is_complex else torch.float64
        # Of 16 bits a thousandth is less than a digit: the last two are left to the order of sums.
        rtol = max(case.rtol, 2 * torch.finfo(wanted.dtype).eps) if wanted.dtype.itemsize == 2 else case.rtol
        close = torch.isclose(found.to(wide), wanted.to(wide), rtol=rtol, atol=max(case.atol, 1e-6), equal_nan=True)
        return "" if bool(close.all()) else f"differs by {float((found.to(wide) - wanted.to(wide)).abs().max())}"
    return "" if torch.equal(wanted, found) else "differs"


def main() -> None:
    """Print how many pass, by operator; names of operators may be given."""
    import sys
    from collections import Counter

    operators = set(sys.argv[1:]) or None
    passed, missing, failed = 0, Counter[str](), []
    for case in cases(operators):
        said = check(case)
        if not said:
            passed += 1
        elif said.startswith("not covered"):
            missing[said.split("(")[-1].split(")")[0] if "(" in said else said] += 1
        else:
            failed.append(f"{case.name}: {said}")
    print("\n".join(failed))
    print(
        f"{passed} passed, {len(failed)} failed, {sum(missing.values())} not covered: {dict(missing.most_common(40))}"
    )


if __name__ == "__main__":
    main()
