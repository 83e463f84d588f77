"""Where libraries with further execution providers come from: a setting, entry points, and packages that are installed."""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from accel.benchmark.environment import installed
from accel.runtimes.messages import clean

SETTING = "ACCEL_EXECUTION_PROVIDERS"
"""``Name=/path/to/library.so,Other=/path``: the providers of an operator."""
GROUP = "accel.execution_providers"
"""Entry points: the name is the provider's, the value is called for the path of its library."""
_PACKAGES = ("onnxruntime_ep_", "onnxruntime_qnn")
"""How the modules of packages begin that ONNX Runtime's guidance for plug-ins is for: ``get_library_path()`` and
``get_ep_name()`` (https://onnxruntime.ai/docs/execution-providers/plugin-ep-libraries/packaging.html)."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A library that brings an execution provider to ONNX Runtime."""

    provider: str
    library: str
    """Its path; empty where it has none."""
    version: str = ""
    """Of the package that it comes from."""
    reason: str = ""
    """Why it has no path."""


def plugins(environ: Mapping[str, str] = os.environ) -> tuple[Plugin, ...]:
    """Every plug-in of this host, one for each provider: the operator's setting first, then entry points, then packages."""
    found: dict[str, Plugin] = {}
    for plugin in (*configured(environ.get(SETTING, "")), *_of_entry_points(), *_of_packages()):
        found.setdefault(plugin.provider, plugin)
    return tuple(found.values())


def configured(setting: str) -> Iterator[Plugin]:
    """The plug-ins that the setting names; what is no name with an absolute path says so."""
    for item in filter(None, (part.strip() for part in setting.split(","))):
        name, _, path = (part.strip() for part in item.partition("="))
        if not name or not Path(path).is_absolute():
            yield Plugin(name or item, "", reason=f"{SETTING} needs Name=/path/to/library.so, not {item!r}")
        else:
            yield Plugin(name, path)


def folders(environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """What must be readable for the setting's plug-ins: their libraries, and the folders with what these load."""
    libraries = [Path(plugin.library) for plugin in configured(environ.get(SETTING, "")) if plugin.library]
    places = [place for library in libraries for place in (library, library.resolve())]
    # A library in the root folder must not open the whole file system.
    return tuple(dict.fromkeys(p.parent if p.parent != Path(p.anchor) else p for p in places))


def _of_entry_points() -> Iterator[Plugin]:
    for point in entry_points(group=GROUP):
        yield _asked(point.name, point)


def _asked(provider: str, point: EntryPoint) -> Plugin:
    version = point.dist.version if point.dist else ""
    try:
        return Plugin(provider, str(point.load()()), version)
    except Exception as error:  # noqa: BLE001  (others' code may fail in any way; the reason is shown to the operator)
        reason = f"the entry point {point.value} gives no library: {clean(str(error) or repr(error))}"
        return Plugin(provider, "", version, reason)


@functools.cache
def _of_packages() -> tuple[Plugin, ...]:
    names = [module.name for module in pkgutil.iter_modules() if module.name.startswith(_PACKAGES)]
    return tuple(_of_package(name) for name in sorted(names))


def _of_package(name: str) -> Plugin:
    provider, version = name.removeprefix("onnxruntime_ep_"), installed(name.replace("_", "-")) or ""
    try:
        module = importlib.import_module(name)
        provider = str(module.get_ep_name())
        return Plugin(provider, str(module.get_library_path()), version)
    except Exception as error:  # noqa: BLE001  (as above)
        reason = f"the package {name} gives no library: {clean(str(error) or repr(error))}"
        return Plugin(provider, "", version, reason)
