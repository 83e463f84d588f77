"""A comparison as JSON, which the other forms are made of."""

from __future__ import annotations

from pydantic import Field

from api.comparison.advice import Advice, advise, first_view
from api.comparison.doubts import Doubt, Host, doubts_of, hosts_of
from api.comparison.pareto import ParetoSet, pareto_sets
from api.comparison.rows import Row, rows_of
from api.comparison.views import views_of
from store.comparison import ComparisonTable


class Comparison(ComparisonTable):
    """Models side by side: rows with the figures, what they amount to, and in `models` everything that was measured."""

    advice: Advice
    warnings: tuple[Doubt, ...]
    rows: tuple[Row, ...] = Field(description="One for each model, split, runtime and setting; the baseline first.")
    pareto: tuple[ParetoSet, ...] = Field(
        description="One for each group of rows of the same split, runtime, setting and environment."
    )
    environments: tuple[Host, ...]


def comparison_of(table: ComparisonTable) -> Comparison:
    """Rows, Pareto sets, advice and warnings of what was measured."""
    rows = rows_of(table)
    hosts = hosts_of(table)
    return Comparison(
        baseline_id=table.baseline_id,
        baseline_choice=table.baseline_choice,
        models=table.models,
        jobs=table.jobs,
        unreadable_jobs=table.unreadable_jobs,
        advice=advise(rows, first_view(views_of(rows), rows)),
        warnings=doubts_of(table, rows, hosts),
        rows=rows,
        pareto=pareto_sets(rows),
        environments=hosts,
    )
