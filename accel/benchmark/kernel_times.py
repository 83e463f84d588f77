"""The file of ONNX Runtime's profiler: runs with their kernels, summed up as a table and cut down to a trace."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from accel.report import OperatorTime, Profile

TRACE_BYTES = 5_000_000
"""A browser still opens a trace of this size at once."""
LAYERS = 30
_TRACED_RUNS = 3
_SUFFIX = "_kernel_time"
_EXECUTOR = "SequentialExecutor::Execute"
_RUN = "model_run"
_US_PER_MS = 1e3


@dataclass(frozen=True, slots=True)
class Span:
    """An event of the profiler: one kernel, one graph or one run, from when to when in whole microseconds."""

    name: str
    category: str
    start_us: int
    duration_us: int
    process: int
    thread: int
    details: str
    """What the trace shows of it besides, as JSON."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One call of one kernel."""

    node: str
    index: str
    operator: str
    provider: str
    own_us: int
    """Without the kernels of a sub-graph that it ran."""
    activation_bytes: int


@dataclass(slots=True)
class Run:
    """One run of a model."""

    duration_us: int = 0
    kernels: list[Kernel] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)


def read(lines: Iterable[str]) -> Iterator[Run]:
    """The runs in a file of the profiler, which has an event on each line.

    The profiler writes an event when it ends, so that what an If, Loop or Scan ran comes before the node itself: its time
    is taken off there. Whatever lies outside of a complete run is left out.
    """
    run, nesting = Run(), _Nesting()
    for line in lines:
        try:
            event = json.loads(line.rstrip().rstrip(","))
        except ValueError:  # the brackets around, and the last line of a file that was cut off
            continue
        if not isinstance(event, dict) or event.get("ph") != "X":
            continue
        span = _span(event)
        run.spans.append(span)
        if span.category == "Node" and event["name"].endswith(_SUFFIX):
            run.kernels.append(_kernel(event["args"], span, nesting.own(span)))
        elif span.name == _EXECUTOR:
            nesting.close(span)
        elif span.name == _RUN:
            run.duration_us = span.duration_us
            yield run
            run, nesting = Run(), _Nesting()


class _Nesting:
    """Which kernels ran inside which."""

    def __init__(self) -> None:
        self._open: list[tuple[int, int]] = []
        """Start and duration of the kernels whose graph has not ended yet."""
        self._graphs: list[tuple[int, int]] = []
        """Start of sub-graphs that have ended, and the time of their kernels; their node has not ended yet."""

    def own(self, span: Span) -> int:
        inside = 0
        while self._graphs and self._graphs[-1][0] >= span.start_us:
            inside += self._graphs.pop()[1]
        self._open.append((span.start_us, span.duration_us))
        return max(0, span.duration_us - inside)

    def close(self, graph: Span) -> None:
        total = 0
        while self._open and self._open[-1][0] >= graph.start_us:
            total += self._open.pop()[1]
        self._graphs.append((graph.start_us, total))


def _span(event: Mapping[str, Any]) -> Span:
    arguments = event.get("args", {})
    shown = {
        key: arguments[key]
        for key in ("op_name", "provider", "input_type_shape", "output_type_shape")
        if key in arguments
    }
    return Span(
        name=event["name"].removesuffix(_SUFFIX),
        category=event["cat"],
        start_us=event["ts"],
        duration_us=event["dur"],
        process=event["pid"],
        thread=event["tid"],
        details=json.dumps(shown, separators=(",", ":")),
    )


def _kernel(arguments: Mapping[str, str], span: Span, own_us: int) -> Kernel:
    return Kernel(
        node=span.name,
        index=arguments.get("node_index", ""),
        operator=arguments.get("op_name", ""),
        provider=arguments.get("provider", ""),
        own_us=own_us,
        activation_bytes=int(arguments.get("activation_size", 0)) + int(arguments.get("output_size", 0)),
    )


