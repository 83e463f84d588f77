"""The whole way of a model: upload, compress three ways, evaluate, benchmark, compare. Run by ``make demo``."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from client.http import Accel, AccelProblem, JobFailed
from client.local import CannotStart, LocalStack
from client.values import Job, Model

EXAMPLES = Path(__file__).parent
BINDING = {
    "inputs": {
        "image": {
            "column": "x",
            "steps": [{"step": "scale", "multiply": 1 / 255}, {"step": "add_axis", "axis": 1}],
        }
    }
}
RECIPES: dict[str, list[dict[str, Any]]] = {
    "int8": [{"technique": "quantize_static", "samples": 200}],
    "int8, portable": [{"technique": "optimize_graph"}, {"technique": "quantize_static", "portable": True}],
    "float16": [{"technique": "convert_float16"}],
}
"""Three ways: 8 bits; 7 for processors whose 8-bit products saturate (a recipe of two steps); half precision."""

console = Console() if sys.stdout.isatty() else Console(width=136)


def run(api: Accel, kind: str, body: dict[str, Any], label: str) -> Job:
    """Do a job, and show where it stands: in one line of a terminal, else in a line for each new phase."""
    started, shown = time.monotonic(), {"done"}
    with console.status(label) as status:

        def show(job: Job) -> None:
            share = f" {job.progress.done}/{job.progress.total}" if job.progress.total else ""
            phase = job.phase or job.state
            status.update(f"{label}: {phase}{share} {job.progress.message}")
            if not console.is_terminal and phase not in shown:
                console.print(f"  {label}: {phase}")
                shown.add(phase)

        job = api.wait(api.submit(kind, body).id, on_progress=show)
    console.print(f"  {label}: done in {time.monotonic() - started:.1f} s")
    return job


def demo(api: Accel) -> None:
    """Upload the example, compress it, and print what that did."""
    console.print("[bold]Uploading[/bold] the example model and its labelled dataset")
    model = api.upload_model(EXAMPLES / "fashion_cnn.onnx", "fashion_cnn")
    dataset = api.upload_dataset(EXAMPLES / "fashion_mnist_small.npz", "fashion_mnist_small")

    console.print("[bold]Compressing[/bold] it three ways")
    models = {"original": model}
    for name, steps in RECIPES.items():
        body = {"model_id": model.id, "dataset_id": dataset.id, "binding": BINDING, "steps": steps}
        job = run(api, "compress", body, name)
        models[name] = api.model(job.model_ids[-1])

    known = api.runtimes()
    runtimes = [one["name"] for one in known if one["available"] and one["name"].startswith("onnxruntime:")]
    ids = [each.id for each in models.values()]
    console.print(f"[bold]Evaluating[/bold] all on {', '.join(runtimes)}")
    quality: dict[tuple[str, str], dict[str, Any]] = {}
    for runtime in runtimes:
        body = {"model_ids": ids, "dataset_id": dataset.id, "binding": BINDING, "runtime": runtime}
        report = run(api, "evaluate", body, runtime).report or {}
        quality |= {(each["model_id"], runtime): each for each in report["models"]}

    console.print("[bold]Benchmarking[/bold] all, one image at a time on one thread")
    report = (
        run(api, "benchmark", {"model_ids": ids, "runtimes": runtimes, "budget_seconds": 30}, "benchmark").report or {}
    )
    speed = {(each["model_id"], each["runtime"]): each for each in report["measurements"]}

    console.print(comparison(models, runtimes, quality, speed))
    console.print(best(models, speed))
    console.print(f"Measured on {report['environment']['cpu']}, {report['environment']['cores']} cores.")


def comparison(
    models: dict[str, Model],
    runtimes: list[str],
    quality: dict[tuple[str, str], dict[str, Any]],
    speed: dict[tuple[str, str], dict[str, Any]],
) -> Table:
    """Models side by side on every runtime; brackets hold 95 % intervals."""
    table = Table(title="Compared with the original; brackets hold 95 % intervals")
    for heading in ("model", "runtime"):
        table.add_column(heading, overflow="fold")
    for heading in ("accuracy", "difference in points", "size", "median latency", "speed-up"):
        table.add_column(heading, justify="right", no_wrap=True)
    original = models["original"]
    for name, model in models.items():
        for runtime in runtimes:
            evaluated, measured = quality[model.id, runtime], speed[model.id, runtime]
            table.add_row(
                name,
                runtime,
                _accuracy(evaluated),
                _difference(evaluated),
                f"{model.size_bytes / 1e6:.2f} MB ({model.size_bytes / original.size_bytes:.0%})",
                "failed" if measured["error"] else f"{measured['latency_ms']['median']:.3f} ms",
                _speedup(measured, is_reference=model is original and runtime == runtimes[0]),
            )
    return table


def _accuracy(evaluated: dict[str, Any]) -> str:
    return "failed" if evaluated["error"] else f"{evaluated['metrics']['accuracy']['value']:.2%}"


def _difference(evaluated: dict[str, Any]) -> str:
    against = evaluated["against_baseline"]
    if against is None:
        return "-"
    drop = against["drop"]
    gain, low, high = (0.0 - 100 * drop[bound] for bound in ("value", "high", "low"))
    return f"{gain:+.2f} [{low:+.2f}, {high:+.2f}]"


def _speedup(measured: dict[str, Any], *, is_reference: bool) -> str:
    gain = measured["speedup_over_reference"]
    if gain is None:
        return "1" if is_reference else "-"
    return f"{gain['value']:.2f}x [{gain['low']:.2f}, {gain['high']:.2f}]"


def best(models: dict[str, Model], speed: dict[tuple[str, str], dict[str, Any]]) -> str:
    """Which combination is the fastest."""
    names = {model.id: name for name, model in models.items()}
    measured = {key: each for key, each in speed.items() if each["latency_ms"]}
    model_id, runtime = min(measured, key=lambda key: measured[key]["latency_ms"]["median"])
    return f"Fastest: [bold]{names[model_id]}[/bold] on {runtime}."


def main() -> int:
    """Start the service, run the demo, stop the service."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="accel-demo-") as home:
        stack = LocalStack(Path(home), port=0, say=console.print)
        try:
            stack.start()
            console.print(f"Accel is up at {stack.url}")
            with Accel(stack.url) as api:
                demo(api)
        except (CannotStart, AccelProblem, JobFailed, httpx.HTTPError) as error:
            console.print(f"[red]{error}[/red]")
            return 1
        except KeyboardInterrupt:
            console.print("Interrupted.")
            return 130
        finally:
            stack.stop()
    console.print(f"Done in {time.monotonic() - started:.0f} s; the service is stopped and its state removed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
