"""A comparison as people read it: one row for each model, runtime and setting; as HTML, CSV or Markdown."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import jinja2

from accel.report import AgainstBaseline, Estimate, EvaluatedModel, Measurement
from store.comparison import ComparisonEntry, ComparisonTable, EvaluationEntry

TEMPLATES: Final = Path(__file__).parent / "templates"
_PAGES: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_METRICS: Final = ("f1", "accuracy", "macro_f1", "r2", "rmse", "mae", "agreement", "top5_accuracy")
"""Which metric is shown, of those that were measured: the first of these."""


@dataclass(frozen=True, slots=True)
class Row:
    """One model on one runtime with one batch size and thread count. Unknown is None."""

    model_id: UUID
    name: str
    role: str
    size_bytes: int
    size_ratio: float
    parameters: int
    runtime: str | None
    batch_size: int | None
    threads: int | None
    metric: str | None
    quality: Estimate | None
    drop: Estimate | None
    verdict: str | None
    explanation: str | None
    samples: int | None
    median_ms: float | None
    p90_ms: float | None
    speedup: Estimate | None
    warnings: tuple[str, ...]

    @property
    def shares(self) -> bool:
        """Whether the metric is a share, which is shown in percent."""
        return self.metric in {"accuracy", "f1", "macro_f1", "agreement", "top5_accuracy"}


def rows_of(table: ComparisonTable) -> list[Row]:
    """The rows, in the order of the models."""
    return [row for entry in table.models for row in _rows(entry)]


def _rows(entry: ComparisonEntry) -> list[Row]:
    # Quality depends on the runtime too, so a figure is shown only in the row of the runtime where it was measured.
    latest: dict[str, EvaluationEntry] = {}
    for evaluation in entry.evaluations:
        before = latest.get(evaluation.result.runtime)
        if before is None or evaluation.job_id > before.job_id:
            latest[evaluation.result.runtime] = evaluation
    measured = [measurement.result for measurement in entry.measurements]
    rows = [_row(entry, m.runtime, latest.get(m.runtime), m) for m in measured]
    alone = [runtime for runtime in latest if runtime not in {m.runtime for m in measured}]
    rows += [_row(entry, runtime, latest[runtime], None) for runtime in alone]
    rows.sort(key=lambda row: (row.runtime or "", row.batch_size or 0, row.threads or 0))
    return rows or [_row(entry, None, None, None)]


def _row(
    entry: ComparisonEntry, runtime: str | None, evaluation: EvaluationEntry | None, measured: Measurement | None
) -> Row:
    result = evaluation.result if evaluation else None
    against = result.against_baseline if result else None
    metric, quality = _quality(result, against)
    latency = measured.latency_ms if measured else None
    said = (result.error if result else None, measured.error if measured else None)
    return Row(
        model_id=entry.model_id,
        name=entry.name,
        role=entry.role,
        size_bytes=entry.size_bytes,
        size_ratio=entry.size_ratio,
        parameters=entry.parameters,
        runtime=runtime,
        batch_size=measured.batch_size if measured else None,
        threads=measured.threads if measured else None,
        metric=metric,
        quality=quality,
        drop=against.drop if against else None,
        verdict=against.verdict.outcome if against and against.verdict else None,
        explanation=against.verdict.explanation if against and against.verdict else None,
        samples=result.samples if result else None,
        median_ms=latency.median if latency else None,
        p90_ms=latency.p90 if latency else None,
        speedup=measured.speedup if measured else None,
        warnings=tuple(text for text in said if text) + (measured.warnings if measured else ()),
    )


def _quality(result: EvaluatedModel | None, against: AgainstBaseline | None) -> tuple[str | None, Estimate | None]:
    if result is None:
        return None, None
    if against is not None and against.metric in result.metrics:
        return against.metric, result.metrics[against.metric]
    for metric, estimate in ((name, result.metrics[name]) for name in _METRICS if name in result.metrics):
        return metric, estimate
    return None, None


COLUMNS: Final = (
    "model_id", "name", "role", "size_bytes", "size_ratio", "parameters", "runtime", "batch_size", "threads",
    "metric", "value", "value_low", "value_high", "drop", "drop_low", "drop_high", "verdict", "samples",
    "median_ms", "p90_ms", "speedup", "speedup_low", "speedup_high", "warnings",
)  # fmt: skip


def as_csv(table: ComparisonTable) -> str:
    """Comma-separated values, every figure in full (RFC 4180)."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in rows_of(table):
        writer.writerow(
            (
                row.model_id, _plain(row.name), row.role, row.size_bytes, row.size_ratio, row.parameters, row.runtime,
                row.batch_size, row.threads, row.metric, *_three(row.quality), *_three(row.drop), row.verdict,
                row.samples, row.median_ms, row.p90_ms, *_three(row.speedup), _plain("; ".join(row.warnings)),
            )
        )  # fmt: skip
    return text.getvalue()


