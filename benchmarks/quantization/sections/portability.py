"""The portability certificate: layers at risk on processors without VNNI, and what ``portable`` makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantization.bundle import Bundle
from quantization.comparison import drop
from quantization.table import Goal, Section, points
from quantization.workbench import Made, Workbench

_WITHIN = 0.001
_NAMED = 12


def run(bench: Workbench, models: Sequence[str], section: Section) -> None:
    """Go through the models."""
    section.begin(
        "Portability: sums of two products in 16 bits",
        ("model", "portable", "safe", "safe on the data", "at risk", "agreement with saturation", "drop, points [95 %]", "changed", "note"),
        "Agreement: share of the samples whose top class is the same when sums saturate, by emulation.",
    )  # fmt: skip
    for name in models:
        try:
            _model(bench, bench.bundle(name), section)
        except RuntimeError as error:
            section.rows.append((name, "", *(None,) * 6, str(error)))
            section.goals.append(Goal(name, str(error), "figures", met=False))


def _model(bench: Workbench, bundle: Bundle, section: Section) -> None:
    baseline = bench.score(bundle, bundle.model)
    if baseline.outcome is None:
        raise RuntimeError(f"fp32 does not run: {baseline.error}")
    found = {}
    for portable in (False, True):
        step = {"technique": "quantize_static", **bundle.parameters, **({"portable": True} if portable else {})}
        made = bench.ours(bundle, [step], "portable" if portable else "default")
        scored = None if made.error else bench.score(bundle, made.path)
        outcome = scored.outcome if scored is not None else None
        certificate = found[portable] = _certificate(made)
        error = made.error or (scored.error if scored is not None else None)
        at_risk = (certificate or {}).get("at_risk")
        agreement = (certificate or {}).get("agreement")
        section.rows.append(
            (
                bundle.name,
                "yes" if portable else "no",
                (certificate or {}).get("safe"),
                (certificate or {}).get("safe_on_data"),
                None if at_risk is None else f"{len(at_risk)}",
                None if agreement is None else f"{agreement:.4f}",
                points(None if outcome is None else drop(baseline.outcome, outcome)),
                None if certificate is None else f"{len(certificate['changed'])}",
                f"failed: {error}" if error else "" if certificate else "the report has no certificate",
            )
        )
        section.figures.setdefault(bundle.name, {})[made.who] = {**made.figures(), "certificate": certificate}
        if at_risk:
            more = f" and {len(at_risk) - _NAMED} more" if len(at_risk) > _NAMED else ""
            section.remarks.append(f"{bundle.name}, {made.who}: at risk: {', '.join(at_risk[:_NAMED])}{more}")
    section.goals.append(_goal(bundle, found[True]))


def _certificate(made: Made) -> dict[str, Any] | None:
    if not made.report:
        return None
    return (made.report["steps"][-1].get("quantization") or {}).get("portability")


def _goal(bundle: Bundle, certificate: dict[str, Any] | None) -> Goal:
    what, goal = f"{bundle.name}: portable, with and without saturation", f"differ in at most {100 * _WITHIN:g} point"
    if certificate is None:
        return Goal(what, "no certificate", goal, met=False)
    if certificate["agreement"] is None:
        at_risk = len(certificate["at_risk"])
        return Goal(what, f"no emulation needed, {at_risk} layers at risk", goal, at_risk == 0)
    apart = 1 - certificate["agreement"]
    return Goal(what, f"differ in {100 * apart:.2f} points", goal, apart <= _WITHIN)
