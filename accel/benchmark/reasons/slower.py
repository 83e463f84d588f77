"""Operators that take longer than those that did the same work in the baseline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from accel.benchmark.reasons.evidence import Evidence, Side
from accel.benchmark.reasons.operators import family
from accel.benchmark.reasons.wording import listed, shown, some, spent
from accel.graph.kernels import computes_in_integers
from accel.report import SpeedFinding

_SLOWER = 1.1
_NOISE = 1.25
"""The same operators differ by so much now and then."""
_HARDLY_FASTER = 0.9
_WORTH = 0.03
"""Share of the model's time that is worth a line."""
_NAMED = 3
_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
_BARE = frozenset({"ConvInteger", "MatMulInteger"})
"""Products without a way back to floats of their own."""
_PAIRS = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""They have reasons of their own."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer that got slower: what it took, and what it takes now."""

    name: str
    node: str
    operator: str
    before_ms: float
    after_ms: float

    @property
    def lost_ms(self) -> float:
        return self.after_ms - self.before_ms


def slower(evidence: Evidence, features: Collection[str]) -> Iterator[SpeedFinding]:
    """Families of operators that got slower, layers that did while others gained, and integer kernels without a gain.

    Args:
        evidence: The pair.
        features: What the processor can do, in the words of Linux.
    """
    before, after = _by_family(evidence.before), _by_family(evidence.after)
    layers = _slower_layers(evidence)
    for name, now in after.items():
        then = before.get(name, {})
        now_ms, then_ms = sum(now.values()), sum(then.values())
        mine = [layer for layer in layers if family(layer.operator) == name]
        lost_ms = sum(layer.lost_ms for layer in mine)
        integers = [operator for operator in now if computes_in_integers(operator)]
        text = f"{name}: {_times(now)}, {_times(then) if then else 'none'} in the baseline"
        same = set(now) == set(then)
        advice = (
            " The operators are the same: look at what is around them, or at how busy the host was." if same else ""
        )
        more = f".{_most(mine)}{advice or _advice(name, integers, evidence.after.operators)}"
        if now_ms > (_NOISE if same else _SLOWER) * then_ms and evidence.share(now_ms - then_ms) >= _WORTH:
            ms, text = now_ms - then_ms, text + more
        elif evidence.share(lost_ms) >= _WORTH:
            ms, text = lost_ms, f"{text}; some of them are slower, by {spent(lost_ms)}{more}"
        elif integers and then and not same and now_ms > _HARDLY_FASTER * then_ms and evidence.share(now_ms) >= _WORTH:
            weak = (
                "" if _DOT_PRODUCTS & set(features) else " This processor has no dot product of 8-bit integers (VNNI)."
            )
            ms, text = now_ms, f"{text}. Integers are hardly faster here.{weak}"
        else:
            continue
        yield SpeedFinding(
            kind="operator_slower",
            share=evidence.share(ms),
            nodes=tuple(layer.node for layer in mine[:_NAMED])
            or some(kernel for kernel in evidence.after.kernels if kernel.operator in now),
            text=text,
        )


def _by_family(side: Side) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for operator, ms in side.operators.items():
        if operator not in _PAIRS:
            found[family(operator)][operator] = ms
    return dict(found)


def _slower_layers(evidence: Evidence) -> list[_Layer]:
    """Layers that both profiles have by name, the one that lost most first."""
    before: dict[str, float] = defaultdict(float)
    operators: dict[str, str] = {}
    for kernel in evidence.before.kernels:
        layer = evidence.layer(kernel)
        if layer is not None and kernel.measured:
            before[layer] += kernel.ms
            operators[layer] = kernel.operator
    found = []
    for kernel in evidence.after.kernels:
        layer = evidence.layer(kernel)
        if layer is None or layer not in before or not kernel.measured:
            continue
        if kernel.ms > (_NOISE if operators[layer] == kernel.operator else _SLOWER) * before[layer]:
            found.append(_Layer(layer, kernel.name, kernel.operator, before[layer], kernel.ms))
    return sorted(found, key=lambda layer: -layer.lost_ms)


def _times(operators: dict[str, float]) -> str:
    """A sum with its parts, the largest first."""
    ordered = sorted(operators.items(), key=lambda item: -item[1])
    if len(ordered) == 1:
        return f"{spent(ordered[0][1])} ({ordered[0][0]})"
    parts = ", ".join(f"{operator} {spent(ms)}" for operator, ms in ordered[:_NAMED])
    more = ", …" if len(ordered) > _NAMED else ""
    return f"{spent(sum(operators.values()))} ({parts}{more})"


def _most(layers: list[_Layer]) -> str:
    if not layers:
        return ""
    said = ", ".join(
        f"{shown(layer.name)} {spent(layer.before_ms)} → {spent(layer.after_ms)} ({layer.operator})"
        for layer in layers[:_NAMED]
    )
    return f" Most of it: {said}."


def _advice(name: str, integers: list[str], everything: Collection[str]) -> str:
    if name == "Changes of layout":
        return " The runtime reorders data around operators that it could not fuse or that want another order."
    if name == "Changes of number format":
        return " Each operator that wants another format than its neighbour costs them; let neighbours share one."
    if "ConvInteger" in integers:
        return " ConvInteger is a slow kernel: quantize convolutions statically, or leave them in float."
    if integers:
        return " Leave such layers in float: name them in `exclude`."
    if name == "Elementwise operators" and _BARE & set(everything):
        return (
            f" {listed(sorted(_BARE & set(everything)))} gives integers, which Cast, Mul and Add turn back into floats."
        )
    return " What was fused in the baseline is not here: look at the operators around."
