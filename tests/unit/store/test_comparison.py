"""Which figures stand side by side, against which baseline, and where models come from."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy import update

from store import models
from store.comparison import ComparisonTable, compare
from store.database import Database
from store.errors import NotFound
from store.ids import new_id
from store.tables import EvaluationRow, MeasurementRow
from tests import comparisons, rows
from tests.comparisons import CPU, OPENVINO, environment
from tests.measured import child, evaluated, measured


def measure(database: Database, model_ids: list[UUID], *, at: str = "here", ms: float = 1.0, **more: object) -> UUID:
    result = comparisons.measurement(ms, environment=at, **more).result
    return measured(database, dict.fromkeys(model_ids, result), environment(fingerprint=at), ("Busy.",))


def evaluate(database: Database, model_ids: list[UUID], *, runtime: str = CPU, binding: object = None) -> UUID:
    result = comparisons.evaluation(0.9, runtime=runtime).result
    return evaluated(database, dict.fromkeys(model_ids, result), environment(), binding=binding)


def seen(database: Database, model_ids: list[UUID], baseline_id: UUID | None = None) -> ComparisonTable:
    with database.read() as session:
        return compare(session, model_ids, baseline_id)


def timed(table: ComparisonTable, model_id: UUID) -> list[tuple[str, float]]:
    """Environment and median of each measurement of a model."""
    (entry,) = [entry for entry in table.models if entry.model_id == model_id]
    return [(m.environment, m.result.latency_ms.median) for m in entry.measurements if m.result.latency_ms]


def test_the_baseline_is_the_model_that_all_others_were_made_of(database: Database) -> None:
    parent = rows.a_model(database)
    _, small = child(database, parent, "optimize_graph", "quantize_static")
    (half,) = child(database, parent, "convert_float16")
    table = seen(database, [half, small, parent])
    assert (table.baseline_id, table.baseline_choice) == (parent, "common_ancestor")
    assert [entry.model_id for entry in table.models] == [parent, half, small]
    assert [entry.role for entry in table.models] == ["baseline", "candidate", "candidate"]


def test_without_a_common_ancestor_in_the_list_the_baseline_is_the_first(database: Database) -> None:
    parent = rows.a_model(database)
    (half,) = child(database, parent, "convert_float16")
    (small,) = child(database, parent, "quantize_static")
    table = seen(database, [half, small])
    assert (table.baseline_id, table.baseline_choice) == (half, "first")
    assert seen(database, [half]).baseline_choice == "first"


def test_a_baseline_that_is_named_is_taken_and_shown(database: Database) -> None:
    parent = rows.a_model(database)
    (half,) = child(database, parent, "convert_float16")
    other = rows.a_model(database, "other")
    table = seen(database, [parent, half, half], other)
    assert (table.baseline_id, table.baseline_choice) == (other, "named")
    assert [entry.model_id for entry in table.models] == [other, parent, half]
    with pytest.raises(NotFound):
        seen(database, [parent], new_id())


def test_lineage_names_what_made_each_model(database: Database) -> None:
    parent = rows.a_model(database, "net")
    first, second = child(database, parent, "optimize_graph", "quantize_static")
    line = seen(database, [second]).models[0].lineage
    assert [one.model_id for one in line] == [parent, first, second]
    assert [one.technique for one in line] == [None, "optimize_graph", "quantize_static"]
    assert (line[0].name, line[2].parameters) == ("net", {"bits": 8})


def test_lineage_begins_where_an_ancestor_was_deleted(database: Database) -> None:
    parent = rows.a_model(database)
    (small,) = child(database, parent, "quantize_static")
    with database.write() as session:
        models.delete(session, parent)
    entry = seen(database, [small]).models[0]
    assert entry.parent_id is None
    assert [one.technique for one in entry.lineage] == ["quantize_static"]


def test_the_newest_figure_of_an_environment_is_shown(database: Database) -> None:
    both = [rows.a_model(database), rows.a_model(database, "n")]
    measure(database, both, ms=1.0)
    newest = measure(database, both, ms=2.0)
    table = seen(database, both)
    assert [timed(table, one) for one in both] == [[("here", 2.0)], [("here", 2.0)]]
    assert [job.job_id for job in table.jobs] == [newest]
    assert table.jobs[0].environment == environment()
    assert table.jobs[0].warnings == ("Busy.",)


def test_a_figure_beside_the_baseline_goes_before_a_newer_one_without(database: Database) -> None:
    base, small, other = (rows.a_model(database, name) for name in "abc")
    measure(database, [base, small], ms=1.0)
    measure(database, [other, small], ms=2.0)
    assert timed(seen(database, [base, small]), small) == [("here", 1.0)]
    table = seen(database, [small], other)
    assert timed(table, small) == [("here", 2.0)]


def test_an_older_environment_stays_only_while_it_has_a_model_that_newer_ones_lack(database: Database) -> None:
    base, small, half = (rows.a_model(database, name) for name in "abc")
    measure(database, [base, small, half], at="old", ms=1.0)
    measure(database, [base, small], at="new", ms=2.0)
    table = seen(database, [base, small, half])
    assert timed(table, small) == [("new", 2.0), ("old", 1.0)]
    assert timed(table, half) == [("old", 1.0)]
    assert timed(seen(database, [base, small]), small) == [("new", 2.0)]


def test_figures_whose_environment_is_not_known_are_their_job_s_own(database: Database) -> None:
    base, small = rows.a_model(database), rows.a_model(database, "n")
    first, second = measure(database, [base], at=""), measure(database, [base, small], at="")
    table = seen(database, [base, small])
    assert timed(table, small) == [(f"job {second}", 1.0)]
    assert timed(table, base) == [(f"job {second}", 1.0)]
    assert first not in {job.job_id for job in table.jobs}


def test_scenarios_and_bounds_are_settings_of_their_own(database: Database) -> None:
    base = rows.a_model(database)
    measure(database, [base], ms=1.0)
    for bound_ms in (5.0, 50.0):
        server = {"bound_ms": bound_ms, "rate_hz": 9.0, "probes": []}
        measure(database, [base], ms=2.0, scenario="server", server=server)
    assert len(timed(seen(database, [base]), base)) == 3


def test_the_same_split_judged_in_another_way_is_not_mixed_in(database: Database) -> None:
    base, small, half = (rows.a_model(database, name) for name in "abc")
    first = evaluate(database, [base, small, half])
    second = evaluate(database, [base, small], binding={"inputs": {"x": {"column": "y"}}})
    found = seen(database, [base, small, half]).models[1].evaluations
    assert [(e.job_id, e.dataset_name) for e in found] == [(second, "d"), (first, "d")]
    assert len({e.question for e in found}) == 2
    assert [e.job_id for e in seen(database, [base, small]).models[1].evaluations] == [second]


def test_a_question_is_the_same_in_two_runtimes(database: Database) -> None:
    base = rows.a_model(database)
    for runtime in (CPU, OPENVINO):
        evaluate(database, [base], runtime=runtime)
    first, second = seen(database, [base]).models[0].evaluations
    assert first.question == second.question
    assert {first.result.runtime, second.result.runtime} == {CPU, OPENVINO}


def test_a_figure_that_another_version_wrote_is_left_out_and_named(database: Database) -> None:
    base, small = rows.a_model(database), rows.a_model(database, "n")
    evaluated, measured = evaluate(database, [base, small]), measure(database, [base, small])
    with database.write() as session:
        session.execute(update(EvaluationRow).where(EvaluationRow.model_id == small).values(result='{"old": 1}'))
        session.execute(update(MeasurementRow).where(MeasurementRow.model_id == small).values(result='{"old": 1}'))
    table = seen(database, [base, small])
    assert table.unreadable_jobs == (evaluated, measured)
    assert (len(table.models[0].evaluations), table.models[1].evaluations, table.models[1].measurements) == (1, (), ())
