"""What the machine costs, whatever a model computes: calls, threads, and the way to memory."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from accel.benchmark.reasons.evidence import Evidence, Kernel
from accel.benchmark.reasons.operators import FAMILIES
from accel.benchmark.reasons.wording import kinds, listed, some, spent, total
from accel.report import OperatorTime, SpeedFinding

_OVERHEAD = 0.2
"""Share of a run from which calls are worth a line."""
_MEMORY = 0.05
_NEAR = 0.5
"""A layer that moves bytes at this share of a plain copy's speed waits for memory more than for arithmetic."""
_SMALL = 1 << 16
"""Bytes of a call below which everything is in the nearest cache."""
_COPIED = 1 << 26
_COPIES = 5
_CHAIN = 200
_CALLS = 30
_MATRIX = 2
_FEW_ROWS = 32
"""Bytes of activations for each row and column of a weight: eight rows of floats."""
_COPYING = frozenset({
    *FAMILIES["Changes of layout"], "Cast", "DequantizeLinear", "QuantizeLinear", "Abs", "Add", "Clip", "Div", "LeakyRelu",
    "Max", "Min", "Mul", "Neg", "Relu", "Sub", "Sum", "Where", "QLinearAdd", "QLinearMul",
})  # fmt: skip
"""Operators that do one operation, or none, for each number."""
_GB_PER_MS = 1e6


def oversubscribed(evidence: Evidence) -> Iterator[SpeedFinding]:
    """More threads than cores."""
    if evidence.threads > evidence.cores:
        yield SpeedFinding(
            kind="oversubscribed",
            text=f"{evidence.threads} threads share {evidence.cores} core{'s' if evidence.cores > 1 else ''}: they wait for "
            f"each other at the end of every operator, and short integer operators suffer most. Use {evidence.cores} at most.",
        )


def overhead(evidence: Evidence) -> Iterator[SpeedFinding]:
    """A model so small that calling its operators takes a good part of its time."""
    call_ms, operator_ms = call_cost()
    operators = sum(row.calls for row in evidence.after.profile.operators)
    before = sum(row.calls for row in evidence.before.profile.operators)
    run_ms = evidence.latency_ms or evidence.after.profile.run_ms
    cost_ms = call_ms + operators * operator_ms
    share = min(1.0, cost_ms / run_ms) if run_ms else 0.0
    if share < _OVERHEAD:
        return
    more = f" (the baseline has {before})" if before != operators else ""
    yield SpeedFinding(
        kind="overhead",
        share=share,
        text=f"A run takes {spent(run_ms)}, of which {spent(cost_ms)} or more are calls: {spent(call_ms)} for the run, and "
        f"{spent(operator_ms)} for each of {operators} operators{more}, measured on this host. Fewer bits do not change that: "
        "use larger batches or fewer operators. The profiler itself slows operators this small.",
    )


def memory(evidence: Evidence) -> Iterator[SpeedFinding]:
    """Layers whose time is near that of moving their bytes."""
    copy = copy_speed(min(evidence.threads, evidence.cores))
    rows = [
        row for row in evidence.after.profile.operators if row.operator in _COPYING and _near(_moved(row), row, copy)
    ]
    if evidence.share(sum(row.milliseconds for row in rows)) >= _MEMORY:
        ms, moved = sum(row.milliseconds for row in rows), sum(row.activation_bytes or 0 for row in rows)
        wanted = {row.operator for row in rows}
        yield SpeedFinding(
            kind="memory_bound",
            share=evidence.share(ms),
            nodes=some(kernel for kernel in evidence.after.kernels if kernel.operator in wanted),
            text=f"{listed([row.operator for row in rows])}: {_speed(moved, ms, copy)}. They move data more than they compute; "
            "only fewer or smaller tensors make that faster: fused operators, or 8 bits throughout.",
        )
    layers = [(kernel, moved) for kernel in evidence.after.kernels if (moved := _read_once(kernel, evidence, copy))]
    found = [kernel for kernel, _ in layers]
    if evidence.share(total(found)) >= _MEMORY:
        yield SpeedFinding(
            kind="memory_bound",
            share=evidence.share(total(found)),
            nodes=some(found),
            text=f"{len(found)} {kinds(found)} layer{'s' if len(found) > 1 else ''} with few rows: "
            f"{_speed(sum(moved for _, moved in layers), total(found), copy)}. Each weight is read for a few multiplications: "
            "larger batches share one reading, and weights in fewer bits help where they are computed with as they are.",
        )


