"""The ``accel`` command."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markdown import Markdown

from client.http import Accel, AccelProblem, JobFailed
from client.local import CannotStart, LocalStack
from client.reports import readable
from client.values import Job

app = typer.Typer(help="Make models smaller and faster, and measure what that did.", no_args_is_help=True)
out, err = Console(), Console(stderr=True)

Url = Annotated[str, typer.Option("--url", envvar="ACCEL_URL", help="Address of the service.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
BindingFile = Annotated[Path | None, typer.Option("--binding", help="JSON file that says how columns become inputs.")]
Baseline = Annotated[
    str | None, typer.Option(help="Id of the model to compare with; the first that is named if left out.")
]
HOME = Path.home() / ".local" / "share" / "accel"
LOCAL = "http://127.0.0.1:8000"
_PATIENCE_S = 5.0
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@app.command()
def up(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 for one that is free.")] = 8000,
    home: Annotated[Path, typer.Option(envvar="ACCEL_HOME", help="Folder of all state.")] = HOME,
) -> None:
    """Start the service on this machine, until Ctrl-C."""
    stopping: list[int] = []
    started = False
    stack = LocalStack(home, host=host, port=port, say=err.print)

    def stop(number: int, _: object) -> None:
        if stopping:
            stack.kill()
        stopping.append(number)
        if not started:
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    if host not in _LOOPBACK:
        err.print(f"[yellow]Anybody who reaches {host}:{port} can use this service: it asks for no password.[/yellow]")
    try:
        stack.start()
        started = True
        out.print(f"Accel is ready.\n  Swagger UI  {stack.url}/docs\n  state       {stack.home}\nCtrl-C stops it.")
        sys.stdout.flush()
        stack.watch(lambda: bool(stopping))
    except CannotStart as error:
        err.print(f"[red]{error}[/red]")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        err.print("Stopped before it was ready.")
    finally:
        stack.stop()


@app.command()
def upload_model(file: Path, *, name: str | None = None, url: Url = LOCAL, as_json: AsJson = False) -> None:
    """Upload an ONNX file, and print its id."""
    with _service(url) as api:
        _show(api.upload_model(file, name), as_json=as_json)


@app.command()
def upload_dataset(
    file: Path,
    *,
    name: str | None = None,
    spec: Annotated[str | None, typer.Option(help='JSON, such as {"task": "classification", "target": "y"}.')] = None,
    url: Url = LOCAL,
    as_json: AsJson = False,
) -> None:
    """Upload an npz or npy file, and print its id."""
    with _service(url) as api:
        _show(api.upload_dataset(file, name, _json(spec, "--spec") if spec else None), as_json=as_json)


@app.command()
def compress(
    model: Annotated[str, typer.Argument(help="Id of the model.")],
    *,
    step: Annotated[
        list[str],
        typer.Option(help='A technique by its name, or as JSON: {"technique": "quantize_static", "samples": 200}.'),
    ],
    dataset: Annotated[str | None, typer.Option(help="Id of the dataset.")] = None,
    binding: BindingFile = None,
    max_drop: Annotated[float | None, typer.Option(help="Contract: the most accuracy that may be lost.")] = None,
    url: Url = LOCAL,
    as_json: AsJson = False,
) -> None:
    """Apply a recipe to a model, and wait for the result."""
    steps = [_tagged("technique", text, "--step") for text in step]
    body = _given(
        model_id=model,
        steps=steps,
        dataset_id=dataset,
        binding=_read(binding),
        contract=None if max_drop is None else {"max_drop": max_drop},
    )
    _run("compress", body, url, as_json=as_json)


@app.command()
def evaluate(
    models: Annotated[list[str], typer.Argument(help="Ids of the models; the first is the baseline.")],
    *,
    dataset: Annotated[str, typer.Option(help="Id of the dataset.")],
    baseline: Baseline = None,
    binding: BindingFile = None,
    split: str = "test",
    metric: Annotated[list[str] | None, typer.Option(help="What to measure; the task's metrics if left out.")] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Contract: the most that may be lost of the first metric, else of accuracy.")
    ] = None,
    corrupt: Annotated[
        list[str] | None, typer.Option(help="Compare on corrupted samples too: blur:3 is a blur of severity 3 of 5.")
    ] = None,
    rerun: Annotated[bool, typer.Option("--rerun", help="Run models again whose predictions are kept.")] = False,
    runtime: str = "onnxruntime:cpu",
    url: Url = LOCAL,
    as_json: AsJson = False,
) -> None:
    """Measure the quality of models on a dataset."""
    promised = {"max_drop": max_drop, **({"metric": metric[0]} if metric else {})}
    body = _given(
        model_ids=models,
        dataset_id=dataset,
        baseline_id=baseline,
        binding=_read(binding),
        split=split,
        metrics=metric or None,
        contract=None if max_drop is None else promised,
        corruptions=[_corruption(text) for text in corrupt] if corrupt else None,
        reuse=False if rerun else None,
        runtime=runtime,
    )
    _run("evaluate", body, url, as_json=as_json)


@app.command()
def benchmark(
    models: Annotated[list[str], typer.Argument(help="Ids of the models; the first is the baseline.")],
    *,
    baseline: Baseline = None,
    runtime: Annotated[list[str] | None, typer.Option(help="Runtimes; all of ONNX Runtime's if left out.")] = None,
    scenario: Annotated[
        str | None, typer.Option(help="single_stream, multi_stream, server or offline.", show_default="single_stream")
    ] = None,
    bound_ms: Annotated[float | None, typer.Option(help="Bound on the 99th percentile; the server scenario.")] = None,
    batch_size: Annotated[list[int] | None, typer.Option()] = None,
    threads: Annotated[list[int] | None, typer.Option()] = None,
    instances: Annotated[list[int] | None, typer.Option(help="Processes at a time; the offline scenario.")] = None,
    streams: Annotated[int | None, typer.Option(help="Samples of one query; the multi_stream scenario.")] = None,
    precision: Annotated[
        float | None, typer.Option(help="Measure until intervals are plus or minus this share.", show_default="0.02")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Longest time for one setting, in seconds.", show_default="60")
    ] = None,
    preflight: Annotated[bool, typer.Option("--preflight", help="Predict within seconds; time nothing.")] = False,
    url: Url = LOCAL,
    as_json: AsJson = False,
) -> None:
    """Measure the speed of models, or predict what they would gain here."""
    body = _given(
        model_ids=models,
        baseline_id=baseline,
        runtimes=runtime or None,
        scenario=scenario,
        bound_ms=bound_ms,
        batch_sizes=batch_size or None,
        threads=threads or None,
        instances=instances or None,
        streams=streams,
        precision=precision,
        budget_seconds=budget,
        preflight=preflight or None,
    )
    _run("benchmark", body, url, as_json=as_json)


@app.command()
def train(
    dataset: Annotated[str, typer.Argument(help="Id of the dataset.")],
    *,
    model: Annotated[str | None, typer.Option(help="Id of a model to train further.")] = None,
    architecture: Annotated[
        str | None,
        typer.Option(help='A new network: a name such as cnn, or JSON: {"architecture": "mlp", "hidden": [64]}.'),
    ] = None,
    optimizer: Annotated[
        str | None, typer.Option(help='A name such as adamw, or JSON: {"optimizer": "sgd", "learning_rate": 0.1}.')
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="A name such as cosine, or JSON.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the rows, at most.", show_default="10")] = None,
    batch_size: Annotated[int | None, typer.Option(show_default="128")] = None,
    budget: Annotated[float | None, typer.Option(help="Longest time, in seconds.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Id of a model to learn from.")] = None,
    binding: BindingFile = None,
    name: Annotated[str | None, typer.Option(help="Name of the model that comes of it.")] = None,
    processes: Annotated[
        int | None, typer.Option(help="Processes that share out each batch.", show_default="1")
    ] = None,
    seed: Annotated[int | None, typer.Option(show_default="0")] = None,
    keep_best: Annotated[bool, typer.Option("--keep-best", help="Keep the best weights when it is cancelled.")] = False,
    url: Url = LOCAL,
    as_json: AsJson = False,
) -> None:
    """Train a new network, or a model further, and wait for the result."""
    body = _given(
        dataset_id=dataset,
        model_id=model,
        architecture=_tagged("architecture", architecture),
        optimizer=_tagged("optimizer", optimizer),
        schedule=_tagged("schedule", schedule),
        epochs=epochs,
        batch_size=batch_size,
        budget_seconds=budget,
        teacher_id=teacher,
        binding=_read(binding),
        name=name,
        processes=processes,
        seed=seed,
        on_cancel="keep_best" if keep_best else None,
    )
    _run("train", body, url, as_json=as_json)


@app.command()
def jobs(*, state: str | None = None, kind: str | None = None, url: Url = LOCAL, as_json: AsJson = False) -> None:
    """List jobs, newest first."""
    with _service(url) as api:
        for job in api.jobs(**_given(state=state, kind=kind)):
            if as_json:
                out.print_json(job.model_dump_json())
            else:
                out.print(f"{job.id}  {job.kind:<10} {job.state:<10} {job.phase}")


@app.command()
def wait(job: str, *, url: Url = LOCAL, as_json: AsJson = False) -> None:
    """Wait for the end of a job, showing its progress."""
    with _service(url) as api:
        _show(_follow(api, job), as_json=as_json)


@app.command()
def cancel(job: str, *, url: Url = LOCAL) -> None:
    """Ask a job to stop."""
    with _service(url) as api:
        out.print(f"{job} is {api.cancel(job).state}")


@app.command()
def compare(
    models: Annotated[list[str], typer.Argument(help="Ids of the models.")],
    *,
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Id of the model to compare with; if left out, the one that the others were made of, or the first."
        ),
    ] = None,
    url: Url = LOCAL,
    as_json: AsJson = False,
) -> None:
    """Show models side by side, and which one to take."""
    with _service(url) as api:
        if as_json:
            out.print_json(api.compare(models, baseline=baseline, accept="application/json"))
        else:
            out.print(Markdown(api.compare(models, baseline=baseline)))


@app.command()
def download(model: str, file: Path, *, url: Url = LOCAL) -> None:
    """Download a model's file."""
    with _service(url) as api:
        out.print(f"{api.download_model(model, file)}")


