"""The transformer: dynamic quantization, and static quantization after smoothing, on its whole test split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantization.comparison import drop
from quantization.metrics import value
from quantization.table import Goal, Section, points
from quantization.workbench import Made, Workbench

_MODEL = "text_source_transformer"
_RECIPES: dict[str, tuple[tuple[str, ...], float]] = {
    "quantize_dynamic": (("quantize_dynamic",), 0.003),
    "smooth, quantize_static": (("smooth", "quantize_static"), 0.005),
}
_PEERS = ("onnxruntime dynamic", "onnxruntime minmax", "onnxruntime careful", "nncf transformer")


def run(bench: Workbench, _models: Sequence[str], section: Section) -> None:
    """Make and score every file."""
    section.begin(
        f"Transformer: {_MODEL}", ("who", "accuracy", "drop, points [95 %]", "times smaller", "call s", "note")
    )
    bundle = bench.bundle(_MODEL)
    baseline = bench.score(bundle, bundle.model)
    if baseline.outcome is None:
        raise RuntimeError(f"fp32 does not run: {baseline.error}")
    section.rows.append(("fp32", f"{value(baseline.outcome):.4f}", None, None, None, ""))
    drops: dict[str, float] = {}

    def add(made: Made) -> None:
        scored = None if made.error else bench.score(bundle, made.path)
        outcome = scored.outcome if scored is not None else None
        lost = drop(baseline.outcome, outcome) if outcome is not None and baseline.outcome is not None else None
        error = made.error or (scored.error if scored is not None else None)
        smaller = bundle.model.stat().st_size / made.size_bytes if made.size_bytes else None
        accuracy = None if outcome is None else f"{value(outcome):.4f}"
        note = f"failed: {error}" if error else ""
        section.rows.append((made.who, accuracy, points(lost), smaller, made.call_s, note))
        section.figures[made.who] = {**made.figures(), "error": error, "drop": lost.model_dump() if lost else None}
        if lost is not None:
            drops[made.who] = lost.value

    for who, (techniques, _) in _RECIPES.items():
        steps: list[dict[str, Any]] = [{"technique": technique} for technique in techniques]
        add(bench.ours(bundle, steps, f"ours {who}"))
    for who in _PEERS:
        add(bench.peer(bundle, who))
    for who, (_, bound) in _RECIPES.items():
        lost = drops.get(f"ours {who}")
        measured = "failed" if lost is None else f"{100 * lost:+.2f} points"
        section.goals.append(
            Goal(f"{who}: drop", measured, f"at most {100 * bound:.1f} points", lost is not None and lost <= bound)
        )