def _moved(row: OperatorTime) -> int:
    return row.activation_bytes or 0


def _near(moved: int, row: OperatorTime, copy: float) -> bool:
    """Whether the time of an operator is near that of moving its bytes."""
    return (
        row.calls > 0
        and row.milliseconds > 0
        and moved / row.calls >= _SMALL
        and moved / row.milliseconds >= _NEAR * copy
    )


def _speed(moved: int, ms: float, copy: float) -> str:
    rate = f"{moved / ms / _GB_PER_MS:.0f} GB/s, and this host copies memory at {copy / _GB_PER_MS:.0f} GB/s"
    return f"{moved / 1e6:.3g} MB in {spent(ms)}, {rate}"


def _read_once(kernel: Kernel, evidence: Evidence, copy: float) -> int:
    """Bytes that a matrix product with few rows moves, if that is what it waits for; else 0."""
    constants = [evidence.after.initializers[name] for name in kernel.inputs if name in evidence.after.initializers]
    weight = max(constants, key=_bytes, default=None)
    if kernel.operator not in FAMILIES["Matrix products"] or weight is None or len(weight.dims) != _MATRIX:
        return 0
    if not kernel.activation_bytes or not kernel.ms:
        return 0
    rows = kernel.activation_bytes / sum(weight.dims)  # of one byte at least, so that there are no more than these
    moved = kernel.activation_bytes + _bytes(weight)
    return moved if rows <= _FEW_ROWS and moved >= _SMALL and moved / kernel.ms >= _NEAR * copy else 0


def _bytes(tensor: object) -> int:
    from onnx import TensorProto, helper

    if not isinstance(tensor, TensorProto):
        return 0
    elements = 1
    for size in tensor.dims:
        elements *= size
    if tensor.data_type in {TensorProto.INT4, TensorProto.UINT4}:
        return elements // 2
    return elements * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


@functools.cache
def copy_speed(threads: int) -> float:
    """Bytes a millisecond that this host reads and writes when so many threads copy 64 MB."""
    size = _COPIED // threads
    sources = [np.ones(size, np.uint8) for _ in range(threads)]
    targets = [np.empty(size, np.uint8) for _ in range(threads)]
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_COPIES):
            begin = time.perf_counter()
            list(pool.map(np.copyto, targets, sources))
            best = min(best, time.perf_counter() - begin)
    return 2 * size * threads / (best * 1e3)


@functools.cache
def call_cost() -> tuple[float, float]:
    """Milliseconds of a run with one operator on one number, and of each further operator, on this host."""
    one, many = _chain(1), _chain(_CHAIN)
    return one, max(0.0, many - one) / (_CHAIN - 1)


def _chain(length: int) -> float:
    """Median time of a run of so many operators, one after the other."""
    import onnxruntime as ort
    from onnx import TensorProto, helper

    nodes = [helper.make_node("Sin", [f"v{number}"], [f"v{number + 1}"]) for number in range(length)]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("v0", f"v{length}")]
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(helper.make_graph(nodes, "g", ports[:1], ports[1:]), opset_imports=[opset], ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"v0": np.ones(1, np.float32)}
    samples = []
    for _ in range(_CALLS):
        begin = time.perf_counter()
        session.run(None, feed)
        samples.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(samples)
