"""What calibration costs: wall time and memory of ``quantize_static`` on efficientnet_lite0 with 100 images."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from quantization.table import Goal, Section, times
from quantization.workbench import Made, Workbench

_MODEL = "efficientnet_lite0"
_SAMPLES = 100
_METHODS = ("minmax", "entropy", "percentile", "mse")
_WALL = {"minmax": 1 / 2, "entropy": 1 / 6, "percentile": 1 / 6}
_PEAK = {"entropy": 1 / 8, "percentile": 1 / 8}
_GROWTH = 1.05
_TO_THE_END = {"tolerance": 0.0}
"""Calibration uses all samples, even if scales have settled before."""


def run(bench: Workbench, _models: Sequence[str], section: Section) -> None:
    """Let every candidate have its turn, several times in alternating order."""
    section.begin(
        f"Calibration: quantize_static of {_MODEL} with {_SAMPLES} images",
        ("who", "call s (min to max)", "whole process s", "peak MB", "note"),
        "Call: the compression alone, with imports and reading of the data file outside, the file written inside. Whole "
        "process: from start to end; ours then also proves its result on the test split. Peak: of the whole process, "
        f"imports included. Medians of {bench.extent.repeats} turns; ratios are medians of those within a turn. Diagnosed: with "
        "the noise, channels and portability of each layer in the report, as by default; the peers report nothing of the kind.",
    )
    bundle = bench.bundle(_MODEL)

    def ours(method: str, *, diagnose: bool = False) -> Made:
        step = {"technique": "quantize_static", "calibration": method, "samples": _SAMPLES, "diagnose": diagnose}
        return bench.ours(bundle, [step], f"ours {method}{', diagnosed' if diagnose else ''}")

    candidates: dict[str, Callable[[], Made]] = {}
    for method in _METHODS:
        if method in _WALL:
            candidates[f"onnxruntime {method}"] = lambda m=method: bench.peer(bundle, f"onnxruntime {m}")  # type: ignore[misc]
        candidates[f"ours {method}"] = lambda m=method: ours(m)  # type: ignore[misc]
        if method in _WALL:
            candidates[f"ours {method}, diagnosed"] = lambda m=method: ours(m, diagnose=True)  # type: ignore[misc]
        if method == "entropy":
            candidates["nncf"] = lambda: bench.peer(bundle, "nncf")
    found: dict[str, list[Made]] = {who: [] for who in candidates}
    for turn in range(bench.extent.repeats):
        for who in candidates if turn % 2 == 0 else reversed(candidates):
            found[who].append(candidates[who]())
    for who, turns in found.items():
        section.rows.append(_row(who, turns))
        section.figures[who] = [made.figures() for made in turns]
    section.goals += [
        _wall_goal(found, f"ours {method}{what}", f"onnxruntime {method}", bound)
        for method, bound in _WALL.items()
        for what in ("", ", diagnosed")
    ]
    section.goals += [_peak_goal(found, f"ours {m}", f"onnxruntime {m}", bound) for m, bound in _PEAK.items()]
    section.goals.append(_wall_goal(found, "ours entropy", "nncf", 1.0))
    section.goals.append(_many(bench, section))


def _row(who: str, turns: list[Made]) -> tuple[str | float | None, ...]:
    fine = [made for made in turns if made.error is None]
    calls = [made.call_s for made in fine if made.call_s is not None]
    return (
        who,
        f"{statistics.median(calls):.2f} ({min(calls):.2f} to {max(calls):.2f})" if calls else None,
        statistics.median(made.wall_s for made in turns),
        f"{statistics.median(made.peak_bytes for made in turns) / 1e6:,.0f}",
        next((f"failed: {made.error}" for made in turns if made.error), ""),
    )


def _wall_goal(found: dict[str, list[Made]], ours: str, peer: str, bound: float) -> Goal:
    pairs = zip(found[ours], found[peer], strict=True)
    ratios = [mine.call_s / theirs.call_s for mine, theirs in pairs if mine.call_s and theirs.call_s]
    whole = statistics.median(a.wall_s / b.wall_s for a, b in zip(found[ours], found[peer], strict=True))
    what, goal = f"{ours}: wall time against {peer}", f"at most {bound:.3f}"
    if not ratios:
        return Goal(what, _who_failed(found, ours, peer), goal, None if found[peer][0].error else False)
    ratio = statistics.median(ratios)
    return Goal(what, f"{times(ratio)} of the call, {times(whole)} of the whole process", goal, ratio <= bound)


def _peak_goal(found: dict[str, list[Made]], ours: str, peer: str, bound: float) -> Goal:
    what, goal = f"{ours}: peak memory against {peer}", f"at most {bound:.3f}"
    if any(made.error for made in (*found[ours], *found[peer])):
        return Goal(what, _who_failed(found, ours, peer), goal, None if found[peer][0].error else False)
    ratio = statistics.median(a.peak_bytes / b.peak_bytes for a, b in zip(found[ours], found[peer], strict=True))
    return Goal(what, times(ratio), goal, ratio <= bound)


def _who_failed(found: dict[str, list[Made]], *names: str) -> str:
    return "; ".join(f"{name}: {made.error}" for name in names for made in found[name][:1] if made.error)


def _many(bench: Workbench, section: Section) -> Goal:
    """Memory for many samples: the same images again and again, all of them used."""
    many = bench.extent.many
    what, goal = f"ours entropy: peak memory for {many:,} samples against {_SAMPLES}", f"at most {_GROWTH:.2f}"
    made = {}
    for samples in (_SAMPLES, many):
        bundle = bench.bundle(_MODEL, repeat_to=samples)
        step = {"technique": "quantize_static", "calibration": "entropy", "samples": samples, "diagnose": False}
        step |= _TO_THE_END
        made[samples] = bench.ours(bundle, [step], f"ours entropy, {samples:,} samples, to the end")
        section.rows.append(_row(made[samples].who, [made[samples]]))
        section.figures[made[samples].who] = made[samples].figures()
    errors = [one.error for one in made.values() if one.error]
    if errors:
        return Goal(what, errors[0], goal, met=False)
    ratio = made[many].peak_bytes / made[_SAMPLES].peak_bytes
    return Goal(what, times(ratio), goal, ratio <= _GROWTH)
