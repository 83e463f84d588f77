"""Bodies that Swagger UI offers for each kind of job.

They run as they stand once the ids are those of uploaded files; one names a column of groups, which few datasets have.
"""

from __future__ import annotations

from typing import Any, Final

from fastapi.openapi.models import Example
from pydantic import BaseModel

from accel.technique import Technique
from accel.techniques import TECHNIQUES

MODEL_ID: Final = "01990000-0000-7000-8000-000000000001"
JOB_ID: Final = "01990000-0000-7000-8000-000000000003"
DATASET_ID: Final = "01990000-0000-7000-8000-000000000002"
"""Placeholders; the docs page shows the ids of the newest uploads in their place."""

Examples = dict[str, Example]


def step_of(technique: type[Technique]) -> dict[str, Any]:
    """The technique with its defaults, as a step of a recipe."""
    step: dict[str, Any] = {"technique": technique.tag()}
    for name, field in technique.model_fields.items():
        if name != "technique" and isinstance(field.default, (bool, int, float, str)):
            step[name] = field.default
        elif isinstance(field.default, BaseModel):
            step[name] = field.default.model_dump(mode="json")
    return step


def compress() -> Examples:
    """One example for each technique, and a recipe of two; the first ones need no dataset."""
    found: Examples = {}
    for technique in sorted(TECHNIQUES, key=lambda technique: technique.needs_data):
        before = [{"technique": "quantize_static"}] if technique.follows_quantization else []
        body: dict[str, Any] = {"model_id": MODEL_ID, "steps": [*before, step_of(technique)]}
        if technique.needs_data or before:
            body["dataset_id"] = DATASET_ID
        found[technique.tag()] = {"summary": _first_line(technique), "value": body}
    tags = {technique.tag() for technique in TECHNIQUES}
    if {"optimize_graph", "quantize_static"} <= tags:
        found["recipe_with_contract"] = {
            "summary": "Optimise, then quantize; lose at most two points of accuracy.",
            "value": {
                "model_id": MODEL_ID,
                "dataset_id": DATASET_ID,
                "steps": [{"technique": "optimize_graph"}, {"technique": "quantize_static", "samples": 100}],
                "contract": {"metric": "accuracy", "max_drop": 0.02, "confidence": 0.95},
            },
        }
    return found


EVALUATE: Final[Examples] = {
    "accuracy": {
        "summary": "Every metric of the task, on the test split.",
        "value": {"model_ids": [MODEL_ID], "dataset_id": DATASET_ID, "split": "test"},
    },
    "with_contract": {
        "summary": "Against a baseline, with a bound on the loss. Add the ids of compressed models.",
        "value": {
            "model_ids": [MODEL_ID],
            "baseline_id": MODEL_ID,
            "dataset_id": DATASET_ID,
            "split": "test",
            "contract": {"metric": "accuracy", "max_drop": 0.01, "confidence": 0.95},
        },
    },
    "grouped": {
        "summary": "Rows of one speaker belong together: put your dataset's column in the place of `speaker`.",
        "value": {
            "model_ids": [MODEL_ID],
            "dataset_id": DATASET_ID,
            "binding": {"group": "speaker"},
            "contract": {"metric": "macro_f1", "max_drop": 0.02, "confidence": 0.9},
        },
    },
    "robustness": {
        "summary": "The same comparison on corrupted images: is a model that is as good on clean ones worse on blurred ones?",
        "value": {
            "model_ids": [MODEL_ID],
            "dataset_id": DATASET_ID,
            "metrics": ["accuracy"],
            "corruptions": [
                {"corruption": "gaussian_noise", "severity": 3},
                {"corruption": "blur", "severity": 3},
            ],
        },
    },
}

BENCHMARK: Final[Examples] = {
    "latency": {
        "summary": "One image, one thread, ONNX Runtime on the CPU.",
        "value": {
            "model_ids": [MODEL_ID],
            "runtimes": ["onnxruntime:cpu"],
            "batch_sizes": [1],
            "threads": [1],
            "scenario": "single_stream",
        },
    },
    "every_runtime": {
        "summary": "Two batch sizes on every runtime that the worker has.",
        "value": {"model_ids": [MODEL_ID], "baseline_id": MODEL_ID, "batch_sizes": [1, 8], "threads": [1, 2]},
    },
    "preflight": {
        "summary": "Will it help here? An answer within seconds, from the graph and the processor; nothing is timed.",
        "value": {"model_ids": [MODEL_ID], "preflight": True},
    },
    "server": {
        "summary": "Requests at random instants: the highest rate whose 99th percentile stays under 20 ms.",
        "value": {
            "model_ids": [MODEL_ID],
            "runtimes": ["onnxruntime:cpu"],
            "scenario": "server",
            "bound_ms": 20,
            "budget_seconds": 120,
        },
    },
    "offline": {
        "summary": "Samples per second, whatever the latency: batch sizes, threads and processes, each with each.",
        "value": {
            "model_ids": [MODEL_ID],
            "runtimes": ["onnxruntime:cpu"],
            "scenario": "offline",
            "batch_sizes": [8, 32],
            "threads": [1, 2],
            "instances": [1, 2],
            "budget_seconds": 30,
        },
    },
    "multi_stream": {
        "summary": "Queries of eight samples, as of a rig with eight cameras.",
        "value": {
            "model_ids": [MODEL_ID],
            "runtimes": ["onnxruntime:cpu"],
            "scenario": "multi_stream",
            "streams": 8,
            "precision": 0.05,
        },
    },
}


TRAIN: Final[Examples] = {
    "from_scratch": {
        "summary": "A small convolutional network for images, three epochs.",
        "value": {
            "dataset_id": DATASET_ID,
            "architecture": {"architecture": "cnn"},
            "optimizer": {"optimizer": "adamw", "learning_rate": 0.002},
            "schedule": {"schedule": "one_cycle"},
            "epochs": 3,
        },
    },
    "further": {
        "summary": "Train an uploaded model further for five minutes at most, and keep the best weights.",
        "value": {
            "dataset_id": DATASET_ID,
            "model_id": MODEL_ID,
            "optimizer": {"optimizer": "adamw", "learning_rate": 0.0001},
            "epochs": 5,
            "budget_seconds": 300,
            "on_cancel": "keep_best",
        },
    },
    "distillation": {
        "summary": "A small network learns from the answers of an uploaded one.",
        "value": {
            "dataset_id": DATASET_ID,
            "architecture": {"architecture": "mlp"},
            "teacher_id": MODEL_ID,
            "epochs": 5,
        },
    },
}


def _first_line(technique: type[Technique]) -> str:
    return (technique.__doc__ or technique.tag()).strip().partition("\n")[0]
