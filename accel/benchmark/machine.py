"""The machine under a measurement: processor, governor, graphics processors, and what it is inside of."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from pathlib import Path

from accel.benchmark.cgroups import read
from accel.report import Gpu

_ROOT = Path("/")
_CONTAINERS = {
    "kubepods": "kubernetes",
    "docker": "docker",
    "libpod": "podman",
    "lxc": "lxc",
    "machine.slice": "systemd-nspawn",
}
"""What the paths of control groups say."""
_MACHINES = {
    "Amazon EC2": "Amazon EC2",
    "Google": "Google Compute Engine",
    "VMware": "VMware",
    "VirtualBox": "VirtualBox",
    "Microsoft Corporation Virtual": "Hyper-V",
    "QEMU": "QEMU",
    "KVM": "KVM",
    "Xen": "Xen",
}
"""What the firmware of virtual machines says of itself, by vendor and product."""


def processor(root: Path = _ROOT) -> tuple[str, frozenset[str]]:
    """The processor's name, and its flags as the kernel writes them."""
    fields: dict[str, str] = {}
    for line in read(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or platform.processor() or platform.machine()
    return name, frozenset(f"{fields.get('flags', '')} {fields.get('Features', '')}".split())


def governor(cores: Iterable[int], root: Path = _ROOT) -> str | None:
    """How the frequency of these cores is chosen; None where the system does not tell, as in most virtual machines."""
    folder = root / "sys/devices/system/cpu"
    found = {read(folder / f"cpu{core}/cpufreq/scaling_governor") for core in cores} - {""}
    return ", ".join(sorted(found)) or None


def container(root: Path = _ROOT) -> str | None:
    """The kind of container and of virtual machine that this process is in, as far as they can be told."""
    found = (_container(root), _virtual_machine(root))
    return ", ".join(kind for kind in found if kind) or None


def _container(root: Path) -> str:
    if (root / "run/secrets/kubernetes.io").exists() or (root / "var/run/secrets/kubernetes.io").exists():
        return "kubernetes"
    groups = read(root / "proc/1/cgroup") + read(root / "proc/self/cgroup")
    if kind := next((kind for word, kind in _CONTAINERS.items() if word in groups), ""):
        return kind
    if said := read(root / "run/systemd/container").split():
        return said[0]
    signs = {"run/.containerenv": "podman", ".dockerenv": "docker", "dev/lxd": "lxc"}
    return next((kind for sign, kind in signs.items() if (root / sign).exists()), "")


def _virtual_machine(root: Path) -> str:
    firmware = f"{read(root / 'sys/class/dmi/id/sys_vendor')} {read(root / 'sys/class/dmi/id/product_name')}"
    if kind := next((kind for word, kind in _MACHINES.items() if word in firmware), ""):
        # Amazon's and others' bare machines have the same firmware; only a guest's processor has this flag.
        return f"virtual machine ({kind})" if "hypervisor" in processor(root)[1] else ""
    return "virtual machine" if "hypervisor" in processor(root)[1] else ""


def gpus(root: Path = _ROOT) -> tuple[Gpu, ...]:
    """NVIDIA's graphics processors: by NVML where the package nvidia-ml-py is installed, else by what the driver shows."""
    return _by_nvml() or _by_driver(root)


def _by_nvml() -> tuple[Gpu, ...]:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # noqa: BLE001  (no package, no driver, no device, no permission: all mean that it tells nothing)
        return ()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
        driver = str(pynvml.nvmlSystemGetDriverVersion())
        return tuple(
            Gpu(
                name=str(pynvml.nvmlDeviceGetName(handle)),
                driver=driver,
                memory_bytes=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
            )
            for handle in handles
        )
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _by_driver(root: Path) -> tuple[Gpu, ...]:
    folder = root / "proc/driver/nvidia"
    words = read(folder / "version").partition("Kernel Module")[2].split()
    driver = next((word for word in words if word[0].isdigit()), "")
    try:
        found = sorted((folder / "gpus").iterdir())
    except OSError:
        return ()
    told = (dict(_pairs(read(gpu / "information"))) for gpu in found)
    return tuple(Gpu(name=fields.get("Model", "NVIDIA"), driver=driver) for fields in told)


def _pairs(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        key, _, value = line.partition(":")
        yield key.strip(), value.strip()
