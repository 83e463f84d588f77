"""What was measured beside what was predicted."""

from __future__ import annotations

from uuid import UUID

import pytest
from sqlalchemy import insert

from accel.report import BenchmarkReport, Estimate, Measurement
from store import leases
from store.database import Database
from store.forecasts import forecasts
from store.ids import new_id
from store.leases import Results
from store.specs import adapter
from store.tables import MeasurementRow
from tests.rows import ENVIRONMENT, a_job, a_model, claimed

CPU, OPENVINO = "onnxruntime:cpu", "onnxruntime:openvino"


def measured(runtime: str, model_id: UUID, speedup: float | None, predicted: Estimate | None) -> Measurement:
    return Measurement(
        model_id=str(model_id),
        runtime=runtime,
        batch_size=1,
        threads=1,
        latency_ms=None,
        throughput=None,
        speedup=None if speedup is None else Estimate(value=speedup),
        predicted_speedup=predicted,
    )


def test_pairs_of_each_runtime_are_summed_up(database: Database) -> None:
    with database.read() as session:
        assert forecasts(session) == {}
    model_id = a_model(database)
    spec = adapter.validate_python({"kind": "benchmark", "model_ids": [model_id]})
    wide = Estimate(value=2.0, low=1.5, high=3.0)
    found = (
        measured(CPU, model_id, 1.0, wide),
        measured(CPU, model_id, 3.0, wide),
        measured(CPU, model_id, 2.0, wide),
        measured(CPU, model_id, None, wide),
        measured(CPU, model_id, 2.0, None),
        measured(OPENVINO, model_id, 2.0, Estimate(value=4.0)),
        measured("torch:cpu", model_id, None, None),
    )
    report = BenchmarkReport(
        baseline_id=str(model_id), reference_runtime=CPU, measurements=found, environment=ENVIRONMENT
    )
    lease = claimed(database, a_job(database, spec))
    with database.write() as session:
        leases.finish(session, lease, Results(report))
        session.execute(
            insert(MeasurementRow).values(
                id=new_id(), job_id=lease.job_id, model_id=model_id, baseline_id=model_id, runtime=CPU,
                scenario="single_stream", batch_size=1, threads=1, instances=1,
                result='{"predicted_speedup":{"of another":"version"},"speedup":{}}',
            )
        )  # fmt: skip
    with database.read() as session:
        fared = forecasts(session)
    assert sorted(fared) == [CPU, OPENVINO]
    assert (fared[CPU].count, fared[CPU].median_ratio) == (3, 1.0)
    assert fared[CPU].within_range == pytest.approx(2 / 3)
    assert (fared[OPENVINO].count, fared[OPENVINO].within_range, fared[OPENVINO].median_ratio) == (1, None, 0.5)
