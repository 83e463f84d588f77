"""Keeping a contract: ``mixed_precision`` beside ``nncf.quantize_with_accuracy_control``."""

from __future__ import annotations

from collections.abc import Sequence

from accel.report import Estimate
from quantization.bundle import Bundle
from quantization.comparison import drop
from quantization.metrics import Outcome
from quantization.sections.models import left_in_float
from quantization.table import Cell, Goal, Section, points, times
from quantization.workbench import Made, Workbench

_MAX_DROP = 0.01
_SHARE = 1 / 5
_PEER = "nncf accuracy control"


def run(bench: Workbench, models: Sequence[str], section: Section) -> None:
    """Go through the models."""
    section.begin(
        f"Mixed precision: a contract of {100 * _MAX_DROP:g} point",
        ("model", "who", "drop, points [95 %]", "contract", "times smaller", "call s", "whole process s", "peak MB", "note"),
        "The same rows for both: `train` to calibrate, `test` to judge. The contract counts as kept where the drop that was "
        "measured here, on the file loaded again, is within it; what the engine itself says of it stands in the note.",
    )  # fmt: skip
    for name in models:
        try:
            _model(bench, bench.bundle(name), section)
        except RuntimeError as error:
            section.rows.append((name, "all", *(None,) * 6, str(error)))
            section.goals.append(Goal(name, str(error), "figures", met=False))


def _model(bench: Workbench, bundle: Bundle, section: Section) -> None:
    baseline = bench.score(bundle, bundle.model)
    if baseline.outcome is None:
        raise RuntimeError(f"fp32 does not run: {baseline.error}")
    step = {"technique": "mixed_precision", "contract": bundle.contract}
    made = [bench.ours(bundle, [step | bundle.parameters], "ours"), bench.peer(bundle, _PEER)]
    drops = [_row(bench, bundle, one, baseline.outcome, section) for one in made]
    section.figures[bundle.name] = {
        one.who: {**one.figures(), "drop": None if lost is None else lost.model_dump()}
        for one, lost in zip(made, drops, strict=True)
    }
    section.goals += _goals(bundle, made, drops)


def _row(bench: Workbench, bundle: Bundle, made: Made, baseline: Outcome, section: Section) -> Estimate | None:
    scored = None if made.error else bench.score(bundle, made.path)
    lost = drop(baseline, scored.outcome) if scored is not None and scored.outcome is not None else None
    error = made.error or (scored.error if scored is not None else None)
    cells: list[Cell] = [bundle.name, made.who, points(lost), _kept(lost)]
    cells += [bundle.model.stat().st_size / made.size_bytes if made.size_bytes else None]
    cells += [made.call_s, made.wall_s, f"{made.peak_bytes / 1e6:,.0f}"]
    section.rows.append((*cells, f"failed: {error}" if error else _said(made)))
    return lost


def _kept(lost: Estimate | None) -> str | None:
    return None if lost is None else "kept" if lost.value <= _MAX_DROP else "broken"


def _said(made: Made) -> str:
    if not made.report:
        return ""
    last, left = made.report["steps"][-1], left_in_float(made.report)
    parts = (
        [f"engine: {last['verdict']['outcome']} ({last['verdict']['contract']['metric']})"] if last["verdict"] else []
    )
    parts += [] if left is None else [f"in float: {', '.join(left) or 'nothing'}"]
    return "; ".join(parts + list(last["notes"]))


def _goals(bundle: Bundle, made: list[Made], drops: list[Estimate | None]) -> list[Goal]:
    (ours, peer), (lost, theirs) = made, drops
    kept, peer_kept = (found is not None and found.value <= _MAX_DROP for found in (lost, theirs))
    whats = (f"{bundle.name}: contract", f"{bundle.name}: wall time against {_PEER}")
    said = f"ours {_kept(lost) or 'failed'}, peer {_kept(theirs) or 'failed'}"
    goals = [Goal(whats[0], said, "kept where any peer keeps it", kept or not peer_kept)]
    if ours.call_s is None:
        return [*goals, Goal(whats[1], f"ours failed: {ours.error}", f"at most {_SHARE:.2f}", met=False)]
    if peer.call_s is None:
        took = f"peer failed after {peer.wall_s:.0f} s ({peer.error}), ours took {ours.call_s:.1f} s"
        # A peer that was stopped would have taken longer still.
        quick = (peer.error or "").startswith("stopped after") and ours.call_s <= _SHARE * peer.wall_s
        return [*goals, Goal(whats[1], took, f"at most {_SHARE:.2f}", met=True if quick else None)]
    ratio, whole = ours.call_s / peer.call_s, ours.wall_s / peer.wall_s
    said = f"{times(ratio)} of the call, {times(whole)} of the whole process"
    return [*goals, Goal(whats[1], said, f"at most {_SHARE:.2f}", ratio <= _SHARE)]
