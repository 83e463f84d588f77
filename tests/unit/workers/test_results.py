"""What the worker believes of an engine's answer: nothing but files of its own workspace."""

from __future__ import annotations

import hashlib
from pathlib import Path
from uuid import UUID

import pytest

from accel.child import call
from accel.errors import ResultBroken
from accel.events import Attachment, Done
from accel.sandbox import Limits
from store.ids import new_id
from store.leases import Lease, Results
from store.specs import adapter
from tests.models import constant_mlp
from tests.stack import Stack
from workers.prepare import WorkRequest, prepare
from workers.results import keep_files

STEPS = ({"technique": "optimize_graph"}, {"technique": "convert_float16"})
SPEC = adapter.validate_python({"kind": "compress", "model_id": new_id(), "steps": STEPS})


@pytest.fixture(scope="module")
def request_(store: Stack, model_id: UUID, tmp_path_factory: pytest.TempPathFactory) -> WorkRequest:
    return prepared(store, tmp_path_factory.mktemp("run"), kind="compress", model_id=model_id, steps=STEPS)


def prepared(store: Stack, folder: Path, **spec: object) -> WorkRequest:
    with store.database.read() as session:
        return prepare(
            Lease(new_id(), new_id(), 1, adapter.validate_python(spec)), session, store.files, folder, Limits()
        )


@pytest.fixture(scope="module")
def done(request_: WorkRequest) -> Done:
    """A real engine's answer."""
    return call(request_, timeout_s=60)


def kept(store: Stack, done: Done, request: WorkRequest) -> Results:
    with store.database.read() as session:
        return keep_files(done, request, SPEC, store.files, session, before_each=lambda: None)


def naming(done: Done, path: Path) -> Done:
    """The same answer, but its last file is another."""
    return done.model_copy(update={"files": (*done.files[:-1], done.files[-1].model_copy(update={"path": path}))})


def test_results_are_kept_by_their_content_and_named_for_their_steps(
    store: Stack, request_: WorkRequest, done: Done, model_id: UUID
) -> None:
    results = kept(store, done, request_)
    assert [model.name for model in results.models] == [
        "tiny + optimize_graph",
        "tiny + optimize_graph + convert_float16",
    ]
    assert [model.parent_id for model in results.models] == [model_id, results.models[0].id]
    for model, file in zip(results.models, done.files, strict=True):
        content = file.path.read_bytes()
        assert model.sha256 == hashlib.sha256(content).hexdigest()
        assert model.size_bytes == len(content)
        here = store.files.local_path(model.sha256)
        assert here is not None
        assert here.read_bytes() == content
    assert list(store.files.spool_dir.iterdir()) == []


def test_a_name_never_outgrows_its_column(store: Stack, tmp_path: Path) -> None:
    long = store.model(constant_mlp(), name="n" * 199)
    request = prepared(store, tmp_path, kind="compress", model_id=long, steps=STEPS[:1])
    (model,) = kept(store, call(request, timeout_s=60), request).models
    assert model.name == "n" * 199 + " "


def test_a_file_outside_the_workspace_is_refused(
    store: Stack, request_: WorkRequest, done: Done, tmp_path: Path
) -> None:
    workspace = request_.workspace
    secret = tmp_path / "secret"
    secret.write_text("of another")
    for path in (secret, workspace / ".." / "owner", Path("/etc/passwd"), workspace, workspace / "nothing"):
        with pytest.raises(ResultBroken, match="no file of its own"):
            kept(store, naming(done, path), request_)


def test_a_link_is_refused(store: Stack, request_: WorkRequest, done: Done, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of another")
    link = request_.workspace / "link.onnx"
    link.symlink_to(tmp_path / "secret")
    with pytest.raises(ResultBroken, match="no file of its own"):
        kept(store, naming(done, link), request_)
    link.unlink()


def test_other_results_than_asked_for_are_refused(store: Stack, request_: WorkRequest, done: Done) -> None:
    first, second = done.files
    for files in (
        (),
        (first,),
        (first, second, second),
        (second, first),
        (first.model_copy(update={"model_id": "no id"}), second),
        (first.model_copy(update={"model_id": str(new_id())}), second),
        (first.model_copy(update={"parent_id": str(new_id())}), second),
    ):
        with pytest.raises(ResultBroken, match="other results"):
            kept(store, done.model_copy(update={"files": files}), request_)


def test_an_answer_to_another_question_is_refused(
    store: Stack, done: Done, model_id: UUID, dataset_id: UUID, tmp_path: Path
) -> None:
    request = prepared(store, tmp_path, kind="evaluate", model_ids=[model_id], dataset_id=dataset_id)
    with pytest.raises(ResultBroken, match="not of evaluate"):
        kept(store, done, request)


def attaching(done: Done, *attachments: Attachment) -> Done:
    return done.model_copy(update={"attachments": attachments})


def attachment(workspace: Path, name: str = "trace.json", **more: object) -> Attachment:
    path = workspace / "attached"
    path.write_bytes(b"{}")
    return Attachment.model_validate({"name": name, "path": path, "media_type": "application/json", **more})


def test_what_belongs_to_a_report_is_kept_beside_it(store: Stack, request_: WorkRequest, done: Done) -> None:
    named = [attachment(request_.workspace, name) for name in ("a.json", "b.json")]
    files = kept(store, attaching(done, *named), request_).files
    sha256 = hashlib.sha256(b"{}").hexdigest()
    assert [(file.name, file.media_type, file.size_bytes) for file in files] == [
        ("a.json", "application/json", 2),
        ("b.json", "application/json", 2),
    ]
    assert {file.sha256 for file in files} == {sha256}
    assert b"".join(store.files.read(sha256)) == b"{}"


def test_files_that_could_not_be_served_are_refused(
    store: Stack, request_: WorkRequest, done: Done, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("of another")
    link = request_.workspace / "link.json"
    link.symlink_to(tmp_path / "secret")
    one = attachment(request_.workspace)
    for wrong, said in (
        ((one.model_copy(update={"path": tmp_path / "secret"}),), "no file of its own"),
        ((one.model_copy(update={"path": link}),), "no file of its own"),
        ((one.model_copy(update={"path": request_.workspace}),), "no file of its own"),
        ((one, one), "two files"),
        ((one.model_copy(update={"media_type": "text/html\r\nX: y"}),), "no media type"),
        ((one.model_copy(update={"media_type": "text"}),), "no media type"),
        ((one,) * 5000, "5,000 files"),
    ):
        with pytest.raises(ResultBroken, match=said):
            kept(store, attaching(done, *wrong), request_)
    link.unlink()


def test_between_files_the_work_can_be_ended(store: Stack, request_: WorkRequest, done: Done) -> None:
    asked: list[int] = []

    def end_at_the_second() -> None:
        asked.append(1)
        if len(asked) == 2:
            raise InterruptedError

    with store.database.read() as session, pytest.raises(InterruptedError):
        keep_files(done, request_, SPEC, store.files, session, before_each=end_at_the_second)
