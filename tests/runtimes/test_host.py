"""The host tuple: read from recorded file trees of Jetsons and workstations, and compared."""

from __future__ import annotations

import shutil
import sys
import types
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import RuntimeNotAvailableError
from runtimes import host as host_module
from runtimes.host import JETPACK_OF_L4T, detect_gpu, detect_host, host_differences
from runtimes.inference_runtime import HostTuple

ORIN_RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan 8 2025\n"
ORIN_COMPATIBLE = "nvidia,p3768-0000+p3767-0000-super\0nvidia,p3767-0000\0nvidia,tegra234\0"
XEON_CPUINFO = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Xeon(R) Gold 6248\n"

DPKG_STATUS = """Package: nvidia-jetpack
Status: install ok installed
Architecture: arm64
Version: 6.9+b12
Description: a release of the future

Package: nvidia-l4t-core
Status: install ok installed
Architecture: arm64
Version: 36.9.1-20270101010101
Description: its core
"""

needs_dpkg = pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="no dpkg on this machine")


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def orin(root: Path, release: str = ORIN_RELEASE) -> Path:
    return write_tree(
        root,
        {
            "etc/nv_tegra_release": release,
            "proc/device-tree/compatible": ORIN_COMPATIBLE,
            "proc/device-tree/model": "NVIDIA Jetson Orin NX Engineering Reference Developer Kit Super\0",
            "proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x41\n",
        },
    )


def some_host(**changes: int | str) -> HostTuple:
    fields: dict[str, int | str] = {
        "sm": 87,
        "sm_count": 8,
        "device_name": "Orin",
        "jetpack": "6.2",
        "l4t": "36.4.3",
        "tensorrt": "10.3.0.30",
        "cuda": "12.6",
        "machine": "aarch64",
        "runtime_version": "10.3.0.30",
    }
    return msgspec.convert({**fields, **changes}, HostTuple)


def test_a_jetson_is_told_by_its_release_file(tmp_path: Path) -> None:
    found = detect_host("10.3.0.30", orin(tmp_path))
    assert (found.l4t, found.jetpack, found.sm) == ("36.4.3", "6.2", 87)
    assert found.device_name == "NVIDIA Jetson Orin NX Engineering Reference Developer Kit Super"
    assert found.runtime_version == "10.3.0.30"


@pytest.mark.parametrize(("l4t", "jetpack"), JETPACK_OF_L4T.items())
def test_every_known_release_has_its_jetpack(tmp_path: Path, l4t: str, jetpack: str) -> None:
    major, _, revision = l4t.partition(".")
    release = f"# R{major} (release), REVISION: {revision}, GCID: 1\n"
    found = detect_host("0", orin(tmp_path, release))
    assert (found.l4t, found.jetpack) == (l4t, jetpack)


def test_a_workstation_has_no_jetpack_and_no_sm(tmp_path: Path) -> None:
    found = detect_host("1.31.1", write_tree(tmp_path, {"proc/cpuinfo": XEON_CPUINFO}))
    assert (found.l4t, found.jetpack, found.sm, found.sm_count, found.cuda) == ("0", "0", 0, 0, "0")
    assert found.device_name == "Intel(R) Xeon(R) Gold 6248"


@needs_dpkg
def test_a_release_newer_than_the_table_is_named_by_its_package(tmp_path: Path) -> None:
    root = orin(tmp_path, "# R36 (release), REVISION: 9.1, GCID: 1\n")
    write_tree(root, {"var/lib/dpkg/status": DPKG_STATUS})
    assert detect_host("0", root).jetpack == "6.9"


def test_a_release_that_nobody_names_keeps_a_name_of_its_own(tmp_path: Path) -> None:
    found = detect_host("0", orin(tmp_path, "# R36 (release), REVISION: 9.1, GCID: 1\n"))
    assert found.jetpack == "l4t-36.9.1"


@needs_dpkg
def test_a_jetson_without_the_release_file_is_told_by_its_core_package(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"proc/device-tree/compatible": ORIN_COMPATIBLE, "var/lib/dpkg/status": DPKG_STATUS})
    assert detect_host("0", root).l4t == "36.9.1"


def test_a_jetson_that_cannot_be_told_is_refused(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "container", {"proc/device-tree/compatible": ORIN_COMPATIBLE})
    with pytest.raises(RuntimeNotAvailableError, match="mount this file"):
        detect_host("0", root)
    with pytest.raises(RuntimeNotAvailableError, match=r"REVISION: 4\.3"):
        detect_host("0", orin(tmp_path / "garbled", "JetPack six or so"))


def test_this_machine_has_a_tuple_that_compares_equal_to_itself() -> None:
    assert host_differences(detect_host("1"), detect_host("1")) == []


def test_each_difference_is_named_with_both_values() -> None:
    assert host_differences(some_host(), some_host(sm=0, jetpack="6.2.1")) == [
        "sm: engine 87, host 0",
        "jetpack: engine 6.2, host 6.2.1",
    ]


@given(st.sets(st.sampled_from(HostTuple.__struct_fields__)))
def test_exactly_the_fields_that_differ_are_named(changed: set[str]) -> None:
    expected = some_host()
    changes = {name: 99 if name in ("sm", "sm_count") else "other" for name in changed}
    named = [line.partition(":")[0] for line in host_differences(expected, some_host(**changes))]
    assert set(named) == changed


class RecordedNvml(types.ModuleType):
    """NVML as it answers on an Orin; `faults` are the calls that fail."""

    class NVMLError(Exception):
        pass

    def __init__(self, *faults: str) -> None:
        super().__init__("pynvml")
        self.faults = faults
        self.open = 0

    def _answer(self, call: str, value: object) -> object:
        if call in self.faults:
            raise self.NVMLError(call)
        return value

    def nvmlInit(self) -> None:  # noqa: N802
        self._answer("init", None)
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:  # noqa: N802
        return self._answer("handle", index)

    def nvmlDeviceGetCudaComputeCapability(self, handle: object) -> object:  # noqa: N802
        return self._answer("capability", (8, 7))

    def nvmlSystemGetCudaDriverVersion_v2(self) -> object:  # noqa: N802
        return self._answer("driver", 12060)

    def nvmlDeviceGetName(self, handle: object) -> object:  # noqa: N802
        return self._answer("name", "Orin (nvgpu)")

    def nvmlDeviceGetNumGpuCores(self, handle: object) -> object:  # noqa: N802
        return self._answer("cores", 1024)


@pytest.fixture
def uncached() -> None:
    detect_gpu.cache_clear()


@pytest.mark.usefixtures("uncached")
def test_a_gpu_is_told_without_a_cuda_context(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = RecordedNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert detect_gpu.__wrapped__(0) == host_module.Gpu(sm=87, sm_count=8, name="Orin (nvgpu)", cuda="12.6")
    assert nvml.open == 0


@pytest.mark.parametrize("fault", ["init", "handle", "capability", "driver", "name"])
def test_a_machine_whose_driver_does_not_answer_has_no_gpu(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    nvml = RecordedNvml(fault)
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert detect_gpu.__wrapped__(0) is None
    assert nvml.open == 0


def test_a_board_that_does_not_count_its_cores_still_has_an_sm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", RecordedNvml("cores"))
    gpu = detect_gpu.__wrapped__(0)
    assert gpu is not None
    assert (gpu.sm, gpu.sm_count) == (87, 0)
