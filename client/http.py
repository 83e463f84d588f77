"""The client: uploads, jobs and downloads over HTTP, patient with a service that restarts."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from client.values import Dataset, Event, Job, JobFile, Model

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 5.0
_POLL_S = 30
_BLOCK = 1 << 20
_TRY_AGAIN = frozenset({429, 502, 503, 504})

Json = Mapping[str, Any]


class AccelProblem(Exception):
    """The service refused: ``code`` is stable, ``detail`` names the object, ``hint`` says what would help."""

    def __init__(self, status: int, code: str, detail: str, hint: str = "", errors: Sequence[Json] = ()) -> None:
        places = "".join(f" ({e['pointer']})" for e in errors if e.get("pointer"))
        super().__init__(f"{detail}{places}{f' {hint}' if hint else ''} [{code}, HTTP {status}]")
        self.status, self.code, self.detail, self.hint, self.errors = status, code, detail, hint, tuple(errors)


class JobFailed(Exception):
    """A job ended without success."""

    def __init__(self, job: Job) -> None:
        error = job.error
        why = f"{error.message} {error.hint} [{error.code}]" if error else f"it was {job.state}"
        super().__init__(f"The {job.kind} job {job.id} did not succeed: {why}")
        self.job = job


class Accel:
    """A service at an address.

    Requests that make something carry an Idempotency-Key, so that repeating one after a lost answer makes nothing twice.
    """

    def __init__(
        self, base_url: str = "http://127.0.0.1:8000", *, timeout_s: float = 60.0, patience_s: float = 30.0
    ) -> None:
        """Speak to a service.

        Args:
            base_url: Its address.
            timeout_s: Longest wait for one answer.
            patience_s: How long a service that is away, or restarts, is asked again.
        """
        self._patience_s = patience_s
        self._http = httpx.Client(base_url=base_url, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def upload_model(self, path: Path, name: str | None = None) -> Model:
        """Upload an ONNX file; content that is known already gives the model that has it."""
        return Model.model_validate(self._upload("/v1/models", path, {"name": name or path.stem}))

    def upload_dataset(self, path: Path, name: str | None = None, spec: Json | None = None) -> Dataset:
        """Upload an npz or npy file; ``spec`` says what cannot be inferred."""
        fields = {"name": name or path.stem} | ({"spec": json.dumps(spec)} if spec else {})
        return Dataset.model_validate(self._upload("/v1/datasets", path, fields))

    def _upload(self, url: str, path: Path, fields: dict[str, str]) -> Any:
        key = _key()

        def send() -> httpx.Response:
            with path.open("rb") as file:
                headers = {"Idempotency-Key": key}
                return self._http.post(
                    url, data=fields, files={"file": (path.name, file)}, headers=headers, timeout=None
                )

        return self._checked(send).json()

    def model(self, model_id: str) -> Model:
        """A model."""
        return Model.model_validate(self._get(f"/v1/models/{model_id}"))

    def models(self) -> Iterator[Model]:
        """All models, newest first."""
        return map(Model.model_validate, self._pages("/v1/models", {}))

    def datasets(self) -> Iterator[Dataset]:
        """All datasets, newest first."""
        return map(Dataset.model_validate, self._pages("/v1/datasets", {}))

    def jobs(self, **filters: str) -> Iterator[Job]:
        """All jobs, newest first; ``kind`` and ``state`` filter."""
        return map(Job.model_validate, self._pages("/v1/jobs", filters))

    def delete_model(self, model_id: str) -> None:
        """Forget a model."""
        self._checked(lambda: self._http.delete(f"/v1/models/{model_id}"))

    def delete_dataset(self, dataset_id: str) -> None:
        """Forget a dataset."""
        self._checked(lambda: self._http.delete(f"/v1/datasets/{dataset_id}"))

    def submit(self, kind: str, spec: Json) -> Job:
        """Ask for a job: ``compress``, ``evaluate``, ``benchmark`` or ``train``."""
        return self._post(f"/v1/jobs/{kind}", spec)

    def job(self, job_id: str) -> Job:
        """A job."""
        return Job.model_validate(self._get(f"/v1/jobs/{job_id}"))

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop."""
        return self._post(f"/v1/jobs/{job_id}/cancel", None)

    def retry(self, job_id: str) -> Job:
        """Ask for the same work again, as a new job."""
        return self._post(f"/v1/jobs/{job_id}/retry", None)

    def wait(
        self, job_id: str, *, on_progress: Callable[[Job], None] | None = None, timeout_s: float | None = None
    ) -> Job:
        """Wait for the end of a job, by long polls.

        Args:
            job_id: The job.
            on_progress: Called with the job at each change.
            timeout_s: Longest wait; None for no end.

        Raises:
            JobFailed: It failed or was cancelled.
            TimeoutError: It is not finished in time.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        etag = ""
        while True:
            left = _POLL_S if until is None else min(_POLL_S, until - time.monotonic())
            if left <= 0:
                raise TimeoutError(f"the job {job_id} is not finished after {timeout_s:g} s")
            answer = self._poll(job_id, etag, left)
            if answer.status_code == httpx.codes.NOT_MODIFIED:
                continue
            etag = answer.headers.get("etag", "")
            job = Job.model_validate(answer.json())
            if on_progress is not None:
                on_progress(job)
            if job.state == "succeeded":
                return job
            if job.finished:
                raise JobFailed(job)

    def _poll(self, job_id: str, etag: str, wait_s: float) -> httpx.Response:
        headers = {"If-None-Match": etag} if etag else {}
        params = {"wait": max(1, int(wait_s))} if etag else {}
        return self._checked(
            lambda: self._http.get(f"/v1/jobs/{job_id}", params=params, headers=headers, timeout=wait_s + 30)
        )

    def events(self, job_id: str, *, after: int = 0) -> Iterator[Event]:
        """The events of a job as they come, until it ends; a connection that breaks is taken up where it broke."""
        last, ended, heard_at = after, False, time.monotonic()
        while not ended:
            try:
                headers = {"Last-Event-ID": str(last)} if last else {}
                with self._http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers, timeout=60) as answer:
                    if answer.is_error:
                        answer.read()
                        raise _problem(answer)
                    for event in _sse(answer.iter_lines()):
                        last, heard_at = event.id, time.monotonic()
                        ended = event.data.get("state") in {"succeeded", "failed", "cancelled"}
                        yield event
            except (httpx.TransportError, AccelProblem) as error:
                away = not isinstance(error, AccelProblem) or error.status in _TRY_AGAIN
                if not away or time.monotonic() - heard_at > self._patience_s:
                    raise
            if not ended:
                time.sleep(_FIRST_WAIT_S)

    def download_model(self, model_id: str, path: Path) -> Path:
        """Download a model's file, and check it by its hash; what is there of an earlier try is kept.

        Raises:
            OSError: The bytes are not those that the service has.
        """
        model = self.model(model_id)
        return self._download(f"/v1/models/{model_id}/file", model.size_bytes, model.sha256, path)

    def files(self, job_id: str) -> list[JobFile]:
        """The files of a job: predictions, samples, traces."""
        return [JobFile.model_validate(item) for item in self._get(f"/v1/jobs/{job_id}/files")["items"]]

    def download_file(self, job_id: str, name: str, path: Path) -> Path:
        """Download a job's file by its name, as :meth:`download_model` does.

        Raises:
            FileNotFoundError: The job has no such file.
            OSError: The bytes are not those that the service has.
        """
        there = {file.name: file for file in self.files(job_id)}
        if name not in there:
            raise FileNotFoundError(f"the job {job_id} has no file {name}; it has {', '.join(there) or 'none'}")
        return self._download(there[name].link, there[name].size_bytes, there[name].sha256, path)

    def _download(self, url: str, size_bytes: int, sha256: str, path: Path) -> Path:
        partial = path.with_suffix(path.suffix + ".part")

        def fetch() -> httpx.Response:
            start = partial.stat().st_size if partial.exists() else 0
            headers = {"Range": f"bytes={start}-"} if 0 < start < size_bytes else {}
            with self._http.stream("GET", url, headers=headers) as answer:
                if answer.is_error:
                    answer.read()
                    return answer
                resumed = answer.status_code == httpx.codes.PARTIAL_CONTENT
                with partial.open("ab" if resumed else "wb") as file:
                    for block in answer.iter_bytes(_BLOCK):
                        file.write(block)
                return answer

        self._checked(fetch)
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256:
            partial.unlink()
            raise OSError(f"the download of {url} was damaged")
        return partial.replace(path)

    def compare(self, model_ids: Sequence[str], *, baseline: str | None = None, accept: str = "text/markdown") -> str:
        """Models side by side, as Markdown, CSV, HTML or JSON."""
        params: dict[str, str | Sequence[str]] = {"model": list(model_ids)}
        if baseline:
            params["baseline"] = baseline
        return self._checked(lambda: self._http.get("/v1/compare", params=params, headers={"Accept": accept})).text

    def techniques(self) -> Any:
        """What can be done to a model."""
        return self._get("/v1/techniques")

    def runtimes(self) -> list[dict[str, Any]]:
        """Where models can run."""
        answer = self._get("/v1/runtimes")
        return list(answer["items"] if isinstance(answer, dict) else answer)

    def workers(self) -> list[dict[str, Any]]:
        """Who works."""
        answer = self._get("/v1/workers")
        return list(answer["items"] if isinstance(answer, dict) else answer)

    def ready(self) -> bool:
        """Whether the service can take jobs and has somebody to do them."""
        try:
            return self._http.get("/readyz").is_success and bool(self.workers())
        except httpx.TransportError:
            return False

    def _pages(self, url: str, params: Mapping[str, str]) -> Iterator[Any]:
        token = ""
        while True:
            page = self._get(url, {**params, **({"page_token": token} if token else {})})
            yield from page["items"]
            token = page.get("next_page_token") or ""
            if not token:
                return

    def _get(self, url: str, params: Mapping[str, str] | None = None) -> Any:
        return self._checked(lambda: self._http.get(url, params=dict(params or {}))).json()

    def _post(self, url: str, body: Json | None) -> Job:
        headers = {"Idempotency-Key": _key()}
        return Job.model_validate(self._checked(lambda: self._http.post(url, json=body, headers=headers)).json())

    def _checked(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        """Send, again where the service was away, and turn a refusal into an error."""
        until, pause_s = time.monotonic() + self._patience_s, _FIRST_WAIT_S
        while True:
            last = time.monotonic() + pause_s > until
            try:
                answer = send()
            except httpx.TransportError:
                if last:
                    raise
            else:
                if answer.status_code not in _TRY_AGAIN or last:
                    if answer.is_error:
                        raise _problem(answer)
                    return answer
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_WAIT_S)


def _problem(answer: httpx.Response) -> AccelProblem:
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        body = {}
    return AccelProblem(
        answer.status_code,
        body.get("code", "unknown"),
        body.get("detail") or body.get("title") or answer.reason_phrase,
        body.get("hint") or "",
        body.get("errors") or (),
    )


def _sse(lines: Iterator[str]) -> Iterator[Event]:
    """Events of a text/event-stream (WHATWG HTML, 9.2)."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value
        elif "data" in fields:
            yield Event(
                id=int(fields.get("id", 0)), type=fields.get("event", "message"), data=json.loads(fields["data"])
            )
            fields = {}


def _key() -> str:
    return str(uuid.uuid4())
