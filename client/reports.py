"""Reports of jobs as people read them: tables, and below them what casts doubt on the figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from client.values import Job

Json = Mapping[str, Any]

_POINTS = frozenset(
    {"accuracy", "top2_accuracy", "top3_accuracy", "top5_accuracy", "top10_accuracy", "macro_f1", "f1", "exact_match",
     "agreement"}
)  # fmt: skip
"""Metrics that are shares: shown in percent, and their differences in points."""


def readable(job: Job) -> RenderableType | None:
    """A finished job's report as tables; None where its JSON is all there is."""
    if job.report is None:
        return None
    match job.kind:
        case "evaluate":
            return Group(*_evaluation(job.report))
        case "benchmark" if job.report.get("preflight"):
            return Group(*_preflight(job.report["preflight"]))
        case "benchmark":
            return Group(*_benchmark(job.report))
        case "train":
            return Group(*_training(job.report))
        case _:
            return None


def _evaluation(report: Json) -> Iterator[RenderableType]:
    yield Text(f"On the split {report['split']!r}; brackets hold 95 % intervals; a loss above 0 is worse.")
    for one in report["models"]:
        against = one["against_baseline"]
        verdict = (against or {}).get("verdict")
        told = [*([_settled(verdict)] if verdict else []), *one["warnings"]]
        if one["error"] is None:
            yield _quality(one, against)
            if one["robustness"]:
                yield _robustness(one["robustness"])
        yield from _lines(one["model_id"], told if one["error"] is None else [one["error"]])
    yield from _lines("note", report["notes"])


def _quality(one: Json, against: Json | None) -> Table:
    flips = (
        f"; {against['lost']:,} samples lost, {against['won']:,} won" if against and against["lost"] is not None else ""
    )
    reused = ", predictions kept earlier" if one["reused"] else ""
    title = f"{one['model_id']}\n{one['runtime']}, {one['samples']:,} samples{reused}{flips}"
    table = _table(title, "metric")
    for heading in ("value", "baseline" if against is None else "loss"):
        table.add_column(heading, justify="right", overflow="fold")
    drops = {} if against is None else against["drops"] or {against["metric"]: against["drop"]}
    for metric, found in one["metrics"].items():
        loss = _difference(metric, drops[metric]) if drops.get(metric) else "-" if against else ""
        _row(table, metric, _metric(metric, found), loss)
    return table


def _settled(verdict: Json) -> str:
    return f"{str(verdict['outcome']).replace('_', ' ')}: {verdict['explanation']}"


def _robustness(rows: Sequence[Json]) -> Table:
    table = _table("The same on corrupted samples", "corruption")
    for heading in ("value", "lost to it", "loss against the baseline", "more than on clean ones"):
        table.add_column(heading, justify="right", overflow="fold")
    for found in rows:
        metric = found["metric"]
        _row(
            table,
            f"{found['corruption']} {found['severity']}",
            f"{metric} {_metric(metric, found['value'])}",
            _plain(metric, found["lost_to_corruption"], signed=True),
            _difference(metric, found["drop"]) if found["drop"] else "-",
            _difference(metric, found["excess"]) if found["excess"] else "-",
        )
    return table


def _benchmark(report: Json) -> Iterator[RenderableType]:
    numbers = _numbers(one["model_id"] for one in report["measurements"])
    yield from _lines("models", [f"{number} is {model_id}" for model_id, number in numbers.items()])
    table = _table("Against the baseline; brackets hold 95 % intervals", "model", "runtime", "setting")
    for heading in ("median", "p99", "samples/s", "speed-up", "memory"):
        table.add_column(heading, justify="right", overflow="fold")
    for one in report["measurements"]:
        latency, memory = one["latency_ms"], one["peak_memory_bytes"]
        _row(
            table,
            numbers[one["model_id"]],
            one["runtime"],
            _setting(one),
            "failed" if one["error"] else f"{latency['median']:.3f} ms" if latency else "-",
            _percentile(latency["p99"]) if latency else "-",
            _throughput(one),
            "baseline" if one["model_id"] == report["baseline_id"] else _interval(one["speedup"], "x"),
            f"{memory / 1e6:,.0f} MB" if memory else "-",
        )
    yield table
    for one in report["measurements"]:
        told = [one["error"]] if one["error"] else [*one["warnings"], *(reason["text"] for reason in one["why"])]
        yield from _lines(f"{numbers[one['model_id']]} by {one['runtime']}, {_setting(one)}", told)
    yield from _lines("all figures", report["warnings"])
    where = report["environment"]
    yield Text(f"Measured on {where['cpu']}, {where['cores']} cores.")


def _setting(one: Json) -> str:
    parts = [str(one["scenario"]), f"batch {one['batch_size']}", _count(one["threads"], "thread")]
    if one["instances"] > 1:
        parts.append(_count(one["instances"], "process", "es"))
    return ", ".join(parts)


