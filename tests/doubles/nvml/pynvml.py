"""Stands before NVIDIA's `pynvml` on the path of a process: NVML's answers about the double of the CUDA device.

The compute capability and the name are those of an Orin Nano behind a discrete GPU's memory; a Jetson itself is known
by its release file, and its memory is the machine's. Names as in nvidia-ml-py 12.560.30.
"""

# ruff: noqa: N802 - the names are NVIDIA's

from __future__ import annotations

from typing import NamedTuple

from cuda.double import DEVICE  # type: ignore[import-not-found]


class NVMLError(Exception):
    pass


class _Memory(NamedTuple):
    total: int
    free: int
    used: int


def nvmlInit() -> None:
    """NVML fails without a driver: NVML_ERROR_DRIVER_NOT_LOADED."""
    if not DEVICE.driver_version:
        raise NVMLError("Driver Not Loaded")


def nvmlShutdown() -> None:
    pass


def nvmlDeviceGetHandleByIndex(index: int) -> int:
    if not 0 <= index < DEVICE.device_count:
        raise NVMLError("Invalid Argument")
    return index


def nvmlDeviceGetCudaComputeCapability(handle: int) -> tuple[int, int]:
    return 8, 7


def nvmlSystemGetCudaDriverVersion_v2() -> int:
    return int(DEVICE.driver_version)


def nvmlDeviceGetName(handle: int) -> str:
    return "a double of a GPU"


def nvmlDeviceGetNumGpuCores(handle: int) -> int:
    return 1024


def nvmlDeviceGetMemoryInfo(handle: int) -> _Memory:
    used = DEVICE.memory.used_bytes
    return _Memory(DEVICE.memory.total_bytes, DEVICE.memory.total_bytes - used, used)
