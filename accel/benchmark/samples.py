"""All samples of a benchmark as one Parquet file, written setting by setting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from accel.benchmark.measure import Measured
from accel.benchmark.setting import Candidate
from accel.report.benchmarking import Scenario

NAME = "samples.parquet"
MEDIA_TYPE = "application/vnd.apache.parquet"

_SCHEMA = {
    "model_id": pl.String(),
    "runtime": pl.String(),
    "scenario": pl.String(),
    "batch_size": pl.Int32(),
    "threads": pl.Int32(),
    "instances": pl.Int32(),
    "start": pl.Int32(),
    "round": pl.Int32(),
    "phase": pl.String(),
    "milliseconds": pl.Float32(),
}


class SampleFile:
    """Takes samples in setting after setting, so that memory holds those of one."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._parts: list[Path] = []

    def add(self, measured: Measured, scenario: Scenario) -> None:
        """Write the samples of a setting, those of broken candidates too.

        Columns: ``model_id``, ``runtime``, ``scenario``, ``batch_size``, ``threads``, ``instances``, ``start`` and ``round``
        (from 0; null while warming up), ``phase`` (``warmup`` or ``measured``) and ``milliseconds`` of a query. The first query
        of each round counts as ``warmup``.
        """
        setting = measured.setting
        frames = [
            pl.DataFrame({"milliseconds": milliseconds}).with_columns(
                pl.lit(value, dtype=_SCHEMA[name]).alias(name)
                for name, value in {
                    "model_id": candidate.model.model_id,
                    "runtime": candidate.runtime,
                    "scenario": scenario,
                    "batch_size": setting.batch_size,
                    "threads": setting.threads,
                    "instances": setting.instances,
                    "start": start,
                    "round": number,
                    "phase": phase,
                }.items()
            )
            for candidate in measured.candidates
            for start, number, phase, milliseconds in _pieces(candidate)
        ]
        part = self.path.with_name(f"{self.path.stem}-{len(self._parts)}.parquet")
        table = pl.concat(frames) if frames else pl.DataFrame(schema=_SCHEMA)
        table.select(pl.col(name).cast(kind) for name, kind in _SCHEMA.items()).write_parquet(part)
        self._parts.append(part)

    def close(self) -> Path:
        """Put the parts together, a piece at a time."""
        pl.scan_parquet(self._parts).sink_parquet(self.path)
        for part in self._parts:
            part.unlink()
        return self.path


def _pieces(candidate: Candidate) -> Iterator[tuple[int, int | None, str, npt.NDArray[np.float64]]]:
    """Start, round, phase and samples."""
    for start, take in enumerate(candidate.takes):
        yield start, None, "warmup", np.array([take.first_ms, *take.warmup_ms])
        for number, one in enumerate(take.rounds):
            if one.lead_ms is not None:
                yield start, number, "warmup", np.array([one.lead_ms])
            yield start, number, "measured", one.samples_ms
