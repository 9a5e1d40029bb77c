"""Which machine this is, as far as an engine cares: the tuple that a compiled engine is bound to."""

from __future__ import annotations

import functools
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

import msgspec

from messages.errors import RuntimeNotAvailableError
from runtimes.inference_runtime import HostTuple

NOT_INSTALLED = "0"

JETPACK_OF_L4T = {
    "35.1.0": "5.0.2",
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    "35.6.1": "5.1.5",
    "35.6.2": "5.1.5",
    "35.6.3": "5.1.5",
    "35.6.4": "5.1.6",
    "35.6.5": "5.1.7",
    "36.2.0": "6.0-dp",
    "36.3.0": "6.0",
    "36.4.0": "6.1",
    "36.4.2": "6.1-rev1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5.0": "6.2.2",
    "36.5.2": "6.2.3",
}
"""NVIDIA's release pages, as collected in jetson-stats 7.2. The `nvidia-jetpack` package is often not installed."""

_SM_OF_TEGRA = {"nvidia,tegra194": 72, "nvidia,tegra234": 87}
_CORES_PER_SM = {70: 64, 72: 64, 75: 64, 80: 64, 86: 128, 87: 128, 89: 128, 90: 128, 100: 128, 110: 128, 120: 128}
"""CUDA C++ Programming Guide, arithmetic instructions: fp32 lanes of one multiprocessor."""

_TEGRA_RELEASE = re.compile(r"R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)")
_DPKG_TIMEOUT_S = 5.0


class Gpu(msgspec.Struct, frozen=True):
    """What NVML tells without creating a CUDA context."""

    sm: int
    sm_count: int
    name: str
    cuda: str


def detect_host(
    runtime_version: str, root: Path = Path("/"), *, device_index: int = 0, tensorrt: str = NOT_INSTALLED
) -> HostTuple:
    """Describe this machine. `runtime_version` is the version of the library that runs the engines.

    `tensorrt` is the version that TensorRT says of itself, where it was asked; its package knows the build too.
    Another `root` is the recorded file tree of another machine, and the GPU of this one is left out of it. Raises
    RuntimeNotAvailableError on a Jetson whose release cannot be read.
    """
    gpu = detect_gpu(device_index) if root == Path("/") else None
    l4t = _l4t(root)
    return HostTuple(
        sm=gpu.sm if gpu else _tegra_sm(root),
        sm_count=gpu.sm_count if gpu else 0,
        device_name=gpu.name if gpu else _processor_name(root),
        jetpack=NOT_INSTALLED if l4t == NOT_INSTALLED else _jetpack(l4t, root),
        l4t=l4t,
        tensorrt=_installed_version("tensorrt", "tensorrt_cu12", otherwise=tensorrt),
        cuda=gpu.cuda if gpu else NOT_INSTALLED,
        machine=platform.machine(),
        runtime_version=runtime_version,
    )


def host_differences(expected: HostTuple, found: HostTuple) -> list[str]:
    """What keeps an engine built on `expected` from running on `found`, one line a field: `sm: engine 87, host 0`."""
    return [
        f"{field}: engine {getattr(expected, field)}, host {getattr(found, field)}"
        for field in HostTuple.__struct_fields__
        if getattr(expected, field) != getattr(found, field)
    ]


def is_jetson(root: Path = Path("/")) -> bool:
    """Whether the machine whose file tree is `root` is a Jetson: by its release file, or by its device tree."""
    return (root / "etc" / "nv_tegra_release").exists() or any("nvidia,tegra" in name for name in _compatible(root))


@functools.lru_cache(maxsize=16)
def detect_gpu(device_index: int = 0) -> Gpu | None:
    """The GPU at NVML's index, or None where there is no driver or no such GPU. Asked once per process."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(device_index)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        sm = major * 10 + minor
        cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        return Gpu(sm, _sm_count(handle, sm), str(pynvml.nvmlDeviceGetName(handle)), _cuda_version(cuda))
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _sm_count(handle: object, sm: int) -> int:
    import pynvml

    try:
        cores = int(pynvml.nvmlDeviceGetNumGpuCores(handle))
    except pynvml.NVMLError:
        return 0
    return cores // _CORES_PER_SM[sm] if sm in _CORES_PER_SM else 0


def _cuda_version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _l4t(root: Path) -> str:
    release = root / "etc" / "nv_tegra_release"
    text = _read_text(release)
    if text is not None:
        match = _TEGRA_RELEASE.search(text)
        if match is None:
            raise RuntimeNotAvailableError(
                f"{release}: expected '# R36 (release), REVISION: 4.3, ...', found {text[:80]!r}; which JetPack this"
                " Jetson runs cannot be told, so no engine can be bound to it"
            )
        return f"{match[1]}.{match[2]}"
    if not is_jetson(root):
        return NOT_INSTALLED
    package = _dpkg_version("nvidia-l4t-core", root)
    if package is None:
        raise RuntimeNotAvailableError(
            f"{release}: expected on a Jetson, found none, and no package nvidia-l4t-core; in a container, mount this"
            " file from the board"
        )
    return package.partition("-")[0]


def _jetpack(l4t: str, root: Path) -> str:
    known = JETPACK_OF_L4T.get(l4t)
    if known is not None:
        return known
    package = _dpkg_version("nvidia-jetpack", root)
    # A release newer than the table still has a name of its own: engines stay bound to it.
    return f"l4t-{l4t}" if package is None else package.partition("+")[0]


def _dpkg_version(package: str, root: Path) -> str | None:
    """The version of an installed package, None where it or dpkg itself is missing."""
    command = [
        "dpkg-query",
        f"--admindir={root / 'var' / 'lib' / 'dpkg'}",
        "--show",
        "--showformat=${Version}",
        package,
    ]
    try:
        answer = subprocess.run(  # noqa: S603 - a fixed command, no shell
            command, capture_output=True, text=True, timeout=_DPKG_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = answer.stdout.strip()
    return version if answer.returncode == 0 and version else None


def _compatible(root: Path) -> list[str]:
    text = _read_text(root / "proc" / "device-tree" / "compatible")
    return [] if text is None else [name for name in text.split("\0") if name]


def _tegra_sm(root: Path) -> int:
    return next((_SM_OF_TEGRA[name] for name in _compatible(root) if name in _SM_OF_TEGRA), 0)


def _processor_name(root: Path) -> str:
    """The board's name from the device tree, else x86's processor name; Arm's /proc/cpuinfo has none."""
    board = _read_text(root / "proc" / "device-tree" / "model")
    if board is not None and board.strip("\0 \n"):
        return board.strip("\0 \n")
    for line in (_read_text(root / "proc" / "cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def _installed_version(*distributions: str, otherwise: str) -> str:
    versions = (_distribution_version(name) for name in distributions)
    return next((version for version in versions if version is not None), otherwise)


def _distribution_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RuntimeNotAvailableError(f"{path}: this host cannot be told: {error.strerror}") from error
