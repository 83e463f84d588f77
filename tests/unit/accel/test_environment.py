"""What a report says of the host, read from the kernel's files: here a tree of such files that is made for each test."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.benchmark import cgroups, machine
from accel.benchmark.cgroups import Throttling
from accel.benchmark.energy import open_meter
from accel.benchmark.environment import THREAD_SETTINGS, environment, fingerprint
from accel.benchmark.system_times import (
    SystemTimes,
    busy_cores,
    cores_in_use,
    is_busy,
    steal_share,
    system_times,
    throttled_share,
)

CORES = sorted(os.sched_getaffinity(0))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_this_host_is_described() -> None:
    found = environment()
    assert found.cores == len(found.affinity) == len(CORES)
    assert found.libraries.keys() >= {"numpy", "onnx", "onnx-ir", "onnxruntime", "scikit-learn", "polars", "scipy"}
    assert found.memory_bytes > 0
    assert len(found.fingerprint) == 16
    assert environment().fingerprint == found.fingerprint


def test_thread_settings_are_told(tmp_path: Path) -> None:
    found = environment(tmp_path, {"OMP_NUM_THREADS": "3", "KMP_BLOCKTIME": "0", "HOME": "/root"})
    assert found.thread_settings == {"OMP_NUM_THREADS": "3", "KMP_BLOCKTIME": "0"}
    assert "OMP_NUM_THREADS" in THREAD_SETTINGS


def test_a_system_that_tells_nothing_leaves_fields_empty(tmp_path: Path) -> None:
    found = environment(tmp_path, {})
    assert (found.governor, found.cpu_limit, found.memory_limit_bytes, found.container) == (None, None, None, None)
    assert found.cpu_features == ()
    assert found.gpus == ()


def test_what_changes_figures_changes_the_fingerprint_and_load_does_not() -> None:
    here = environment()
    same = here.model_copy(update={"load_before": 99.0, "memory_bytes": 1, "python": "3.99"})
    assert fingerprint(same) == here.fingerprint
    for change in (
        {"cpu": "another"},
        {"cpu_features": (*here.cpu_features, "new")},
        {"cores": here.cores + 1},
        {"cpu_limit": 0.5},
        {"governor": "powersave"},
        {"libraries": {**here.libraries, "onnxruntime": "0.1"}},
        {"thread_settings": {"OMP_NUM_THREADS": "1"}},
    ):
        assert fingerprint(here.model_copy(update=change)) != here.fingerprint
    other = {**here.libraries, "scikit-learn": "0.1"}
    assert fingerprint(here.model_copy(update={"libraries": other})) == here.fingerprint


class TestControlGroups:
    def test_version_2_takes_the_tightest_limit_up_to_the_top(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            {
                "proc/self/cgroup": "0::/slice/job\n",
                "sys/fs/cgroup/slice/job/cpu.max": "max 100000\n",
                "sys/fs/cgroup/slice/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/slice/cpu.stat": "usage_usec 5\nnr_periods 40\nnr_throttled 10\nthrottled_usec 7\n",
                "sys/fs/cgroup/slice/job/memory.max": "2000000\n",
                "sys/fs/cgroup/slice/memory.max": "1000000\n",
            },
        )
        assert cgroups.cpu_limit(tmp_path) == 1.5
        assert cgroups.memory_limit(tmp_path) == 1_000_000
        assert cgroups.throttling(tmp_path) == Throttling(40, 10)

    def test_version_1_and_its_word_for_no_limit(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            {
                "proc/self/cgroup": "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.stat": "nr_periods 3\nnr_throttled 1\nthrottled_time 9\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "9223372036854771712\n",
            },
        )
        assert cgroups.cpu_limit(tmp_path) == 0.5
        assert cgroups.memory_limit(tmp_path) is None
        assert cgroups.throttling(tmp_path) == Throttling(3, 1)

    def test_a_container_that_sees_its_own_group_at_the_top(self, tmp_path: Path) -> None:
        """The path is the host's; in the container's view of the file system it is not there."""
        write(tmp_path, {"proc/self/cgroup": "0::/../../kubepods/x\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"})
        assert cgroups.cpu_limit(tmp_path) == 2.0


class TestMachine:
    @pytest.mark.parametrize(
        ("files", "kind"),
        [
            ({".dockerenv": ""}, "docker"),
            ({"run/.containerenv": ""}, "podman"),
            ({"run/secrets/kubernetes.io/serviceaccount/token": "", ".dockerenv": ""}, "kubernetes"),
            ({"proc/1/cgroup": "0::/kubepods.slice/pod1\n"}, "kubernetes"),
            ({"proc/1/cgroup": "12:memory:/lxc/box\n"}, "lxc"),
            ({"run/systemd/container": "systemd-nspawn\n"}, "systemd-nspawn"),
            ({"proc/cpuinfo": "flags : fpu hypervisor\n"}, "virtual machine"),
            (
                {
                    "proc/cpuinfo": "flags : fpu hypervisor\n",
                    "sys/class/dmi/id/sys_vendor": "Amazon EC2\n",
                    ".dockerenv": "",
                },
                "docker, virtual machine (Amazon EC2)",
            ),
            ({"proc/cpuinfo": "flags : fpu\n", "sys/class/dmi/id/sys_vendor": "Amazon EC2\n"}, None),
            ({"proc/1/cgroup": "0::/init.scope\n"}, None),
        ],
    )
    def test_what_it_is_inside_of(self, tmp_path: Path, files: dict[str, str], kind: str | None) -> None:
        assert machine.container(write(tmp_path, files)) == kind

    def test_processor_of_x86_and_of_arm(self, tmp_path: Path) -> None:
        x86 = write(
            tmp_path / "x86", {"proc/cpuinfo": "model name\t: Zeta\nflags\t\t: avx2 avx512f\n\nflags : other\n"}
        )
        assert machine.processor(x86) == ("Zeta", frozenset({"avx2", "avx512f"}))
        arm = write(tmp_path / "arm", {"proc/cpuinfo": "processor : 0\nFeatures : asimd asimddp\n"})
        assert machine.processor(arm)[1] == {"asimd", "asimddp"}

    def test_governors_of_the_cores_that_may_be_used(self, tmp_path: Path) -> None:
        folder = "sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor"
        write(tmp_path, {folder.format(0): "performance\n", folder.format(1): "powersave\n"})
        assert machine.governor([0], tmp_path) == "performance"
        assert machine.governor([0, 1], tmp_path) == "performance, powersave"
        assert machine.governor([7], tmp_path) is None

    def test_graphics_processors_that_only_the_driver_shows(self, tmp_path: Path) -> None:
        write(
            tmp_path,
            {
                "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue\n",
                "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA L4\nIRQ: 5\n",
            },
        )
        (gpu,) = machine.gpus(tmp_path)
        assert (gpu.name, gpu.driver, gpu.memory_bytes) == ("NVIDIA L4", "550.54.15", None)


class TestSystemTimes:
    def stat(self, root: Path, *, user: int, idle: int, steal: int) -> SystemTimes:
        lines = [f"cpu{core} {user} 0 0 {idle} 0 0 0 {steal} 0 0" for core in (*CORES, 4_000)]
        write(root, {"proc/stat": "\n".join(["cpu  1 1 1 1 1 1 1 1 1 1", *lines, "intr 5"])})
        return system_times(root)

    def test_shares_between_two_readings(self, tmp_path: Path) -> None:
        before = self.stat(tmp_path, user=100, idle=1_000, steal=0)
        after = self.stat(tmp_path, user=150, idle=1_040, steal=10)
        assert steal_share(before, after) == pytest.approx(0.1)
        assert cores_in_use(before, after) == pytest.approx(0.6 * len(CORES))
        assert throttled_share(before, after) is None

    def test_a_system_without_counters_says_nothing(self, tmp_path: Path) -> None:
        reading = system_times(tmp_path)
        assert reading.total is None
        assert steal_share(reading, reading) is None
        assert cores_in_use(reading, reading) is None
        assert busy_cores(0.0, tmp_path) is None
        assert not is_busy(None)

    def test_throttling_between_two_readings(self) -> None:
        before = SystemTimes(0.0, None, None, None, Throttling(100, 10))
        after = SystemTimes(1.0, None, None, None, Throttling(110, 15))
        assert throttled_share(before, after) == 0.5
        assert throttled_share(before, before) is None

    def test_this_host(self) -> None:
        before = system_times()
        while (after := system_times()).total == before.total:
            pass
        used = cores_in_use(before, after)
        assert used is not None
        assert 0 <= used <= len(CORES)


class TestEnergy:
    def zone(self, root: Path, number: str, name: str, energy: int, largest: int = 1_000) -> Path:
        folder = f"intel-rapl:{number}"
        files = {"name": name, "energy_uj": str(energy), "max_energy_range_uj": str(largest)}
        return write(root, {f"{folder}/{file}": f"{text}\n" for file, text in files.items()}) / folder

    def test_packages_and_memory_are_summed_and_their_parts_not_counted_twice(self, tmp_path: Path) -> None:
        package = self.zone(tmp_path, "0", "package-0", 100, 10**9)
        memory = self.zone(tmp_path, "0:1", "dram", 50, 10**9)
        core = self.zone(tmp_path, "0:0", "core", 70, 10**9)
        whole = self.zone(tmp_path, "1", "psys", 900, 10**9)
        meter = open_meter(tmp_path)
        assert meter is not None
        assert meter.joules() == 0
        for zone, energy in ((package, 2_000_100), (memory, 1_000_050), (core, 10**8), (whole, 10**8)):
            (zone / "energy_uj").write_text(f"{energy}\n")
        assert meter.joules() == pytest.approx(3.0)

    @given(steps=st.lists(st.integers(0, 999), max_size=20))
    def test_a_counter_that_begins_anew_is_counted_on(self, steps: list[int]) -> None:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            zone = self.zone(Path(folder), "0", "package-0", 990, 999)
            meter = open_meter(Path(folder))
            assert meter is not None
            now = 990
            for step in steps:
                now = (now + step) % 1_000
                (zone / "energy_uj").write_text(str(now))
                meter.joules()
            assert meter.joules() == pytest.approx(sum(steps) / 1e6)

    def test_none_where_a_counter_is_missing_or_must_not_be_read(self, tmp_path: Path) -> None:
        assert open_meter(tmp_path / "nothing") is None
        self.zone(tmp_path, "0", "package-0", 5)
        second = self.zone(tmp_path, "1", "package-1", 5)
        (second / "energy_uj").unlink()
        assert open_meter(tmp_path) is None  # one package of two would be taken for both

    def test_none_without_graphics_processors(self) -> None:
        pytest.importorskip("onnxruntime")
        if not Path("/proc/driver/nvidia").exists():
            assert open_meter(gpu=True) is None
