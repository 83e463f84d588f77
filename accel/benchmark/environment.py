"""Where a measurement is made."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from accel.benchmark import machine
from accel.benchmark.cgroups import cpu_limit, memory_limit
from accel.report import Environment

THREAD_SETTINGS = (
    "OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "OMP_DYNAMIC", "OMP_PROC_BIND", "OMP_PLACES", "OMP_WAIT_POLICY",
    "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "KMP_BLOCKTIME", "KMP_HW_SUBSET", "MKL_NUM_THREADS", "MKL_DYNAMIC",
    "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS", "POLARS_MAX_THREADS",
)  # fmt: skip
"""Variables that tell libraries how many threads to take, and where."""
_RUNTIMES = ("onnxruntime", "openvino", "torch")
"""Packages whose version changes figures of speed; how their names begin."""
_LIBRARIES = frozenset({
    "numpy", "nvidia-ml-py", "onnx", "onnx-ir", "onnxscript", "polars", "scikit-learn", "scipy", "torchmetrics",
})  # fmt: skip
_FEATURES = (
    "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimd", "asimddp", "sve", "i8mm",
)  # fmt: skip
_ROOT = Path("/")


def environment(root: Path = _ROOT, environ: Mapping[str, str] = os.environ) -> Environment:
    """The processor, its usable cores, limits, memory, load and libraries of this host.

    Args:
        root: Where the kernel's folders ``proc`` and ``sys`` are.
        environ: Variables of the environment.
    """
    cpu, flags = machine.processor(root)
    cores = affinity()
    found = Environment(
        cpu=cpu,
        cpu_features=tuple(feature for feature in _FEATURES if feature in flags),
        cores=usable_cores(),
        affinity=cores,
        governor=machine.governor(cores, root),
        cpu_limit=cpu_limit(root),
        memory_limit_bytes=memory_limit(root),
        container=machine.container(root),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpus=machine.gpus(root),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        libraries=dict(libraries()),
        thread_settings={name: environ[name] for name in THREAD_SETTINGS if name in environ},
        load_before=_load(),
    )
    return found.model_copy(update={"fingerprint": fingerprint(found)})


def fingerprint(found: Environment) -> str:
    """Sixteen digits that are equal where figures of speed may be compared: what changes them, but not the load."""
    kernel, _, machine_name = found.platform.partition(" ")
    parts = {
        "cpu": found.cpu,
        "features": found.cpu_features,
        "cores": found.cores,
        "affinity": len(found.affinity),
        "cpu_limit": found.cpu_limit,
        "governor": found.governor,
        "system": (kernel, machine_name.rpartition(" ")[2]),
        "gpus": [gpu.model_dump() for gpu in found.gpus],
        "runtimes": {name: held for name, held in found.libraries.items() if name.startswith(_RUNTIMES)},
        "threads": found.thread_settings,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def affinity() -> tuple[int, ...]:
    """Numbers of the cores that this process may use; empty where the system has no such thing."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(affinity()) or os.cpu_count() or 1


@functools.cache
def libraries() -> tuple[tuple[str, str], ...]:
    """Name and version of every installed package that figures depend on."""
    names = ((str(one.name).lower().replace("_", "-"), one.version) for one in distributions() if one.name)
    return tuple(
        sorted({name: held for name, held in names if name in _LIBRARIES or name.startswith(_RUNTIMES)}.items())
    )


def installed(package: str) -> str | None:
    """Version of a package, or None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _load() -> float | None:
    """Load average of the last minute, where the system tells."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None
