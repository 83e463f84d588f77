"""Comparisons as people and programs read them."""

from __future__ import annotations

import csv
import html
import io
import re
from uuid import UUID

import pytest

from accel.evaluation.contract import Contract, Verdict
from api.comparison import Comparison, as_csv, as_html, as_markdown, comparison_of
from store.comparison import ComparisonTable
from tests.api_service import Service, linear
from tests.comparisons import BASE, CPU, MET, OPENVINO, SMALL, baseline, entry, evaluation, job, measurement, table

HOSTILE = "=cmd|<script>alert(1)</script>\"' \u202etxt`*"


@pytest.fixture
def both() -> ComparisonTable:
    """Two models on two runtimes; quality is known on one of them."""
    return table(
        baseline(
            "resnet|<b>",
            measurements=(measurement(2.0), measurement(2.0, runtime=OPENVINO, warnings=("It is noisy.",))),
        ),
        entry(
            SMALL,
            "=cmd()",
            evaluations=(evaluation(0.895, drop=0.005, verdict=MET),),
            measurements=(measurement(1.0, speedup=2.0), measurement(1.0, speedup=2.0, runtime=OPENVINO)),
        ),
    )


def mixed() -> Comparison:
    """The candidate was measured on another host than the baseline."""
    there = UUID(int=9)
    return comparison_of(
        table(
            baseline(),
            entry(
                SMALL,
                "small",
                evaluations=(evaluation(0.895, drop=0.005, verdict=MET),),
                measurements=(measurement(0.5, speedup=2.0, environment="there", job_id=there),),
            ),
            jobs=(job(), job(there, cpu="EPYC", cores=8, libraries={"onnxruntime": "1.33.0"}, fingerprint="there")),
        )
    )


def test_csv_has_every_figure_in_full(both: ComparisonTable) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(comparison_of(both)))))
    assert [(row["role"], row["runtime"]) for row in rows] == [
        ("baseline", CPU), ("baseline", OPENVINO), ("candidate", CPU), ("candidate", OPENVINO)
    ]  # fmt: skip
    small = rows[2]
    assert small["name"] == "'=cmd()"
    assert (small["value"], small["drop_low"], small["speedup_high"]) == ("0.895", "-0.001", "2.1")
    assert (small["size_ratio"], small["median_ms"], small["verdict"]) == ("0.25", "1.0", "met")
    assert (small["median_ms_low"], small["p90_ms"], small["p99_ms"]) == ("0.98", "1.2", "")
    assert (small["made_by"], small["parent_name"]) == ("resnet + quantize_static", "resnet")
    assert (small["lost"], small["won"], small["pareto"], small["recommended"]) == ("8", "4", "yes", "yes")
    assert rows[3]["value"] == "", "quality is not known on a runtime where nobody measured it"
    assert rows[3]["pareto"] == ""


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d"])
def test_no_cell_of_the_csv_begins_like_a_formula(start: str) -> None:
    named = table(baseline(f"{start}1+1", evaluations=(evaluation(0.9, split=f"{start}x"),)))
    (row,) = csv.DictReader(io.StringIO(as_csv(comparison_of(named)), newline=""))
    for column in ("name", "made_by", "split"):
        assert row[column].startswith(f"'{start}")


def test_markdown_is_one_table(both: ComparisonTable) -> None:
    text = as_markdown(comparison_of(both))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert re.fullmatch(r"[| :-]+", lines[1])
    assert "+0.50 pt (−0.10 to +1.10)" in lines[4]  # noqa: RUF001
    assert "2.00× (1.90 to 2.10)" in lines[4]  # noqa: RUF001
    assert "1 MB (25%)" in lines[4]
    assert lines[4].startswith("| ★ =cmd()")
    assert text.startswith(r"**Take =cmd() on onnxruntime:cpu: ")


def test_markdown_shows_names_as_they_are() -> None:
    text = as_markdown(comparison_of(table(baseline(f"{HOSTILE}\n| x | [a](javascript:x) <img> __b__ ~~s~~ &lt;"))))
    assert "\u202e" not in text
    row = next(line for line in text.splitlines() if "script" in line and line.startswith("|"))
    assert not re.search(r"(?<!\\)[<>\[\]`*_~&]", row)
    assert len(re.findall(r"(?<!\\)\|", row)) == 11


def test_the_page_needs_nothing_but_itself(both: ComparisonTable) -> None:
    page = as_html(comparison_of(both))
    assert "resnet|&lt;b&gt;" in page
    assert "&lt;at most&gt;" in page
    assert "&lt;i&gt;cat" in page
    assert not re.search(r"<script|<link|https?://|@import|url\(|javascript:|\son\w+=", page)
    for shown in ("90.00%", "+0.50 pt", "2.00×", "1 ms", "It is noisy.", "Which classes changed"):  # noqa: RUF001
        assert shown in page
    assert page.index("Take =cmd()") < page.index("<svg") < page.index("<table")


