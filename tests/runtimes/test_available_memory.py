"""What is left for this process: on the machine, within its cgroups' limits, and on its GPU."""

from __future__ import annotations

import resource
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from messages import RuntimeNotAvailableError
from runtimes.available_memory import AvailableMemory, read_available_memory
from runtimes.config import C7InferenceConfig

MIB = 1024**2
ON_CPU = C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu")
ON_GPU = C7InferenceConfig(runtime="pytorch_fp16", device="cuda", device_index=1)
RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081\n"


def tree(root: Path, meminfo: str, *, jetson: bool = False) -> Path:
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text(meminfo)
    if jetson:
        (root / "etc").mkdir()
        (root / "etc/nv_tegra_release").write_text(RELEASE)
    return root


MEMINFO = "MemTotal:        7802996 kB\nMemFree:          209124 kB\nMemAvailable:    4194304 kB\nBuffers:  1 kB\n"


def test_available_is_what_the_kernel_says_can_be_had(tmp_path: Path) -> None:
    assert read_available_memory(ON_CPU, tree(tmp_path, MEMINFO)) == AvailableMemory(host_bytes=4 * 1024**3)


def test_this_machine_has_some_memory_left() -> None:
    assert read_available_memory(ON_CPU).host_bytes > MIB


def test_a_jetsons_gpu_has_no_memory_of_its_own(tmp_path: Path) -> None:
    available = read_available_memory(ON_GPU, tree(tmp_path, MEMINFO, jetson=True))
    assert available == AvailableMemory(host_bytes=4 * 1024**3, device_bytes=None)


@pytest.mark.parametrize("meminfo", ["", "MemTotal: 1 kB\n", "MemAvailable: lots\n", "MemAvailable: 12\n"])
def test_a_kernel_that_does_not_say_is_named(tmp_path: Path, meminfo: str) -> None:
    with pytest.raises(RuntimeNotAvailableError, match="proc/meminfo: expected a line 'MemAvailable: N kB'"):
        read_available_memory(ON_CPU, tree(tmp_path, meminfo))


def test_a_machine_without_meminfo_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeNotAvailableError, match="proc/meminfo"):
        read_available_memory(ON_CPU, tmp_path)


class NvmlError(Exception):
    pass


def nvml(free: dict[int, int]) -> types.ModuleType:
    """pynvml of a machine with these GPUs."""

    def handle(index: int) -> int:
        if index not in free:
            raise NvmlError("Invalid Argument")
        return index

    module = types.ModuleType("pynvml")
    functions = {
        "NVMLError": NvmlError,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetHandleByIndex": handle,
        "nvmlDeviceGetMemoryInfo": lambda index: types.SimpleNamespace(free=free[index], used=0),
    }
    module.__dict__.update(functions)
    return module


def test_the_configured_gpu_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml({0: 111, 1: 222}))
    assert read_available_memory(ON_GPU, tree(tmp_path, MEMINFO)).device_bytes == 222
    assert read_available_memory(ON_CPU, tmp_path).device_bytes is None


def test_a_gpu_that_does_not_say_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml({0: 111}))
    with pytest.raises(RuntimeNotAvailableError, match="GPU 1: expected NVML to tell its used and free memory"):
        read_available_memory(ON_GPU, tree(tmp_path, MEMINFO))


def limited(root: Path, cgroup: str, groups: dict[str, tuple[str, int, int]], *, v1: bool = False) -> int:
    """What is left under these groups: folder -> limit, usage and inactive cache."""
    tree(root, MEMINFO)
    (root / "proc/self").mkdir()
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, (limit, usage, cache) in groups.items():
        folder = root / "sys/fs/cgroup" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(f"{limit}\n")
        (folder / ("memory.usage_in_bytes" if v1 else "memory.current")).write_text(f"{usage}\n")
        (folder / "memory.stat").write_text(f"anon 1\n{'total_' if v1 else ''}inactive_file {cache}\nslab 2\n")
    return read_available_memory(ON_CPU, root).host_bytes // MIB


SERVICE = "0::/system.slice/c7.service\n"


def test_a_services_own_limit_counts_and_its_file_cache_is_given_back(tmp_path: Path) -> None:
    groups = {"system.slice/c7.service": (str(1000 * MIB), 300 * MIB, 50 * MIB)}
    assert limited(tmp_path, SERVICE, groups) == 750


def test_the_tightest_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    groups = {
        "system.slice/c7.service": ("max", 300 * MIB, 0),
        "system.slice": (str(2000 * MIB), 1990 * MIB, 0),
        "": (str(3000 * MIB), 1000 * MIB, 0),
    }
    assert limited(tmp_path, SERVICE, groups) == 10


def test_a_group_over_its_limit_leaves_nothing(tmp_path: Path) -> None:
    assert limited(tmp_path, SERVICE, {"system.slice/c7.service": (str(MIB), 2 * MIB, 0)}) == 0


def test_a_container_sees_its_own_group_as_the_uppermost(tmp_path: Path) -> None:
    assert limited(tmp_path, "0::/\n", {"": (str(512 * MIB), 112 * MIB, 0)}) == 400


def test_the_older_cgroups_count_too(tmp_path: Path) -> None:
    cgroup = "9:name=systemd:/\n4:cpu,memory:/docker/abc\n3:cpuset:/\n0::/\n"
    groups = {"memory/docker/abc": (str(600 * MIB), 100 * MIB, 0), "memory": (str(2**63 - 4096), 0, 0)}
    assert limited(tmp_path, cgroup, groups, v1=True) == 500


@pytest.mark.parametrize("cgroup", ["", "nonsense\n", "0::\n", SERVICE, "::::\n"])
def test_without_a_limit_the_machines_memory_counts(tmp_path: Path, cgroup: str) -> None:
    assert limited(tmp_path, cgroup, {"system.slice/c7.service": ("max", 1, 0)}) == 4096


def test_memory_that_this_process_has_freed_is_available() -> None:
    """Small blocks with one that stays at their end: the allocator keeps all of them until it is told."""

    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    blocks = [np.ones(8 * 1024) for _ in range(2048)]  # of 64 KiB
    last = blocks.pop()
    del blocks
    kept = resident_bytes()
    read_available_memory(ON_CPU)
    assert kept - resident_bytes() > 100 * MIB, "of 128 MiB"
    assert last[0] == 1
