"""What a benchmark and its candidates' processes say to each other: one JSON document a line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

LATE_SHARE = 0.01
"""Of the queries of a :class:`Serve` that may miss the bound: the 99th percentile is judged."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Load(_Message):
    """What to load, and how many samples a query has."""

    order: Literal["load"] = "load"
    path: Path
    runtime: str
    threads: int
    batch_size: int
    shapes: dict[str, tuple[int, ...]]
    seed: int


class Measure(_Message):
    """Answer one query after the other for so long, at least one."""

    order: Literal["measure"] = "measure"
    seconds: float


class Serve(_Message):
    """Answer queries that arrive at random instants, in the order of their arrival."""

    order: Literal["serve"] = "serve"
    rate_hz: float
    requests: int
    bound_ms: float
    seconds: float = Field(description="Leave off after so long, however many were answered.")
    seed: int


class Loaded(_Message):
    """The model is in memory."""

    answer: Literal["loaded"] = "loaded"
    load_ms: float


class Ran(_Message):
    """The first, cold call is done."""

    answer: Literal["ran"] = "ran"
    first_ms: float
    query_size: int = Field(
        description="Samples of one query: more than were asked for where the model fixes its batch."
    )
    calls_per_query: int = Field(description="More than one where the model fixes its batch at less than a query.")


class Ready(_Message):
    """Warm. The times are those of a query."""

    answer: Literal["ready"] = "ready"
    warmup_ms: tuple[float, ...]
    queries_per_sample: int


class Samples(_Message):
    """One round: the time of a query in each sample, and what the round took."""

    answer: Literal["samples"] = "samples"
    lead_ms: float = Field(
        description="First query, which finds the caches as others left them; not among the samples."
    )
    samples_ms: tuple[float, ...]
    seconds: float
    queries: int
    cpu_seconds: float
    peak_memory_bytes: int


class Served(_Message):
    """Time from each query's arrival to its answer.

    Fewer than were asked for where the bound was broken for certain, or where the time was over.
    """

    answer: Literal["served"] = "served"
    latencies_ms: tuple[float, ...]
    peak_memory_bytes: int


class Broken(_Message):
    """It cannot be measured."""

    answer: Literal["broken"] = "broken"
    message: str


Order = Load | Measure | Serve
orders: TypeAdapter[Load | Measure | Serve] = TypeAdapter(Annotated[Order, Field(discriminator="order")])
Answer = Loaded | Ran | Ready | Samples | Served | Broken
answers: TypeAdapter[Loaded | Ran | Ready | Samples | Served | Broken] = TypeAdapter(
    Annotated[Answer, Field(discriminator="answer")]
)
