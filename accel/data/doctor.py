"""The calibration doctor: what is wrong with the samples that ranges are measured on."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from accel.data.bind import Bound
from accel.data.preprocessing import mismatches
from accel.report.quantization import Finding, Settling

if TYPE_CHECKING:
    import onnx_ir

Array = npt.NDArray[np.generic]
_FEWEST = 16
_SETTLED = 0.05
"""Half as many samples should give the same scales up to this share."""
_HASHED_BYTES = 2**28
"""Rows of the judged split are compared up to so many bytes; of a larger split, rows at even distances."""
_BATCH = 8


def examine(
    calibration: Bound,
    judged: Bound | None,
    model: onnx_ir.Model,
    samples: int,
    *,
    workspace: Path,
    curve: Sequence[Settling] = (),
) -> tuple[Finding, ...]:
    """Look for what makes calibration samples misleading: wrong preprocessing, copies, leaks, too few, one class.

    Rows are read in small batches. Values are looked at in 32 rows at most, and the judged split is compared up to 256 MB.

    Args:
        calibration: The rows that calibration used are its first ``samples``.
        judged: The rows that results are judged on.
        model: The float model as it was given, with its batch norms if it has any.
        samples: How many rows were used.
        workspace: Folder for instrumented graphs.
        curve: How the scales settled (:attr:`accel.numerics.calibration.Calibrated.curve`).

    Raises:
        RuntimeFailed: The model does not run on the rows.
    """
    rows = min(samples, len(calibration))
    if not rows:
        return ()
    digests = _digests(calibration, np.arange(rows))
    found = [
        *mismatches(calibration, model, rows, workspace),
        _duplicates(digests),
        _leakage(calibration, judged, digests),
        _too_few(rows, len(calibration), curve),
        _one_class(calibration, judged, rows),
    ]
    return tuple(finding for finding in found if finding is not None)


def _duplicates(digests: Sequence[bytes]) -> Finding | None:
    copies = len(digests) - len(set(digests))
    if not copies:
        return None
    share = copies / len(digests)
    return Finding(
        code="duplicates",
        severity="warning" if share > _SETTLED else "info",
        message=f"{copies} of {len(digests)} calibration samples ({share:.0%}) are copies of others.",
        hint="Copies add nothing to the ranges: drop them from the dataset, or use more samples.",
    )


def _leakage(calibration: Bound, judged: Bound | None, digests: Sequence[bytes]) -> Finding | None:
    if judged is None or not len(judged):
        return None
    ours, theirs = _places(calibration, len(digests)), _places(judged, len(judged))
    same = ours is not None and theirs is not None and ours[0] == theirs[0]
    if ours is not None and theirs is not None and same and (shared := len(np.intersect1d(ours[1], theirs[1]))):
        return Finding(
            code="evaluation_leakage",
            severity="warning",
            message=f"{shared} of {len(digests)} calibration samples are among the rows that results are judged on.",
            hint="Give the dataset a split `train`, or let `splits` cut it: results look better on rows they are made with.",
        )
    size = sum(feed.rows.dtype.itemsize * math.prod(feed.rows.shape) for feed in calibration.feeds if feed.rows)
    looked = min(len(judged), max(_HASHED_BYTES // max(size, 1), 1))
    there = set(_digests(judged, np.linspace(0, len(judged) - 1, looked).astype(np.int64)))
    copies = sum(digest in there for digest in digests)
    if not copies:
        return None
    part = "" if looked == len(judged) else f" ({looked:,} of its {len(judged):,} rows were looked at)"
    return Finding(
        code="evaluation_leakage",
        severity="info" if same else "warning",
        message=f"{copies} of {len(digests)} calibration samples have a copy in what results are judged on{part}.",
        hint="Remove copies before the dataset is split: results look better on rows that they are made with.",
    )


def _digests(bound: Bound, index: npt.NDArray[np.int64]) -> list[bytes]:
    """A hash of what each row holds in the columns that are fed, before any step."""
    columns = [feed.rows.select(index) for feed in bound.feeds if feed.rows is not None]
    digests = []
    for start in range(0, len(index), _BATCH):
        parts = [np.ascontiguousarray(rows.take(start, start + _BATCH)) for rows in columns]
        for row in range(len(parts[0])):
            digest = hashlib.sha256()
            for part in parts:
                digest.update(part[row].tobytes())
            digests.append(digest.digest())
    return digests


def _places(bound: Bound, rows: int) -> tuple[object, npt.NDArray[np.int64]] | None:
    """The array that the first column comes from, and which of its rows."""
    column = next((feed.rows for feed in bound.feeds if feed.rows is not None), None)
    if column is None:
        return None
    return column.stored, np.arange(rows) if column.index is None else column.index[:rows]


def _too_few(rows: int, available: int, curve: Sequence[Settling]) -> Finding | None:
    if rows < _FEWEST:
        there = f", and there are only {available}" if available <= rows else ""
        return Finding(
            code="too_few_samples",
            severity="warning",
            message=f"Ranges were measured on {rows} sample{'s' if rows != 1 else ''}{there}.",
            hint="Use at least 16, better 100: `samples`, or a larger split `train`.",
        )
    if not curve or curve[-1].median_change <= _SETTLED:
        return None
    last = curve[-1]
    # Changes fall as a power of the number of samples; with one point only, as errors of a mean do.
    power = 0.5
    if len(curve) > 1 and 0 < last.median_change < curve[0].median_change:
        power = math.log(curve[0].median_change / last.median_change) / math.log(last.samples / curve[0].samples)
    factor = (last.median_change / _SETTLED) ** (1 / min(max(power, 0.25), 2.0))
    needed = math.ceil(last.samples * min(factor, 100.0) / 10) * 10
    return Finding(
        code="too_few_samples",
        severity="warning",
        message=f"The scales had not settled: the last doubling to {last.samples} samples still moved half of them by more "
        f"than {last.median_change:.0%}.",
        hint=f"About {max(needed - rows, 10):,} more samples would do: set `samples` to {max(needed, rows + 10):,}.",
    )


def _one_class(calibration: Bound, judged: Bound | None, rows: int) -> Finding | None:
    target = calibration.target
    if target is None or target.shape or target.dtype.kind not in "biuU" or rows < _FEWEST:
        return None
    seen = Counter(target.take(0, rows).tolist())
    others = judged.target if judged is not None and judged.target is not None else target
    known = Counter(others.take(0, len(others)).tolist()) if not others.shape else Counter()
    known.update(seen)
    total = sum(known.values())
    expected = sum(1 - (1 - count / total) ** rows for count in known.values())
    if len(seen) >= max(expected / 2, 2) or len(known) == 1:
        return None
    names = ", ".join(str(name) for name, _ in seen.most_common(3))
    return Finding(
        code="one_class",
        severity="warning",
        message=f"The {rows} calibration samples cover {len(seen)} of {len(known)} classes (most are of {names}); drawn by "
        f"chance they would cover about {round(expected)}.",
        hint="The rows seem to be ordered by class: shuffle them before the dataset is split, or use `stratify`.",
    )