def test_everything_on_the_page_is_escaped() -> None:
    named = table(
        baseline(HOSTILE),
        entry(
            SMALL,
            HOSTILE,
            evaluations=(evaluation(0.8, drop=0.1, split=HOSTILE),),
            measurements=(measurement(None, error=HOSTILE, warnings=(HOSTILE,)), measurement(1.0, runtime=OPENVINO)),
            steps=(("quantize_static", {"nodes": HOSTILE}),),
        ),
        jobs=(job(cpu=HOSTILE, warnings=(HOSTILE,)),),
    )
    page = as_html(comparison_of(named))
    assert "<script" not in page
    assert "\"' \u202e" not in page, "quotes would end an attribute"
    assert html.escape(HOSTILE, quote=False)[:30] in page
    sentence = re.search(r'class="headline"><bdi>(.*?)</bdi>', page)
    assert sentence
    assert "\u202e" not in sentence[1], "the sentence would be turned round"


def test_figures_of_two_environments_are_never_side_by_side_silently() -> None:
    found = mixed()
    (doubt,) = [one for one in found.warnings if one.kind == "environments_differ"]
    assert {one.what for one in doubt.differences} == {"processor", "cores", "onnxruntime"}
    names = {host.fingerprint: host.name for host in found.environments}
    assert doubt.differences[0].values == {names["there"]: "EPYC", names["here"]: "Xeon"}
    assert doubt.rows == (0, 1)
    page, rows = as_html(found), list(csv.DictReader(io.StringIO(as_csv(found))))
    for text in (page, as_markdown(found), *(row["warnings"] for row in rows)):
        assert "Speed was measured in 2 environments" in text
        assert "EPYC" in text
        assert "1.33.0" in text
    assert {row["environment"] for row in rows} == {"here", "there"}
    assert [len(one.rows) for one in found.pareto] == [1, 1], "no Pareto set mixes them"
    assert page.count('<section class="view">') == 2


def test_environments_that_were_not_recorded_are_said_to_be_unknown() -> None:
    unknown = job().model_copy(update={"environment": None})
    other = UUID(int=9)
    rows = (baseline(measurements=(measurement(2.0, environment="job 3"),)),)
    lone = entry(SMALL, "small", measurements=(measurement(1.0, environment="job 9", job_id=other),))
    found = comparison_of(table(*rows, lone, jobs=(unknown, unknown.model_copy(update={"job_id": other}))))
    assert "nobody can say whether they are the same" in found.warnings[0].text
    assert "was not recorded" in as_html(found)


def test_quality_of_another_processor_is_warned_of() -> None:
    there = UUID(int=9)
    judged = entry(SMALL, "small", evaluations=(evaluation(0.895, drop=0.005, job_id=there),))
    found = comparison_of(table(baseline(), judged, jobs=(job(), job(there, cpu="EPYC", fingerprint="there"))))
    assert [one.kind for one in found.warnings] == ["processors_differ"]


def test_splits_are_shown_apart_and_share_no_pareto_set() -> None:
    small = entry(
        SMALL,
        "small",
        evaluations=(evaluation(0.895, drop=0.005), evaluation(0.7, drop=0.1, split="hard")),
        measurements=(measurement(1.0, speedup=2.0),),
    )
    found = comparison_of(table(baseline(evaluations=(evaluation(0.9), evaluation(0.8, split="hard"))), small))
    assert [one.kind for one in found.warnings] == ["splits_differ"]
    assert sorted((one.split, one.rows) for one in found.pareto) == [("hard", (1, 3)), ("test", (0, 2))]
    assert as_html(found).count('<section class="view">') == 2
    assert "### Hard split of digits" in as_markdown(found)


def test_the_same_split_judged_in_two_ways_is_shown_apart() -> None:
    small = entry(SMALL, "small", evaluations=(evaluation(0.895, drop=0.005, question="other"),))
    found = comparison_of(table(baseline(), small))
    assert [one.kind for one in found.warnings] == ["judged_differently"]


def test_what_was_measured_against_another_baseline_has_no_loss_and_no_speed_up() -> None:
    other = UUID(int=8)
    small = entry(
        SMALL,
        "small",
        evaluations=(evaluation(0.895, drop=0.005, verdict=MET, baseline_id=other),),
        measurements=(measurement(1.0, speedup=2.0, baseline_id=other),),
    )
    found = comparison_of(table(baseline(), small))
    row = found.rows[1]
    assert row.quality is not None
    assert row.speed is not None
    assert (row.quality.value is not None, row.quality.drop, row.quality.verdict) == (True, None, None)
    assert (row.speed.latency_ms is not None, row.speed.speedup) == (True, None)
    assert [one.kind for one in found.warnings] == ["other_baseline"]
    assert found.advice.row is None


