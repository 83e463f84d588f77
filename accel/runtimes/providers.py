"""Execution providers of ONNX Runtime: those that it was built with, and those that plug-ins bring."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from accel.runtimes import openvino
from accel.runtimes.messages import clean
from accel.runtimes.names import DEFAULT, full_name, runtime_of
from accel.runtimes.plugins import Plugin, plugins

if TYPE_CHECKING:
    import onnxruntime as ort

CPU = "CPUExecutionProvider"
_NO_DEVICES = frozenset({"AzureExecutionProvider"})
"""Providers that send inputs to another computer: they run nothing here."""
_KINDS = ("NPU", "GPU", "CPU")
_KINDS_OF = {openvino.PROVIDER: ("CPU", "GPU", "NPU")}
"""Which of a provider's devices has its plain name; the others have it with their kind behind."""


@dataclass(frozen=True, slots=True)
class Provider:
    """An execution provider with one device; it can be used where there is no ``reason`` against it."""

    runtime: str
    provider: str
    device: str = ""
    version: str = ""
    reason: str = ""
    native: ort.OrtEpDevice | None = None
    """How a plug-in is asked for; None for what ONNX Runtime was built with."""

    def options(self, threads: int | None) -> dict[str, str]:
        """Its options for so many threads; None leaves them to the provider."""
        return openvino.options(self.device, threads) if self.provider == openvino.PROVIDER else {}


def providers(environ: Mapping[str, str] = os.environ) -> tuple[Provider, ...]:
    """Every execution provider of this host, the processor first, and what does not work with the reason."""
    tried = [
        Provider(runtime_of(plugin.provider), plugin.provider, version=plugin.version, reason=register(plugin))
        for plugin in plugins(environ)
    ]
    if openvino.PROVIDER not in {one.provider for one in tried}:
        tried.append(Provider(runtime_of(openvino.PROVIDER), openvino.PROVIDER, reason=openvino.MISSING))
    there = list(_there())
    works = {one.provider for one in there}
    found = [*there, *(one for one in tried if one.reason and one.provider not in works)]
    return tuple(_named_apart(sorted(found, key=lambda one: one.runtime != DEFAULT)))


def provider_of(runtime: str, environ: Mapping[str, str] = os.environ) -> Provider | None:
    """The provider of a runtime; None where there is none of that name.

    Only plug-ins of that name are loaded if that is enough: others would take memory that is measured.
    """
    if runtime == DEFAULT:
        return Provider(DEFAULT, CPU, "CPU")
    for plugin in plugins(environ):
        if runtime.startswith(runtime_of(plugin.provider)) and not register(plugin):
            found = next((one for one in _there() if one.runtime == runtime), None)
            if found is not None:
                return found
    return next((one for one in providers(environ) if one.runtime == runtime), None)


def register(plugin: Plugin) -> str:
    """Load a plug-in into ONNX Runtime, once; the answer is why it is of no use here, if so."""
    if not plugin.library:
        return plugin.reason
    return _register(plugin.provider, plugin.library)


@functools.cache
def _register(provider: str, library: str) -> str:
    import onnxruntime as ort

    before = len(ort.get_ep_devices())
    try:
        ort.register_execution_provider_library(provider, library)
    except Exception as error:  # noqa: BLE001  (a plug-in may fail in any way; the reason is shown to the operator)
        if "already registered" not in str(error):
            return f"its library does not load: {clean(str(error))}"
    devices = ort.get_ep_devices()
    if len(devices) > before or any(device.ep_name == provider for device in devices):
        return ""
    return openvino.NO_DEVICE if provider == openvino.PROVIDER else "its library loads, but finds no device here"


def _there() -> Iterator[Provider]:
    """What ONNX Runtime offers in this process now."""
    import onnxruntime as ort

    devices: dict[tuple[str, str], ort.OrtEpDevice] = {}
    for device in ort.get_ep_devices():
        devices.setdefault((device.ep_name, device.device.type.name), device)
    for name in dict.fromkeys(name for name, _ in devices):
        kinds = sorted((kind for other, kind in devices if other == name), key=_KINDS_OF.get(name, _KINDS).index)
        for kind in kinds:
            device = devices[name, kind]
            runtime = runtime_of(name) + (f"_{kind.lower()}" if kind != kinds[0] else "")
            version = device.ep_metadata.get("version") or ort.__version__
            yield Provider(runtime, name, kind, version, native=None if name == CPU else device)
    plugged = {name for name, _ in devices}
    for name in ort.get_available_providers():
        if name not in plugged | _NO_DEVICES:
            yield Provider(runtime_of(name), name, full_name(name).upper(), ort.__version__)


def _named_apart(found: list[Provider]) -> Iterator[Provider]:
    """The same, where two providers of one name would be taken for each other: the second has its own, longer one."""
    taken: set[str] = set()
    for one in found:
        name = one.runtime if one.runtime not in taken else f"onnxruntime:{full_name(one.provider)}"
        if name not in taken:
            taken.add(name)
            yield replace(one, runtime=name)