def _plain(text: str) -> str:
    # A spreadsheet would run a cell that begins like a formula.
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _three(estimate: Estimate | None) -> tuple[float | None, float | None, float | None]:
    return (estimate.value, estimate.low, estimate.high) if estimate else (None, None, None)


def as_markdown(table: ComparisonTable) -> str:
    """A table for a README or a pull request."""
    head = ("model", "runtime", "batch x threads", "quality", "loss", "verdict", "size", "median", "speed-up")
    lines = [head, ("---",) * 4 + ("---:",) * 1 + ("---",) + ("---:",) * 3]
    for row in rows_of(table):
        setting = f"{row.batch_size} x {row.threads}" if row.batch_size is not None else "—"
        metric = f"{row.metric} {quality(row)}" if row.metric else "—"
        lines.append(
            (
                f"{row.name} ({row.role})" if row.role == "baseline" else row.name,
                row.runtime or "—",
                setting,
                metric,
                loss(row),
                (row.verdict or "—").replace("_", " "),
                f"{size(row.size_bytes)} ({row.size_ratio:.0%})",
                milliseconds(row.median_ms),
                times(row.speedup),
            )
        )
    return "".join("| " + " | ".join(map(_cell, line)) + " |\n" for line in lines)


def _cell(text: str) -> str:
    for character in "\\|`*_<>[]":
        if text.strip(":-"):
            text = text.replace(character, f"\\{character}")
    return " ".join(text.split())


def as_html(table: ComparisonTable) -> str:
    """A page that needs nothing but itself."""
    rows = rows_of(table)
    slowest = max((row.median_ms for row in rows if row.median_ms is not None), default=None)
    largest = max(row.size_bytes for row in rows)
    return _PAGES.get_template("compare.html").render(
        groups=[[row for row in rows if row.model_id == entry.model_id] for entry in table.models],
        models=table.models,
        baseline=next(entry for entry in table.models if entry.model_id == table.baseline_id),
        slowest_ms=slowest,
        largest_bytes=largest,
        size=size,
        milliseconds=milliseconds,
        quality=quality,
        interval=interval,
        loss=loss,
        times=times,
    )


def size(count_bytes: float) -> str:
    """Bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if count_bytes < 1000:  # noqa: PLR2004  (what the units are)
            return f"{count_bytes:.3g} {unit}"
        count_bytes /= 1000
    return f"{count_bytes:.3g} GB"


def milliseconds(value: float | None) -> str:
    """A latency for people."""
    return "—" if value is None else f"{value:.3g} ms"


def quality(row: Row) -> str:
    """The metric's value."""
    if row.quality is None:
        return "—"
    return f"{row.quality.value:.2%}" if row.shares else f"{row.quality.value:.4g}"


def interval(row: Row) -> str:
    """The metric's interval."""
    if row.quality is None or row.quality.low is None or row.quality.high is None:
        return ""
    if row.shares:
        return f"{row.quality.low:.2%} to {row.quality.high:.2%}"
    return f"{row.quality.low:.4g} to {row.quality.high:.4g}"


def loss(row: Row) -> str:
    """What is lost against the baseline: above 0 is worse."""
    if row.drop is None:
        return "—"
    scale, unit = (100, " pt") if row.shares else (1, "")
    text = f"{row.drop.value * scale:+.2f}{unit}"
    if row.drop.low is not None and row.drop.high is not None:
        text += f" ({row.drop.low * scale:+.2f} to {row.drop.high * scale:+.2f})"
    return text


def times(estimate: Estimate | None) -> str:
    """A speed-up with its interval."""
    if estimate is None:
        return "—"
    text = f"{estimate.value:.2f}x"
    if estimate.low is not None and estimate.high is not None:
        text += f" ({estimate.low:.2f} to {estimate.high:.2f})"
    return text