def test_models_of_one_name_are_told_apart_by_what_differs() -> None:
    made = [entry(UUID(int=n), "twin", steps=(("quantize_static", {"samples": 100 * n, "seed": 0}),)) for n in (2, 3)]
    found = comparison_of(table(baseline(), *made))
    assert [row.made_by for row in found.rows] == [
        "resnet",
        "resnet + quantize_static (samples: 200)",
        "resnet + quantize_static (samples: 300)",
    ]
    assert "resnet + quantize_static (samples: 200)" in as_html(found)


def test_what_is_not_measured_is_a_dash() -> None:
    found = comparison_of(table(baseline(evaluations=(), measurements=()), entry(SMALL, "small"), jobs=()))
    assert (found.advice.row, found.advice.reason, found.pareto) == (None, "not_compared", ())
    assert "not measured yet" in as_html(found)
    assert "| — | — |" in as_markdown(found)
    assert len(list(csv.DictReader(io.StringIO(as_csv(found))))) == 2


def test_a_candidate_that_failed_is_a_row_with_the_reason() -> None:
    small = entry(SMALL, "small", measurements=(measurement(None),))
    found = comparison_of(table(baseline(), small))
    assert found.rows[1].warnings == ("Its speed could not be measured: It crashed.",)
    assert "It crashed." in as_html(found)
    assert "Not in the plots" in as_html(found)


def test_the_metric_is_the_same_for_all_rows_where_they_all_have_it() -> None:
    first, second = evaluation(0.9), evaluation(0.3, metric="mae", drop=0.1)
    found = comparison_of(table(baseline(evaluations=(first,)), entry(SMALL, "small", evaluations=(second,))))
    assert [row.quality and row.quality.metric for row in found.rows] == ["accuracy", "mae"]
    result = second.result.model_copy(update={"metrics": {**second.result.metrics, **first.result.metrics}})
    both_metrics = second.model_copy(update={"result": result})
    found = comparison_of(table(baseline(evaluations=(first,)), entry(SMALL, "small", evaluations=(both_metrics,))))
    assert [row.quality and row.quality.metric for row in found.rows] == ["accuracy", "accuracy"]
    assert found.rows[1].quality
    assert found.rows[1].quality.drop is None, "the loss of another metric is not this one's"


def test_the_page_of_other_scenarios() -> None:
    server = {"scenario": "server", "server": {"bound_ms": 10, "rate_hz": 50.0, "probes": []}}
    offline = {"scenario": "offline", "instances": 2}
    for more, words in ((server, "50 requests/s"), (offline, "1,000 samples/s")):
        small = entry(
            SMALL,
            "small",
            evaluations=(evaluation(0.895, drop=0.005, verdict=MET),),
            measurements=(measurement(1.0, speedup=2.0, **more),),
        )
        found = comparison_of(table(baseline(measurements=(measurement(2.0, **more),)), small))
        assert found.pareto[0].objectives[1].direction == "maximise"
        assert words in as_html(found)


def test_a_verdict_that_is_open_says_what_would_settle_it() -> None:
    verdict = Verdict(outcome="inconclusive", contract=Contract(), explanation="Open.", samples_needed=12_000)
    small = entry(SMALL, "small", evaluations=(evaluation(0.895, drop=0.005, verdict=verdict),))
    found = comparison_of(table(baseline(), small))
    assert (found.advice.row, found.advice.reason) == (None, "none_met")
    assert "about 12,000 samples would tell" in found.advice.headline


def test_by_accept_and_by_format(service: Service) -> None:
    ids = [str(service.upload_model(linear(seed=seed))["id"]) for seed in (31, 32)]
    where = f"/v1/compare?model={ids[0]}&model={ids[1]}&baseline={ids[1]}"
    answer = service.http.get(where).json()
    assert (answer["baseline_id"], answer["baseline_choice"]) == (ids[1], "named")
    assert Comparison.model_validate(answer).baseline_id == UUID(ids[1])
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
    policy = service.http.get(where, headers={"accept": "text/html"}).headers["content-security-policy"]
    assert "script-src" not in policy
    assert "default-src 'none'" in policy
    answer = service.http.get(where, headers={"accept": "image/png"})
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
    nobody = "01990000-0000-7000-8000-00000000000f"
    assert service.http.get(f"/v1/compare?model={nobody}").status_code == 404
    assert service.http.get("/v1/compare").status_code == 422


def test_the_baseline_is_always_first(both: ComparisonTable) -> None:
    assert comparison_of(both).rows[0].model_id == BASE
