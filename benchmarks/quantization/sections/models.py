"""What becomes of every labelled model: drop, size and speed of ours with defaults beside the peers'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from accel.report import Estimate
from quantization.bundle import Bundle
from quantization.comparison import drop, is_worse
from quantization.metrics import Outcome, value
from quantization.table import Goal, Section, points, times
from quantization.workbench import CPU, Made, Scored, Workbench

_METHODS = ("onnxruntime minmax", "onnxruntime entropy", "onnxruntime percentile")
_PEERS = (*_METHODS, "onnxruntime careful", "nncf")
_THREADS = (1, 2)
_SMALLER = 3.7
_DOMINANT = 0.99
_SMALL_FILE = 1e6
_QUANTIZED = 0.9
"""A file that is not smaller than this share of its parent was not quantized."""


@dataclass
class _Entry:
    """One file of a model and what was found about it."""

    made: Made
    scored: Scored
    drop: Estimate | None = None
    latency: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome | None:
        return self.scored.outcome

    @property
    def error(self) -> str | None:
        return self.made.error or self.scored.error


def run(bench: Workbench, models: Sequence[str], section: Section) -> None:
    """Go through the models."""
    section.begin(
        "Every labelled model: quantize_static with defaults",
        ("model", "who", "drop, points [95 %]", "times smaller", *(f"latency ratio, {_threads(n)}" for n in _THREADS),
         "call s", "peak MB", "note"),
        "Drop: fp32 minus the file, paired, in points of the model's metric. Latency ratio: the file over fp32 on "
        "onnxruntime:cpu, batch 1, each in a process of its own, rounds interleaved; below 1 is faster. `careful`: minmax "
        "with opset 17, pre-processing, unsigned activations, weights by channel, Conv, MatMul and Gemm only.",
    )  # fmt: skip
    for name in models:
        try:
            _model(bench, bench.bundle(name), section)
        except RuntimeError as error:
            section.rows.append((name, "all", None, None, *(None,) * len(_THREADS), None, None, str(error)))
            section.goals.append(Goal(name, str(error), "figures", met=False))


def _model(bench: Workbench, bundle: Bundle, section: Section) -> None:
    baseline = bench.score(bundle, bundle.model)
    if baseline.outcome is None:
        raise RuntimeError(f"fp32 does not run: {baseline.error}")
    entries: dict[str, _Entry] = {}
    # Ours comes in the middle, so that neither side has the colder machine.
    for who in (*_PEERS[:2], "ours", *_PEERS[2:]):
        made = (
            bench.ours(bundle, [{"technique": "quantize_static", **bundle.parameters}], who)
            if who == "ours"
            else bench.peer(bundle, who)
        )
        scored = Scored(None, made.error) if made.error else bench.score(bundle, made.path)
        entry = entries[who] = _Entry(made, scored)
        if scored.outcome is not None:
            entry.drop = drop(baseline.outcome, scored.outcome)
    ours = entries["ours"]
    chosen = [who for who in ("ours", _best(entries, _METHODS, bundle), "onnxruntime careful", "nncf") if who]
    _measure(bench, bundle, {who: entries[who] for who in chosen})
    elsewhere = {} if ours.error else _elsewhere(bench, bundle, ours, baseline.outcome)
    section.rows.append(
        (bundle.name, "fp32", f"{bundle.metric} {value(baseline.outcome):.4f}", None, *(None,) * len(_THREADS), None, None, "")
    )  # fmt: skip
    for who, entry in entries.items():
        section.rows.append(_row(bundle, who, entry))
    section.remarks += _remarks(bundle, ours, elsewhere)
    section.goals += _goals(bundle, entries, elsewhere)
    section.figures[bundle.name] = {
        "metric": bundle.metric,
        "fp32": value(baseline.outcome),
        "weight_share": bundle.weight_share,
        "runtimes": elsewhere,
        "candidates": {
            who: {
                **entry.made.figures(),
                "error": entry.error,
                "value": None if entry.outcome is None else value(entry.outcome),
                "drop": None if entry.drop is None else entry.drop.model_dump(),
                "latency": entry.latency,
            }
            for who, entry in entries.items()
        },
    }


def _best(entries: dict[str, _Entry], names: Sequence[str], bundle: Bundle) -> str | None:
    """The one that loses least of those that run and are quantized; of equals the smallest."""
    parent = bundle.model.stat().st_size
    fine = [
        (entry.drop.value, entry.made.size_bytes or 0, who)
        for who, entry in entries.items()
        if who in names and entry.drop and (entry.made.size_bytes or 0) < _QUANTIZED * parent
    ]
    return min(fine)[2] if fine else None


def _measure(bench: Workbench, bundle: Bundle, entries: dict[str, _Entry]) -> None:
    names = {who.replace(" ", "-"): who for who, entry in entries.items() if entry.error is None}
    files = {name: entries[who].made.path for name, who in names.items()}
    if not files:
        return
    for measured in bench.latency(bundle, {"fp32": bundle.model, **files}, _THREADS):
        if measured["model_id"] in names:
            entries[names[measured["model_id"]]].latency[measured["threads"]] = {
                key: measured[key] for key in ("latency_ms", "speedup", "warnings", "error")
            }


def _elsewhere(bench: Workbench, bundle: Bundle, ours: _Entry, baseline: Outcome) -> dict[str, str]:
    """Whether the file runs in every runtime found, and what it loses there."""
    found = {}
    for runtime in bench.runtimes:
        scored = ours.scored if runtime == CPU else bench.score(bundle, ours.made.path, runtime)
        found[runtime] = (
            f"does not run: {scored.error}" if scored.outcome is None else points(drop(baseline, scored.outcome))
        )
    return found


def _row(bundle: Bundle, who: str, entry: _Entry) -> tuple[str | float | None, ...]:
    size = None if entry.error else entry.made.size_bytes
    return (
        bundle.name,
        who,
        points(entry.drop),
        bundle.model.stat().st_size / size if size else None,
        *(_ratio(entry.latency.get(threads)) for threads in _THREADS),
        entry.made.call_s,
        f"{entry.made.peak_bytes / 1e6:,.0f}",
        f"failed: {entry.error}" if entry.error else "",
    )


def _ratio(measured: dict[str, Any] | None) -> str | None:
    if measured is None:
        return None
    gain = measured["speedup"]
    if gain is None:
        return f"failed: {measured['error']}"
    return f"{1 / gain['value']:.3f} [{1 / gain['high']:.3f}, {1 / gain['low']:.3f}]"


def left_in_float(report: dict[str, Any]) -> list[str] | None:
    """Names of the layers that the last step left in float; None where its report does not say."""
    quantization = report["steps"][-1].get("quantization") if report else None
    if quantization is None:
        return None
    return [
        f"{layer['name']} ({layer['note']})" if layer["note"] else layer["name"]
        for layer in quantization["layers"]
        if layer["weight_bits"] is None
    ]


def _remarks(bundle: Bundle, ours: _Entry, elsewhere: dict[str, str]) -> list[str]:
    if ours.error:
        return []
    left = left_in_float(ours.made.report)
    said = "the report does not say" if left is None else ", ".join(left) or "none"
    where = "; ".join(f"{runtime} {found}" for runtime, found in elsewhere.items())
    notes = [note for step in ours.made.report["steps"] for note in step["notes"]]
    return [
        f"{bundle.name}: layers that ours left in float: {said}",
        f"{bundle.name}: ours on every runtime found, drop: {where}",
        *(f"{bundle.name}: ours notes: {note}" for note in notes),
    ]


def _goals(bundle: Bundle, entries: dict[str, _Entry], elsewhere: dict[str, str]) -> list[Goal]:
    ours, name = entries["ours"], bundle.name
    if ours.error or ours.outcome is None or ours.drop is None:
        return [Goal(f"{name}: ours", f"failed: {ours.error}", "a file that runs", met=False)]
    broken = [runtime for runtime, found in elsewhere.items() if found.startswith("does not run")]
    goals = [
        Goal(
            f"{name}: runs in every runtime found",
            f"{len(elsewhere) - len(broken)} of {len(elsewhere)}",
            "all",
            not broken,
        )
    ]
    best = _best(entries, _PEERS, bundle)
    theirs = entries[best] if best else None
    what = f"{name}: drop against the best peer's"
    if theirs is None or theirs.outcome is None:
        goals.append(Goal(what, f"{points(ours.drop)}, and no peer has a file that runs", "not worse", met=True))
    else:
        against = f"{points(ours.drop)} against {points(theirs.drop)} ({best}), difference {points(drop(theirs.outcome, ours.outcome))}"
        goals.append(Goal(what, against, "not worse beyond noise", not is_worse(theirs.outcome, ours.outcome)))
    smaller = bundle.model.stat().st_size / (ours.made.size_bytes or 1)
    if bundle.weight_share >= _DOMINANT and bundle.model.stat().st_size >= _SMALL_FILE:
        what = f"{name}: size ({bundle.weight_share:.1%} of the file are weights)"
        goals.append(Goal(what, f"{smaller:.2f} times smaller", f"at least {_SMALLER}", smaller >= _SMALLER))
    return goals + [
        _speed_goal(name, threads, measured, ours.made.report) for threads, measured in ours.latency.items()
    ]


def _speed_goal(name: str, threads: int, measured: dict[str, Any], report: dict[str, Any]) -> Goal:
    what, goal = f"{name}: speed with {_threads(threads)}", "not slower beyond noise, or the report says so"
    gain = measured["speedup"]
    if gain is None:
        return Goal(what, f"failed: {measured['error']}", goal, met=False)
    slower = gain["high"] < 1
    sayings = [*report["comparison"]["warnings"], *(saying for step in report["steps"] for saying in _sayings(step))]
    said = any("slower" in saying.lower() for saying in sayings)
    admitted = ", and the report says so" if slower and said else ""
    return Goal(what, f"latency {times(1 / gain['value'])} of fp32{admitted}", goal, not slower or said)


def _threads(count: int) -> str:
    return f"{count} thread{'s' if count > 1 else ''}"


def _sayings(step: dict[str, Any]) -> list[str]:
    findings = (step.get("quantization") or {}).get("findings", ())
    return [*step["notes"], *step["comparison"]["warnings"], *(finding["message"] for finding in findings)]
