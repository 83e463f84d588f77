"""Rows and goals, as Markdown for people and as JSON for machines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from accel.report import Estimate

Cell = str | float | int | None


@dataclass(frozen=True)
class Goal:
    """One figure beside its goal; ``met`` is None where a side gave no figure."""

    what: str
    measured: str
    goal: str
    met: bool | None

    def line(self) -> str:
        """The goal as an item of a list."""
        mark = {True: "met", False: "**MISSED**", None: "no figure"}[self.met]
        return f"- {mark}: {self.what}: {self.measured} (goal: {self.goal})"


@dataclass
class Section:
    """What one part of the benchmark found; filled step by step, so that a failure leaves what came before it."""

    title: str
    columns: tuple[str, ...] = ()
    about: str = ""
    rows: list[tuple[Cell, ...]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    """Everything behind the table."""

    def begin(self, title: str, columns: tuple[str, ...], about: str = "") -> None:
        """Say what the table is about."""
        self.title, self.columns, self.about = title, columns, about

    def markdown(self) -> str:
        """Heading, table, remarks and goals."""
        parts = [f"## {self.title}", self.about, table(self.columns, self.rows) if self.rows else ""]
        parts += ["\n".join(f"- {remark}" for remark in self.remarks), "\n".join(goal.line() for goal in self.goals)]
        return "\n\n".join(part for part in parts if part)

    def json(self) -> dict[str, Any]:
        """The same for a file."""
        return {
            "rows": [dict(zip(self.columns, row, strict=True)) for row in self.rows],
            "remarks": self.remarks,
            "goals": [vars(goal) for goal in self.goals],
            "figures": self.figures,
        }


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def points(found: Estimate | None) -> str:
    """A share in percentage points, with its interval."""
    if found is None:
        return "-"
    if found.low is None or found.high is None:
        return f"{100 * found.value:+.2f}"
    return f"{100 * found.value:+.2f} [{100 * found.low:+.2f}, {100 * found.high:+.2f}]"


def times(ratio: float | None) -> str:
    """A ratio."""
    return "-" if ratio is None else f"{ratio:.3f}x" if ratio < 1 else f"{ratio:.2f}x"


def _cell(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return f"{cell:.2f}" if abs(cell) < 100 else f"{cell:.0f}"
    return str(cell).replace("|", "/").replace("\n", " ")
