"""What of a quantized model is not computed in integers, and what that costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from accel.benchmark.reasons.evidence import Evidence, Kernel, Side
from accel.benchmark.reasons.operators import FAMILIES, VIEWS, WEIGHTED
from accel.benchmark.reasons.weights import every_node
from accel.benchmark.reasons.wording import are, kinds, some, spent, total
from accel.graph.kernels import computes_in_integers
from accel.report import SpeedFinding

_WORTH = 0.02
"""Share of the model's time that is worth a line."""
_ISLANDS = 3
_BOUND = 0.3
"""Share from which it is worth saying what it bounds the speed to."""
_ARITHMETIC = frozenset({"Add", "Sub"})
_PAIR = frozenset({"QuantizeLinear", "DequantizeLinear"})
_NO_KERNEL = frozenset({"ConvTranspose", "LSTM", "GRU", "RNN"})
"""Layers that the CPU provider cannot compute in integers from pairs around them."""
_FLOATS_OUT = frozenset({"MatMulIntegerToFloat", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulNBits"})
_ENTRIES = frozenset({"DequantizeLinear", "MatMulIntegerToFloat"})
"""Where floats begin that integers were before."""
_MOVES = frozenset({*VIEWS, "Transpose", "MaxPool"})


def integers(evidence: Evidence) -> Iterator[SpeedFinding]:
    """Pairs that were not fused, islands of float, and what stayed in float altogether.

    Every operator is counted for one reason at most.
    """
    parts = _Parts(evidence.after)
    if not parts.quantized:
        return
    for found in (_unfused(evidence, parts), _islands(evidence, parts), _rest(evidence, parts)):
        yield from (finding for finding in found if finding.share is not None and finding.share >= _WORTH)


@dataclass(eq=False)
class _Parts:
    """Who is taken by which reason."""

    side: Side
    taken: set[Kernel] = field(default_factory=set)

    @cached_property
    def quantized(self) -> bool:
        """Whether anything is in integers."""
        return any(kernel.operator in _PAIR or in_integers(kernel) for kernel in self.side.kernels)

    @cached_property
    def integers(self) -> set[str]:
        """Values that are integers in place of floats."""
        found: set[str] = set()
        for kernel in self.side.kernels:
            if kernel.operator in _MOVES or kernel.operator in FAMILIES["Changes of layout"]:
                given = any(name in found for name in kernel.inputs)
            else:
                given = kernel.operator == "QuantizeLinear" or (in_integers(kernel) and not _leaves_integers(kernel))
            if given:
                found |= set(kernel.outputs)
        return found

    def take(self, kernels: Iterable[Kernel]) -> list[Kernel]:
        """Those of them that nothing has taken yet."""
        found = [kernel for kernel in dict.fromkeys(kernels) if kernel not in self.taken]
        self.taken |= set(found)
        return found

    def before(self, kernel: Kernel) -> list[Kernel]:
        """The kernels that its inputs come from."""
        return [self.side.producers[name] for name in kernel.inputs if name in self.side.producers]

    def behind(self, kernel: Kernel) -> list[Kernel]:
        """The kernels that read its outputs."""
        return [reader for name in kernel.outputs for reader in self.side.consumers.get(name, ())]

    def pairs_around(self, kernels: Iterable[Kernel]) -> list[Kernel]:
        """The conversions that only they need."""
        return [
            other
            for kernel in kernels
            for other in (*self.before(kernel), *self.behind(kernel))
            if other.operator in _PAIR
        ]

    def source(self, name: str) -> Kernel | None:
        """The kernel that a value comes from, seen through what only moves it."""
        kernel = self.side.producers.get(name)
        while kernel is not None and kernel.operator in _MOVES and kernel.inputs:
            kernel = self.side.producers.get(kernel.inputs[0])
        return kernel

    def dequantized(self, kernel: Kernel, position: int) -> Kernel | None:
        """The DequantizeLinear that an input comes from."""
        if len(kernel.inputs) <= position:
            return None
        found = self.source(kernel.inputs[position])
        return found if found is not None and found.operator == "DequantizeLinear" else None


def in_integers(kernel: Kernel) -> bool:
    """Whether a kernel reads integers that stand for floats."""
    return computes_in_integers(kernel.operator) or kernel.operator in {"MatMulNBits", "QAttention"}


def _unfused(evidence: Evidence, parts: _Parts) -> Iterator[SpeedFinding]:
    left: dict[str, list[Kernel]] = defaultdict(list)
    for kernel in evidence.after.kernels:
        if kernel.operator not in WEIGHTED or in_integers(kernel):
            continue
        weight = parts.dequantized(kernel, 1)
        if parts.dequantized(kernel, 0) is not None:
            left["kernel" if kernel.operator in _NO_KERNEL else "pair"].append(kernel)
        elif weight is not None and weight.inputs[0] in evidence.after.initializers:
            left["weight"].append(kernel)
    for why, layers in left.items():
        own, pairs = parts.take(layers), parts.take(parts.pairs_around(layers))
        if not own:
            continue
        ms, around = total(own), total(pairs)
        counted = f"{len(own)} {kinds(own)} {'layers' if len(own) > 1 else 'layer'}"
        text = {
            "pair": f"{counted} stayed in float though quantized, since their pairs were not fused: {spent(ms)}, and "
            f"{spent(around)} for QuantizeLinear and DequantizeLinear around them.{_cause(evidence.after)}",
            "kernel": f"Pairs stand around {counted} without an integer kernel: {spent(ms)}, and {spent(around)} for the pairs. "
            "Leave such layers in float: name them in `exclude`.",
            "weight": f"Integer weights of {counted} become floats in every run: {spent(around)}, and {spent(ms)} to compute "
            "in float. Quantize activations too, or store weights in 16 bits.",
        }[why]
        yield SpeedFinding(
            kind="no_integer_kernel" if why == "kernel" else "pair_not_fused",
            share=evidence.share(ms + around),
            nodes=some(own),
            text=text,
        )


def _cause(side: Side) -> str:
    """Why the runtime may have left pairs alone, and what would help."""
    types = _activation_types(side)
    if "int16" in types or "uint16" in types:
        return " Activations of 16 bits have no integer kernel on processors: use 8."
    if "int8" in types:
        return " Their activations are signed, which ONNX Runtime fuses only in part on x86-64: use unsigned ones."
    return (
        " A layer is fused when a pair stands before it, at its weight and behind its activation: one is missing here."
    )


def _activation_types(side: Side) -> set[str]:
    """Integers that the file quantizes activations to."""
    from onnx import TensorProto

    constants = {tensor.name: tensor.data_type for tensor in side.file.graph.initializer}
    return {
        TensorProto.DataType.Name(constants[node.input[2]]).lower()
        for node in every_node(side.file)
        if node.op_type == "QuantizeLinear" and len(node.input) > 2 and node.input[2] in constants  # noqa: PLR2004
    }


def _islands(evidence: Evidence, parts: _Parts) -> Iterator[SpeedFinding]:
    groups: dict[frozenset[str], list[Kernel]] = defaultdict(list)
    places: dict[frozenset[str], int] = defaultdict(int)
    seen: set[Kernel] = set()
    for kernel in evidence.after.kernels:
        if kernel in seen or not _floating(kernel, parts):
            continue
        island = _connected(kernel, parts)
        seen |= set(island)
        entered = any(other.operator in _ENTRIES for member in island for other in parts.before(member))
        left = any(other.operator == "QuantizeLinear" for member in island for other in parts.behind(member))
        if entered and left:
            kind = frozenset(member.operator for member in island if member.operator not in VIEWS)
            groups[kind] += island
            places[kind] += 1
    for kind, members in sorted(groups.items(), key=lambda item: -total(item[1]))[:_ISLANDS]:
        own, pairs = parts.take(members), parts.take(parts.pairs_around(members))
        ms, around = total(own), total(pairs)
        where = f"in {places[kind]} places" if places[kind] > 1 else "in one place"
        pair = f", and {spent(around)} for QuantizeLinear and DequantizeLinear around them" if around else ""
        simple = kind <= set(FAMILIES["Elementwise operators"]) and not kind <= _ARITHMETIC
        help_ = (
            "Relu and Clip in their place are fused into the layer before; else leave the layers beside them in float."
            if simple
            else "They take their time whatever the layers do; fewer and longer chains of layers need fewer pairs."
        )
        yield SpeedFinding(
            kind="float_island",
            share=evidence.share(ms + around),
            nodes=some(own),
            text=f"{kinds(own)} {are(own)} computed in float between quantized layers, {where}: {spent(ms)}{pair}. {help_}",
        )


def _floating(kernel: Kernel, parts: _Parts) -> bool:
    if kernel.operator in _PAIR or in_integers(kernel) or kernel in parts.taken:
        return False
    return not any(name in parts.integers for name in kernel.outputs)


def _leaves_integers(kernel: Kernel) -> bool:
    """Whether it takes integers, or makes them within, and gives floats."""
    return kernel.operator == "DequantizeLinear" or kernel.operator in _FLOATS_OUT


def _connected(start: Kernel, parts: _Parts) -> list[Kernel]:
    """The float operators that hang together with one."""
    found = {start}
    todo = [start]
    while todo:
        kernel = todo.pop()
        for other in (*parts.before(kernel), *parts.behind(kernel)):
            if other not in found and _floating(other, parts):
                found.add(other)
                todo.append(other)
    return sorted(found, key=lambda kernel: -kernel.ms)


def _rest(evidence: Evidence, parts: _Parts) -> Iterator[SpeedFinding]:
    kernels = evidence.after.kernels
    for kernel in kernels:
        if kernel.operator in {"ConvInteger", "MatMulInteger"}:
            parts.take(_way_back(kernel, parts))
    layers = parts.take(k for k in kernels if k.operator in WEIGHTED and _floating(k, parts))
    if layers:
        share = evidence.share(total(layers))
        yield SpeedFinding(
            kind="no_integer_kernel",
            share=share,
            nodes=some(layers),
            text=f"{kinds(layers)} stayed in float: {spent(total(layers))} that quantization does not touch."
            f"{_bound(share)}",
        )
    others = parts.take(k for k in kernels if _floating(k, parts))
    if others:
        share = evidence.share(total(others))
        yield SpeedFinding(
            kind="no_integer_kernel",
            share=share,
            nodes=some(others),
            text=f"{kinds(others)} {are(others)} computed in float: {spent(total(others))} that quantization does not "
            f"touch.{_bound(share)}",
        )
    pairs = parts.take(k for k in kernels if k.operator in _PAIR)
    if pairs:
        yield SpeedFinding(
            kind="pair_not_fused",
            share=evidence.share(total(pairs)),
            nodes=some(pairs),
            text=f"{len(pairs)} QuantizeLinear and DequantizeLinear stand where integers meet floats: {spent(total(pairs))}. "
            "Quantize fewer and longer chains of layers.",
        )


def _way_back(product: Kernel, parts: _Parts) -> Iterator[Kernel]:
    """What turns the result of a bare integer product into floats; quantization brought it."""
    for cast in (kernel for kernel in parts.behind(product) if kernel.operator == "Cast"):
        yield cast
        for scaled in (kernel for kernel in parts.behind(cast) if kernel.operator == "Mul"):
            yield scaled
            yield from (kernel for kernel in parts.before(scaled) if kernel.operator == "Mul")
            yield from (kernel for kernel in parts.behind(scaled) if kernel.operator == "Add")


def _bound(share: float) -> str:
    return (
        f" Were all the rest free, the model would be {1 / share:.2g} times as fast as it is."
        if share >= _BOUND
        else ""
    )