@app.command()
def files(job: str, *, url: Url = LOCAL, as_json: AsJson = False) -> None:
    """List the files of a job: predictions, samples, traces."""
    with _service(url) as api:
        for file in api.files(job):
            if as_json:
                out.print_json(file.model_dump_json())
            else:
                out.print(f"{file.name}  {file.size_bytes:,} bytes  {file.media_type}")


@app.command()
def download_file(
    job: str,
    name: Annotated[str, typer.Argument(help="The file's name, as `accel files` lists it.")],
    to: Annotated[Path | None, typer.Argument(help="Where to write it; here, by its own name, if left out.")] = None,
    *,
    url: Url = LOCAL,
) -> None:
    """Download a file of a job."""
    with _service(url) as api:
        out.print(f"{api.download_file(job, name, to or Path(name))}")


@contextmanager
def _service(url: str) -> Iterator[Accel]:
    """The service, with errors as one line and an exit code instead of a traceback."""
    try:
        with Accel(url, patience_s=_PATIENCE_S) as api:
            yield api
    except (AccelProblem, JobFailed) as error:
        err.print(f"[red]{error}[/red]", markup=True, highlight=False)
        raise typer.Exit(1) from None
    except httpx.TransportError as error:
        err.print(f"[red]{url} does not answer ({error}). Start the service by `accel up`, or set ACCEL_URL.[/red]")
        raise typer.Exit(2) from None
    except OSError as error:
        err.print(f"[red]{error}[/red]")
        raise typer.Exit(1) from None


