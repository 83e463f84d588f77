"""Compare a quantized model with what processors without VNNI make of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from accel.evaluation.trial import Trial
from accel.graph.load import load
from accel.graph.saturating import saturating
from accel.graph.temporary import temporary_file
from accel.report import Emulation

_RUNTIME = "onnxruntime:cpu"
_BATCHES = 32
_LARGEST_BATCH = 16
_SAME = 0.99
"""Agreement from where nobody need be told."""
_NOTHING = 1e-3
"""Share of the metric that is no loss: integers and the floats that emulate them are rounded in other places."""


def emulate(trial: Trial, result: Path, workspace: Path) -> Emulation | None:
    """Run a result with exact sums, and with sums of two products that saturate at 16 bits, on a part of the trial's rows.

    Up to 512 rows, fewer where they are large: the emulation takes ten times as long as the model. None where nothing of the
    model can be emulated.

    Args:
        trial: What results are tried on.
        result: A file with QDQ layers.
        workspace: Folder for the graph that emulates; it is removed.

    Raises:
        RuntimeFailed: One of them does not run.
        TooLarge: The graph that emulates does not fit into a file.
    """
    model = load(result)
    other = saturating(model)
    if len(other.graph) == len(model.graph):  # stacks of matrices are at risk, but not emulated
        return None
    part = replace(trial, runtime=_RUNTIME).part(_BATCHES * trial.batch_size(_LARGEST_BATCH))
    plain = part.watch(result, exact=True)
    with temporary_file(other, workspace) as path:
        found = part.compare(result, plain, path, part.watch(path))
    return Emulation(
        samples=found.samples,
        agreement=found.agreement,
        snr_db=found.snr_db,
        metric=found.metric,
        result_metric=found.parent_metric,
        emulated_metric=found.result_metric,
        drop=found.drop,
    )


def elsewhere(emulation: Emulation) -> list[str]:
    """A remark on a result that is not the same on processors without VNNI; none where it is."""
    before, after, drop = emulation.result_metric, emulation.emulated_metric, emulation.drop
    lower = (
        drop is not None
        and drop.low is not None
        and drop.low > 0
        and drop.value >= _NOTHING * (abs(before.value) if before is not None else 1.0)
    )
    if not lower and (emulation.agreement is None or emulation.agreement >= _SAME):
        return []
    said = []
    if emulation.agreement is not None:
        said.append(f"{emulation.agreement:.1%} of the answers on {emulation.samples:,} samples are the same there")
    if before is not None and after is not None:
        said.append(f"{emulation.metric} is {after.value:.4g} there and {before.value:.4g} with it")
    return [
        f"Processors without VNNI give something else: by emulation, {', and '.join(said)}. `portable` of quantize_static mends that."
    ]
