"""What can be told of a job before any engine runs: whether what it names is there, and whether its parts go together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from accel.data.binding import Binding
from accel.evaluation.contract import METRICS, Metric, ReadAs
from accel.report import DatasetSummary
from store.errors import BindingMismatch, Contradiction, DatasetRequired, UnfitReference
from store.evaluations import check_baseline
from store.specs import BenchmarkSpec, CompressSpec, EvaluateSpec, JobSpec, TrainSpec, needs_data
from store.tables import DatasetRow, ModelRow

_GIVES: Final[Mapping[ReadAs, str]] = {
    "classes": "a class for each sample",
    "values": "values",
    "ctc_greedy": "sequences",
    "threshold": "yes/no decisions",
    "embedding": "vectors",
}


def check(session: Session, spec: JobSpec) -> None:
    """Refuse what no engine could do; ``pointer`` of the error names the field.

    Raises:
        UnfitReference: A model or dataset does not exist, or the baseline was not evaluated on the same split.
        DatasetRequired: A step or a contract needs data and there is no dataset.
        BindingMismatch: A metric is not of what the output is read as.
        Contradiction: The job would be ended before it is done.
    """
    match spec:
        case CompressSpec():
            _exist(session, ModelRow, "model", {"/model_id": spec.model_id})
            _check_data(spec)
            if spec.dataset_id is not None:
                _exist(session, DatasetRow, "dataset", {"/dataset_id": spec.dataset_id})
                _check_metrics(session, spec.dataset_id, spec.binding, _promised(spec))
        case EvaluateSpec():
            wanted = {f"/model_ids/{i}": m for i, m in enumerate(spec.model_ids)}
            _exist(
                session, ModelRow, "model", wanted | ({"/baseline_id": spec.baseline_id} if spec.baseline_id else {})
            )
            _exist(session, DatasetRow, "dataset", {"/dataset_id": spec.dataset_id})
            metrics = {f"/metrics/{i}": metric for i, metric in enumerate(spec.metrics or ())}
            asked = metrics | ({"/contract/metric": spec.contract.metric} if spec.contract else {})
            _check_metrics(session, spec.dataset_id, spec.binding, asked)
            check_baseline(session, spec)
        case BenchmarkSpec():
            _exist(session, ModelRow, "model", {f"/model_ids/{i}": m for i, m in enumerate(spec.model_ids)})
            _check_time(spec)
        case TrainSpec():
            named = {"/model_id": spec.model_id, "/teacher_id": spec.teacher_id}
            _exist(session, ModelRow, "model", {pointer: m for pointer, m in named.items() if m is not None})
            _exist(session, DatasetRow, "dataset", {"/dataset_id": spec.dataset_id})
            best = {"/metric": spec.metric} if spec.metric else {}
            aim = {"/target/metric": spec.target.metric} if spec.target else {}
            _check_metrics(session, spec.dataset_id, spec.binding, best | aim)


def _exist(session: Session, table: type[ModelRow | DatasetRow], kind: str, wanted: dict[str, UUID]) -> None:
    there = set(session.scalars(select(table.id).where(table.id.in_(wanted.values()))))
    for pointer, identity in wanted.items():
        if identity not in there:
            raise UnfitReference(
                f"There is no {kind} {identity}.", hint=f"GET /v1/{kind}s lists what there is.", pointer=pointer
            )


def _check_data(spec: CompressSpec) -> None:
    if spec.dataset_id is not None:
        return
    places = needs_data(spec.steps)
    if places:
        raise DatasetRequired(
            f"The step {spec.steps[places[0]].tag()} calibrates on data, and the request names no dataset.",
            hint="Upload one by POST /v1/datasets and give its dataset_id.",
            pointer="/dataset_id",
        )
    if _promised(spec):
        raise DatasetRequired(
            "A contract is judged on data, and the request names no dataset.",
            hint="Give dataset_id, or leave the contract out.",
            pointer="/dataset_id",
        )


def _promised(spec: CompressSpec) -> dict[str, Metric]:
    """The metric of each contract, by its place."""
    promises = {f"/steps/{i}/contract/metric": step.promise for i, step in enumerate(spec.steps)}
    contracts = {"/contract/metric": spec.contract, **promises}
    return {pointer: contract.metric for pointer, contract in contracts.items() if contract is not None}


def _check_metrics(session: Session, dataset_id: UUID, binding: Binding | None, asked: Mapping[str, Metric]) -> None:
    """Refuse a metric that does not go with the decoder, or with the dataset's task where there is none."""
    if not asked:
        return
    read_as, why = _read_as(session, dataset_id, binding)
    allowed = tuple(dict.fromkeys(metric for reading in read_as for metric in METRICS[reading]))
    for pointer, metric in asked.items():
        if metric not in allowed:
            gives = " or ".join(_GIVES[reading] for reading in read_as)
            raise BindingMismatch(
                f"{metric} does not apply: {why} {gives}.",
                hint=f"Use {', '.join(allowed)}{_otherwise(metric)}.",
                pointer=pointer,
            )


def _read_as(session: Session, dataset_id: UUID, binding: Binding | None) -> tuple[tuple[ReadAs, ...], str]:
    """As what an output may be read, and why."""
    if binding is not None and binding.decoder is not None:
        return (binding.decoder.decoder,), f"the decoder {binding.decoder.decoder} gives"
    row = session.get(DatasetRow, dataset_id)
    match None if row is None else DatasetSummary.model_validate_json(row.summary).task:
        case "classification":
            return ("classes",), "the dataset is of a classification, whose models give"
        case "regression":
            return ("values",), "the dataset is of a regression, whose models give"
        case None:
            return ("classes", "values"), "without a decoder models give"


def _otherwise(metric: Metric) -> str:
    """How outputs must be read for a metric to apply."""
    decoders = [name for name, metrics in METRICS.items() if metric in metrics and name not in {"classes", "values"}]
    named = " or ".join(f'{{"decoder": {{"decoder": "{name}"}}}}' for name in decoders)
    return f", or read the output by another decoder: {named} in the binding" if decoders else ""


def _check_time(spec: BenchmarkSpec) -> None:
    """Refuse a benchmark that may be ended, without a figure, before the time is spent that it may take."""
    settings = math.prod(map(len, (spec.batch_sizes, spec.threads, spec.instances)))
    longest = spec.budget_seconds * settings
    if spec.preflight or longest <= spec.deadline_seconds:
        return
    each = f"{settings} settings may take budget_seconds ({spec.budget_seconds:g}) each"
    took = each if settings > 1 else f"budget_seconds is {spec.budget_seconds:g}"
    raise Contradiction(
        f"{took}, and the job is ended after deadline_seconds ({spec.deadline_seconds}), without a result.",
        hint=f"Give deadline_seconds of {math.ceil(longest) + 60} or more, or budget_seconds of "
        f"{spec.deadline_seconds / settings:.3g} or less.",
        pointer="/deadline_seconds",
    )
