"""Comparisons as people read them."""

from __future__ import annotations

import csv
import io
import re
from uuid import UUID

import pytest

from accel.evaluation.contract import Contract, Verdict
from accel.report import AgainstBaseline, Estimate, EvaluatedModel, LatencySummary, Measurement
from api import comparison
from store.comparison import ComparisonEntry, ComparisonTable, EvaluationEntry, MeasurementEntry
from tests.api_service import Service, linear

BASE, SMALL, JOB, DATA = (UUID(int=n) for n in (1, 2, 3, 4))


def latency(median: float) -> LatencySummary:
    return LatencySummary(
        count=200, mean=median, median=median, mad=0.01, minimum=median, p90=median * 1.2, p95=None, p99=None
    )


def entry(identity: UUID, name: str, *, size_bytes: int, median: float, drop: Estimate | None) -> ComparisonEntry:
    against = None
    if drop is not None:
        verdict = Verdict(outcome="met", contract=Contract(max_drop=0.02), explanation="It lost <at most> 1 point.")
        against = AgainstBaseline(metric="accuracy", drop=drop, flips=12, p_value=0.2, verdict=verdict)
    evaluated = EvaluatedModel(
        model_id=str(identity),
        runtime="onnxruntime:cpu",
        samples=6000,
        metrics={"accuracy": Estimate(value=0.9, low=0.89, high=0.91)},
        against_baseline=against,
    )
    measured = [
        Measurement(
            model_id=str(identity),
            runtime=runtime,
            batch_size=1,
            threads=1,
            latency_ms=latency(median),
            throughput=1000 / median,
            speedup=Estimate(value=2.0, low=1.9, high=2.1) if drop is not None else None,
            warnings=("It is noisy.",) if runtime == "onnxruntime:openvino" else (),
        )
        for runtime in ("onnxruntime:openvino", "onnxruntime:cpu")
    ]
    return ComparisonEntry(
        model_id=identity,
        name=name,
        role="baseline" if drop is None else "candidate",
        size_bytes=size_bytes,
        size_ratio=size_bytes / 4_000_000,
        parameters=1_000_000,
        macs=None,
        evaluations=(EvaluationEntry(job_id=JOB, dataset_id=DATA, split="test", result=evaluated),),
        measurements=tuple(MeasurementEntry(job_id=JOB, result=one) for one in measured),
    )


@pytest.fixture
def table() -> ComparisonTable:
    return ComparisonTable(
        baseline_id=BASE,
        models=(
            entry(BASE, "resnet|<b>", size_bytes=4_000_000, median=2.0, drop=None),
            entry(
                SMALL, "=cmd()", size_bytes=1_000_000, median=1.0, drop=Estimate(value=0.005, low=-0.001, high=0.011)
            ),
        ),
    )


def test_csv_has_every_figure_in_full(table: ComparisonTable) -> None:
    rows = list(csv.DictReader(io.StringIO(comparison.as_csv(table))))
    assert [(row["role"], row["runtime"]) for row in rows] == [
        ("baseline", "onnxruntime:cpu"),
        ("baseline", "onnxruntime:openvino"),
        ("candidate", "onnxruntime:cpu"),
        ("candidate", "onnxruntime:openvino"),
    ]
    small = rows[2]
    assert small["name"] == "'=cmd()"
    assert (small["value"], small["drop_low"], small["speedup_high"]) == ("0.9", "-0.001", "2.1")
    assert (small["size_ratio"], small["median_ms"], small["verdict"]) == ("0.25", "1.0", "met")
    assert rows[3]["value"] == "", "quality is not known on a runtime where nobody measured it"


def test_markdown_is_one_table(table: ComparisonTable) -> None:
    lines = comparison.as_markdown(table).splitlines()
    assert len(lines) == 2 + 4
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert re.fullmatch(r"[| :-]+", lines[1])
    assert "+0.50 pt (-0.10 to +1.10)" in lines[4]
    assert "2.00x (1.90 to 2.10)" in lines[4]
    assert "1 MB (25%)" in lines[4]


def test_html_needs_nothing_but_itself(table: ComparisonTable) -> None:
    page = comparison.as_html(table)
    assert "resnet|&lt;b&gt;" in page
    assert "&lt;at most&gt;" in page
    assert not re.search(r"<script|<link|https?://|@import|url\(", page)
    for shown in ("90.00%", "+0.50 pt", "2.00x", "1 ms", "It is noisy.", 'class="verdict met"'):
        assert shown in page


def test_by_accept_and_by_format(service: Service) -> None:
    ids = [str(service.upload_model(linear(seed=seed))["id"]) for seed in (31, 32)]
    where = f"/v1/compare?model={ids[0]}&model={ids[1]}&baseline={ids[1]}"
    assert service.http.get(where).json()["baseline_id"] == ids[1]
    for accept, kind, form in (
        ("application/json", "application/json", "json"),
        ("text/html", "text/html; charset=utf-8", "html"),
        ("text/csv", "text/csv; charset=utf-8", "csv"),
        ("text/markdown", "text/markdown; charset=utf-8", "markdown"),
    ):
        by_accept = service.http.get(where, headers={"accept": accept})
        by_format = service.http.get(f"{where}&format={form}", headers={"accept": "image/png"})
        assert (by_accept.status_code, by_accept.headers["content-type"]) == (200, kind)
        assert by_accept.content == by_format.content
    answer = service.http.get(where, headers={"accept": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
    nobody = "01990000-0000-7000-8000-00000000000f"
    assert service.http.get(f"/v1/compare?model={nobody}").status_code == 404
    assert service.http.get("/v1/compare").status_code == 422
