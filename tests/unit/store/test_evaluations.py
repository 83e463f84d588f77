"""What counts as asked before, and which baselines fit."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from store import job_files, jobs
from store.database import Database
from store.errors import NotFound, UnfitReference
from store.evaluations import kept_predictions, question
from store.ids import new_id
from store.references import is_referenced
from store.specs import EvaluateSpec, adapter
from store.tables import EvaluationRow
from tests.rows import a_dataset, a_model, evaluated, sha


def spec(model_ids: list[UUID], dataset_id: UUID, **more: Any) -> EvaluateSpec:
    made = adapter.validate_python({"kind": "evaluate", "model_ids": model_ids, "dataset_id": dataset_id, **more})
    assert isinstance(made, EvaluateSpec)
    return made


def asked(database: Database, one: EvaluateSpec) -> str:
    with database.read() as session:
        return question(session, one)


def kept(database: Database, one: EvaluateSpec, model_id: UUID) -> str | None:
    with database.read() as session:
        return kept_predictions(session, question(session, one), [model_id]).get(model_id)


BINDING = {"inputs": {"a": {"column": "x"}, "b": {"constant": 0.0, "shape": [1]}}}


@pytest.mark.parametrize(
    ("more", "same"),
    [
        ({"batch_size": 7, "metrics": ["accuracy"], "seed": 3, "contract": {"max_drop": 0.2}}, True),
        ({"corruptions": [{"corruption": "blur", "severity": 1}]}, True),
        ({"binding": {}}, True),
        ({"binding": {"group": "speaker"}}, True),
        ({"split": "validation"}, False),
        ({"runtime": "onnxruntime:openvino"}, False),
        ({"binding": {"target": "z"}}, False),
        ({"binding": {"decoder": {"decoder": "threshold", "at": 0.3}}}, False),
    ],
)
def test_what_makes_another_question(database: Database, more: dict[str, Any], *, same: bool) -> None:
    model_ids, dataset_id = [a_model(database)], a_dataset(database)
    other = spec(model_ids, dataset_id, **more)
    assert (asked(database, spec(model_ids, dataset_id)) == asked(database, other)) is same


def test_the_order_of_inputs_is_no_difference_and_another_dataset_is(database: Database) -> None:
    model_ids, dataset_id = [a_model(database)], a_dataset(database)
    turned = {"inputs": dict(reversed(BINDING["inputs"].items()))}
    one = asked(database, spec(model_ids, dataset_id, binding=BINDING))
    assert asked(database, spec(model_ids, dataset_id, binding=turned)) == one
    assert asked(database, spec(model_ids, a_dataset(database, "other"), binding=BINDING)) != one
    with pytest.raises(NotFound):
        asked(database, spec(model_ids, new_id()))


def test_the_newest_predictions_of_the_same_question_are_found(database: Database) -> None:
    first, second, dataset_id = a_model(database, "a"), a_model(database, "b"), a_dataset(database)
    one = spec([first, second], dataset_id)
    assert kept(database, one, first) is None
    evaluated(database, one)
    evaluated(database, spec([first], dataset_id, split="validation"))
    newest = evaluated(database, spec([first, second], dataset_id, batch_size=1), failed=(second,))
    assert kept(database, one, first) == sha(f"{newest} {first}")
    assert kept(database, one, second) not in (None, sha(f"{newest} {second}"))
    with database.read() as session:
        rows = session.scalars(select(EvaluationRow).where(EvaluationRow.job_id == newest)).all()
        assert [row.predictions_sha256 is None for row in rows] == [row.model_id == second for row in rows]


def test_files_of_a_job_are_listed_and_not_collected(database: Database) -> None:
    model_id, dataset_id = a_model(database), a_dataset(database)
    job_id = evaluated(database, spec([model_id], dataset_id))
    with database.read() as session:
        (file,) = job_files.of_job(session, job_id)
        assert job_files.get(session, job_id, file.name) == file
        assert (file.media_type, file.size_bytes) == ("application/x-npz", 5)
        assert is_referenced(session, file.sha256)
        assert not is_referenced(session, sha("nobody's"))
        with pytest.raises(NotFound, match="no file nothing") as caught:
            job_files.get(session, job_id, "nothing")
        assert str(job_id) in caught.value.hint
        for look in (lambda: job_files.of_job(session, new_id()), lambda: job_files.get(session, new_id(), "x")):
            with pytest.raises(NotFound, match="no job"):
                look()


def submit(database: Database, one: EvaluateSpec) -> None:
    with database.write() as session:
        jobs.submit(session, one, max_attempts=3)


def test_a_baseline_of_an_earlier_evaluation_fits(database: Database) -> None:
    base, model_id, dataset_id = a_model(database, "base"), a_model(database), a_dataset(database)
    evaluated(database, spec([base], dataset_id))
    submit(database, spec([model_id], dataset_id, baseline_id=base, batch_size=4))
    again = evaluated(database, spec([model_id], dataset_id, baseline_id=base))
    assert kept(database, spec([model_id], dataset_id), base) == sha(f"{again} {base}")


def test_a_baseline_that_does_not_fit_is_told_where_it_was_evaluated(database: Database) -> None:
    base, model_id = a_model(database, "base"), a_model(database)
    first, second = a_dataset(database), a_dataset(database, "uploaded again")

    def refused(**more: Any) -> str:
        with pytest.raises(UnfitReference) as caught:
            submit(database, spec([model_id], second, baseline_id=base, **more))
        assert caught.value.pointer == "/baseline_id"
        assert "model_ids" in caught.value.hint
        return caught.value.message

    assert refused() == f"The baseline {base} is none of model_ids, and no evaluation of it is kept."
    evaluated(database, spec([base], first), failed=(base,))
    assert "no evaluation of it" in refused()
    one = evaluated(database, spec([base], first, split="validation"))
    there = f"The baseline {base} was evaluated on the split"
    assert refused() == (
        f"{there} 'validation' of the dataset {first} (job {one}), not on 'test' of the dataset {second}."
    )
    two = evaluated(database, spec([base], second))
    evaluated(database, spec([base], first))
    assert refused(split="other") == f"{there} 'test' of the dataset {second} (job {two}), not on 'other' of it."
    assert refused(runtime="torch:cpu") == (
        f"{there} 'test' of the dataset {second} by onnxruntime:cpu (job {two}), not by torch:cpu."
    )
    assert refused(binding={"target": "z"}).endswith(f"{second} with another binding (job {two}).")
    with pytest.raises(UnfitReference, match="no model") as caught:
        submit(database, spec([model_id], second, baseline_id=new_id()))
    assert caught.value.pointer == "/baseline_id"
