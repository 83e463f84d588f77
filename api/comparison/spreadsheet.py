"""A comparison as comma-separated values."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Final

from accel.report import Estimate, Percentile
from api.comparison.document import Comparison
from api.comparison.rows import Quality, Row, Speed

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001  (as some spreadsheets read)


def as_csv(comparison: Comparison) -> str:
    """Comma-separated values, every figure in full (RFC 4180). Warnings stand in the rows that they concern."""
    sets = {place for one in comparison.pareto for place in one.rows}
    beaten = {one.row for group in comparison.pareto for one in group.dominated}
    lines = [
        {
            **_identity(row),
            **_quality(row.quality),
            **_speed(row.speed),
            "pareto": "yes" if place in sets else "no" if place in beaten else None,
            "recommended": "yes" if place == comparison.advice.row else "no",
            "baseline_id": comparison.baseline_id,
            "warnings": "; ".join([*row.warnings, *(one.text for one in comparison.warnings if place in one.rows)]),
        }
        for place, row in enumerate(comparison.rows)
    ]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(lines[0])
    writer.writerows([_plain(value) if isinstance(value, str) else value for value in line.values()] for line in lines)
    return text.getvalue()


def _plain(text: str) -> str:
    # A spreadsheet would run a cell that begins like a formula.
    return f"'{text}" if text.startswith(_FORMULA) else text


def _identity(row: Row) -> Mapping[str, object]:
    return {
        "model_id": row.model_id,
        "name": row.name,
        "role": row.role,
        "parent_id": row.parent_id,
        "parent_name": row.parent_name,
        "made_by": row.made_by,
        "size_bytes": row.size_bytes,
        "size_ratio": row.size_ratio,
        "parameters": row.parameters,
        "macs": row.macs,
        "runtime": row.runtime,
    }


def _quality(found: Quality | None) -> Mapping[str, object]:
    verdict = found.verdict if found else None
    return {
        "dataset_id": found and found.dataset_id,
        "dataset_name": found and found.dataset_name,
        "split": found and found.split,
        "samples": found and found.samples,
        "metric": found and found.metric,
        **_three("value", found.value if found else None),
        **_three("drop", found.drop if found else None),
        "verdict": verdict and verdict.outcome,
        "max_drop": verdict and verdict.contract.max_drop,
        "samples_needed": verdict and verdict.samples_needed,
        "flips": found and found.flips,
        "lost": found and found.lost,
        "won": found and found.won,
        "p_value": found and found.p_value,
        "not_finite": found and found.not_finite,
        "evaluation_job_id": found and found.job_id,
    }


def _speed(found: Speed | None) -> Mapping[str, object]:
    latency = found.latency_ms if found else None
    server = found.server if found else None
    return {
        "scenario": found and found.scenario,
        "batch_size": found and found.batch_size,
        "threads": found and found.threads,
        "instances": found and found.instances,
        "median_ms": latency and latency.median,
        "median_ms_low": latency and latency.p50.low,
        "median_ms_high": latency and latency.p50.high,
        "mad_ms": latency and latency.mad,
        "p90_ms": _value(latency.p90 if latency else None),
        "p95_ms": _value(latency.p95 if latency else None),
        "p99_ms": _value(latency.p99 if latency else None),
        "throughput_per_s": found and found.throughput,
        **_three("speedup", found.speedup if found else None),
        "server_rate_hz": server and server.rate_hz,
        "server_bound_ms": server and server.bound_ms,
        "load_ms": found and found.load_ms,
        "first_inference_ms": found and found.first_inference_ms,
        "peak_memory_bytes": found and found.peak_memory_bytes,
        "cpu_seconds": found and found.cpu_seconds,
        "energy_joules": found and found.energy_joules,
        "compressed_bytes": found and found.compressed_bytes,
        "environment": found and found.environment,
        "benchmark_job_id": found and found.job_id,
    }


def _three(name: str, estimate: Estimate | None) -> Mapping[str, float | None]:
    value, low, high = (estimate.value, estimate.low, estimate.high) if estimate else (None, None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _value(found: Percentile | None) -> float | None:
    return found.value if found else None
