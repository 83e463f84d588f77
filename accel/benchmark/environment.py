"""Where a measurement is made."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from accel.report import Environment

_LIBRARIES = ("onnxruntime", "onnxruntime-ep-openvino", "onnx", "onnx-ir", "numpy", "torch")
_FEATURES = (
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "sve",
    "i8mm",
)


def environment() -> Environment:
    """The processor, its usable cores, memory, load and libraries of this host."""
    cpu, flags = _cpu()
    return Environment(
        cpu=cpu,
        cpu_features=tuple(feature for feature in _FEATURES if feature in flags),
        cores=usable_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        libraries={name: found for name in _LIBRARIES if (found := installed(name))},
        load_before=_load(),
    )


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> tuple[str, frozenset[str]]:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine(), frozenset()
    fields: dict[str, str] = {}
    for line in info.read_text().splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags", "") + " " + fields.get("Features", "")
    return fields.get("model name", platform.machine()), frozenset(flags.split())


def _load() -> float | None:
    """Load average of the last minute, where the system tells."""
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


def installed(package: str) -> str | None:
    """Version of a package, or None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