def _tagged(tag: str, text: str | None, option: str | None = None) -> Any:
    """What an option names: a name alone, or a JSON object with the tag in it."""
    if text is None:
        return None
    return _json(text, option or f"--{tag}") if text.lstrip().startswith("{") else {tag: text}


def _run(kind: str, body: dict[str, Any], url: str, *, as_json: bool) -> None:
    with _service(url) as api:
        _show(_follow(api, api.submit(kind, body).id), as_json=as_json)


def _follow(api: Accel, job_id: str) -> Job:
    with err.status(job_id) as status:
        return api.wait(job_id, on_progress=lambda job: status.update(describe(job)))


def describe(job: Job) -> str:
    """Where a job stands, in a line."""
    progress = job.progress
    share = f" {progress.done}/{progress.total}" if progress.total else ""
    return f"{job.kind} {job.state}: {job.phase}{share} {progress.message}".rstrip()


def _show(value: BaseModel, *, as_json: bool) -> None:
    report = readable(value) if isinstance(value, Job) and not as_json else None
    if report is not None:
        out.print(report)
    elif as_json or isinstance(value, Job):
        out.print_json(value.model_dump_json())
    else:
        out.print(value.model_dump()["id"])


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _corruption(text: str) -> dict[str, Any]:
    name, _, severity = text.partition(":")
    if severity and not severity.isdigit():
        raise typer.BadParameter(f"--corrupt takes a name and a severity from 1 to 5, such as blur:3, not {text!r}")
    return {"corruption": name, **({"severity": int(severity)} if severity else {})}


def _read(path: Path | None) -> Any:
    return None if path is None else _json(path.read_text(), str(path))


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"{where} is not JSON: {error}") from None


if __name__ == "__main__":
    app(prog_name="accel")