def _throughput(one: Json) -> str:
    server = one["server"]
    if server is None:
        return f"{one['throughput']:,.1f}" if one["throughput"] else "-"
    bound = f"p99 under {server['bound_ms']:g} ms"
    return f"{server['rate_hz']:,.1f}/s ({bound})" if server["rate_hz"] else f"no rate ({bound})"


def _percentile(found: Json) -> str:
    if found["value"] is None:
        return f"needs {found['samples_needed']:,} samples" if found["samples_needed"] else "-"
    return f"{found['value']:.3f} ms"


def _preflight(found: Sequence[Json]) -> Iterator[RenderableType]:
    numbers = _numbers(one["model_id"] for one in found)
    yield from _lines("models", [f"{number} is {model_id}" for model_id, number in numbers.items()])
    table = _table("What to expect here; nothing was timed", "model", "runtime")
    for heading in ("int8 share of MACs", "speed-up", "size", "stays in float"):
        table.add_column(heading, justify="right", overflow="fold")
    for one in found:
        share = one["int8_share"]
        _row(
            table,
            numbers[one["model_id"]],
            one["runtime"],
            "-" if share is None else f"{share:.0%}",
            _interval(one["expected_speedup"], "x"),
            f"{one['size_bytes'] / 1e6:.2f} to {one['expected_size_bytes'] / 1e6:.2f} MB",
            ", ".join(f"{each['count']} {each['operator']}" for each in one["stays_float"]) or "nothing",
        )
    yield table
    for one in found:
        reasons = [f"{each['operator']} stays in float: {each['reason']}" for each in one["stays_float"]]
        told = [one["advice"], *one["known_failures"], *reasons]
        yield from _lines(f"{numbers[one['model_id']]} by {one['runtime']}", told)


def _numbers(model_ids: Iterable[str]) -> dict[str, str]:
    """Short names of models, since ids fill a terminal."""
    return {model_id: str(number) for number, model_id in enumerate(dict.fromkeys(model_ids), 1)}


def _training(report: Json) -> Iterator[RenderableType]:
    metric = report["metric"]
    value = f", {metric} {_metric(metric, report['value'])}" if metric and report["value"] else ""
    yield Text(
        f"{report['model_id']}: {report['parameters_trained']:,} parameters trained on {report['train_rows']:,} rows of "
        f"{report['trained_on']!r}{value} on {report['validation_rows']:,} rows of {report['validated_on']!r}; "
        f"{report['seconds']:.1f} s, ended by {report['stopped_because']}."
    )
    table = _table("Epoch by epoch", "epoch")
    for heading in ("loss", "validation loss", metric or "metric", "learning rate", "samples/s", "seconds"):
        table.add_column(heading, justify="right", overflow="fold")
    for point in report["curve"]:
        _row(
            table,
            f"{point['epochs']:g}{' *' if point['best'] else ''}",
            *(
                "-" if point[key] is None else f"{point[key]:.4f}"
                for key in ("train_loss", "validation_loss", "metric")
            ),
            f"{point['learning_rate']:.3g}",
            "-" if point["samples_per_second"] is None else f"{point['samples_per_second']:,.0f}",
            f"{point['seconds']:.1f}",
        )
    yield table
    yield from _lines("note", report["notes"])


def _table(title: str, *headings: str) -> Table:
    table = Table(title=Text(title))
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _row(table: Table, *cells: str) -> None:
    table.add_row(*map(Text, cells))  # texts, since brackets in a string are markup


def _lines(about: str, texts: Sequence[str]) -> Iterator[Text]:
    for text in texts:
        yield Text(f"{about}: {text}")


def _metric(metric: str, found: Json) -> str:
    low, high = found["low"], found["high"]
    within = f" [{_plain(metric, low)}, {_plain(metric, high)}]" if low is not None and high is not None else ""
    return f"{_plain(metric, found['value'])}{within}"


def _plain(metric: str, value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return "-"
    if metric not in _POINTS:
        return f"{value:+.4g}" if signed else f"{value:.4g}"
    return f"{100 * value:+.2f} points" if signed else f"{value:.2%}"


def _difference(metric: str, found: Json) -> str:
    """A loss with its interval; above 0 is worse."""
    low, high = found["low"], found["high"]
    scale, unit, form = (100, " points", "+.2f") if metric in _POINTS else (1, "", "+.3g")
    within = f" [{scale * low:{form}}, {scale * high:{form}}]" if low is not None and high is not None else ""
    value = found["value"]
    return "-" if value is None else f"{scale * value:{form}}{unit}{within}"


def _interval(found: Json | None, unit: str) -> str:
    if found is None or found["value"] is None:
        return "-"
    low, high = found["low"], found["high"]
    within = f" [{low:.2f}, {high:.2f}]" if low is not None and high is not None else ""
    return f"{found['value']:.2f}{unit}{within}"


def _count(number: int, what: str, plural: str = "s") -> str:
    return f"{number} {what}{plural if number > 1 else ''}"