@dataclass(slots=True)
class _Sums:
    """Of one operator or node in each run."""

    calls: list[int]
    us: list[int]
    activation_bytes: list[int]


class Summary:
    """Sums over runs, taken in one after the other, since all of them may not fit into memory."""

    def __init__(self) -> None:
        self._durations_us: list[int] = []
        self._operators: dict[tuple[str, ...], _Sums] = {}
        self._nodes: dict[tuple[str, ...], _Sums] = {}

    def add(self, run: Run) -> None:
        """Take in a run."""
        self._durations_us.append(run.duration_us)
        runs = len(self._durations_us)
        for kernel in run.kernels:
            kind = kernel.operator, kernel.provider
            for table, key in ((self._operators, kind), (self._nodes, (*kind, kernel.node, kernel.index))):
                sums = table.setdefault(key, _Sums([], [], []))
                for values, value in (
                    (sums.calls, 1),
                    (sums.us, kernel.own_us),
                    (sums.activation_bytes, kernel.activation_bytes),
                ):
                    values.extend([0] * (runs - len(values)))
                    values[-1] += value

    def profile(self) -> Profile | None:
        """The table; None without a run."""
        if not self._durations_us:
            return None
        total = sum(self._median(sums.us) for sums in self._operators.values())
        operators = [self._row(key[0], key, sums, total) for key, sums in self._operators.items()]
        layers = [self._row(key[2], key, sums, total) for key, sums in self._nodes.items()]
        return Profile(
            runs=len(self._durations_us),
            run_ms=statistics.median(self._durations_us) / _US_PER_MS,
            operators=tuple(sorted(operators, key=_most_expensive)),
            layers=tuple(sorted(layers, key=_most_expensive)[:LAYERS]),
        )

    def _row(self, name: str, key: tuple[str, ...], sums: _Sums, total_us: float) -> OperatorTime:
        us = self._median(sums.us)
        return OperatorTime(
            name=name,
            operator=key[0],
            provider=key[1],
            calls=round(self._median(sums.calls)),
            milliseconds=us / _US_PER_MS,
            share=us / total_us if total_us else 0.0,
            activation_bytes=round(self._median(sums.activation_bytes)),
        )

    def _median(self, values: Sequence[int]) -> float:
        """Over all runs; it took no time where it did not occur."""
        return statistics.median([*values, *[0] * (len(self._durations_us) - len(values))])


def _most_expensive(row: OperatorTime) -> tuple[float, str]:
    return -row.milliseconds, row.name


def trace(runs: Sequence[Run], limit: int = TRACE_BYTES) -> str:
    """The last runs as Chrome's trace events, which chrome://tracing and Perfetto open.

    Where they are too long, first shapes are left out, then runs, then the shortest kernels; names and times stay.

    Args:
        runs: The last of them are shown, three at most.
        limit: Bytes that the text may have.
    """
    for count in range(min(_TRACED_RUNS, len(runs)), 0, -1):
        for details in (True, False):
            text = _document([span for run in runs[-count:] for span in run.spans], details=details)
            if len(text.encode()) <= limit:
                return text
    spans = sorted(runs[-1].spans, key=lambda span: -span.duration_us) if runs else []
    text = _document(spans, details=False)
    while len(text.encode()) > limit and spans:
        spans = spans[: min(len(spans) - 1, int(len(spans) * limit / len(text.encode())))]
        text = _document(spans, details=False)
    return text


def _document(spans: Sequence[Span], *, details: bool) -> str:
    events = ",\n".join(
        f'{{"ph":"X","cat":{json.dumps(span.category)},"name":{json.dumps(span.name)},"ts":{span.start_us},'
        f'"dur":{span.duration_us},"pid":{span.process},"tid":{span.thread},"args":{span.details if details else "{}"}}}'
        for span in spans
    )
    return f'{{"displayTimeUnit":"ms","traceEvents":[\n{events}\n]}}\n'
