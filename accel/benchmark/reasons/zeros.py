"""Weights that are mostly zeros, multiplied with like any other."""

from __future__ import annotations

from collections.abc import Iterator

from accel.benchmark.reasons.evidence import Evidence
from accel.benchmark.reasons.wording import some, spent, total
from accel.report import SpeedFinding

_MANY = 0.5
_MORE = 0.2
"""A layer has so much more of zeros than in the baseline, or they are no reason for a difference."""
_WORTH = 0.02


def zeros(evidence: Evidence) -> Iterator[SpeedFinding]:
    """Layers of which half of the weights or more became zeros, with what they take here and in the baseline."""
    before = evidence.before.zeros
    # A layer that has another name now, as quantizing gives it, is held against all of the baseline.
    whole = (sum(size for size, _ in before.values()), sum(zero for _, zero in before.values()))
    sparse = {
        layer: counts
        for layer, counts in evidence.after.zeros.items()
        if _share(counts) >= max(_MANY, _share(before.get(layer, whole)) + _MORE)
    }
    kernels = [kernel for kernel in evidence.after.kernels if evidence.after.layers.of(kernel) in sparse]
    ms = total(kernels)
    if not kernels or evidence.share(ms) < _WORTH:
        return
    dense_ms = total(kernel for kernel in evidence.before.kernels if evidence.before.layers.of(kernel) in sparse)
    share = sum(zero for _, zero in sparse.values()) / sum(size for size, _ in sparse.values())
    yield SpeedFinding(
        kind="zeros_unused",
        share=evidence.share(ms),
        nodes=some(kernels),
        text=f"{share:.0%} of the weights of {len(sparse)} layer{'s' if len(sparse) > 1 else ''} are zeros, and no kernel here "
        f"skips them: {spent(ms)}{f', and {spent(dense_ms)} in the baseline' if dense_ms else ''}. Zeros make a file that packs "
        "better; to be faster, whole channels must go.",
    )


def _share(counts: tuple[int, int]) -> float:
    return counts[1] / counts[0] if counts[0] else 0.0
