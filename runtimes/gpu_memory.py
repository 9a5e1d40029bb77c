"""How much of a discrete GPU's own memory is used and free, as its driver (NVML) says."""

from __future__ import annotations

import msgspec

from messages.errors import RuntimeNotAvailableError


class GpuMemory(msgspec.Struct, frozen=True, kw_only=True):
    """Of the whole device, whoever uses it."""

    used_bytes: int
    free_bytes: int


def read_gpu_memory(device_index: int) -> GpuMemory:
    """Ask the driver now. Raises RuntimeNotAvailableError where it does not say."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            memory = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(device_index))
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise RuntimeNotAvailableError(
            f"GPU {device_index}: expected NVML to tell its used and free memory, found: {error}; check the driver"
            " (nvidia-smi)"
        ) from error
    return GpuMemory(used_bytes=int(memory.used), free_bytes=int(memory.free))
