"""The portability certificate: layers at risk on processors without VNNI, and what ``portable`` makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantization.bundle import Bundle
from quantization.comparison import drop
from quantization.metrics import Outcome
from quantization.table import Goal, Section, points
from quantization.workbench import Made, Workbench

_WITHIN = 0.001
_NAMED = 12


def run(bench: Workbench, models: Sequence[str], section: Section) -> None:
    """Go through the models."""
    section.begin(
        "Portability: sums of two products in 16 bits",
        ("model", "portable", "safe", "safe on the data", "at risk", "drop, points [95 %]", "with saturation", "changed", "note"),
        "Drop: fp32 minus the file on all samples, as it runs here, and with sums that saturate, by emulation.",
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
        emulated = None if made.error else bench.score(bundle, made.path, saturating=True)
        outcomes = [one.outcome if one is not None else None for one in (scored, emulated)]
        found[portable] = outcomes
        certificate = _certificate(made)
        error = made.error or next((one.error for one in (scored, emulated) if one is not None and one.error), None)
        at_risk = (certificate or {}).get("at_risk")
        section.rows.append(
            (
                bundle.name,
                "yes" if portable else "no",
                (certificate or {}).get("safe"),
                (certificate or {}).get("safe_on_data"),
                None if at_risk is None else f"{len(at_risk)}",
                *(points(None if outcome is None else drop(baseline.outcome, outcome)) for outcome in outcomes),
                None if certificate is None else f"{len(certificate['changed'])}",
                f"failed: {error}" if error else "" if certificate else "the report has no certificate",
            )
        )
        section.figures.setdefault(bundle.name, {})[made.who] = {**made.figures(), "certificate": certificate}
        if at_risk:
            more = f" and {len(at_risk) - _NAMED} more" if len(at_risk) > _NAMED else ""
            section.remarks.append(f"{bundle.name}, {made.who}: at risk: {', '.join(at_risk[:_NAMED])}{more}")
    section.goals.append(_goal(bundle, *found[True]))


def _certificate(made: Made) -> dict[str, Any] | None:
    if not made.report:
        return None
    return (made.report["steps"][-1].get("quantization") or {}).get("portability")


def _goal(bundle: Bundle, plain: Outcome | None, emulated: Outcome | None) -> Goal:
    what, goal = f"{bundle.name}: portable, with and without saturation", f"differ in at most {100 * _WITHIN:g} point"
    if plain is None or emulated is None:
        return Goal(what, "one of them does not run", goal, met=False)
    apart = drop(plain, emulated)
    return Goal(what, f"differ in {points(apart)} points", goal, abs(apart.value) <= _WITHIN)
