"""How much memory one engine takes: read from the kernel around a load and its first runs, in a process of its own.

Method. The same engine is loaded already and has run, and stays: the library, its thread pools and whatever else it
keeps for ever are in memory before, and none of the first one's memory lies free for the second to hide in. Garbage is
collected and free heap given back (`malloc_trim`) before each reading. `load_bytes` is the growth of the resident set
over the load, once the file's buffer is gone. `run_bytes` is how much higher its peak is during the self-test and
several runs, for a peak is what a machine must have room for, and ONNX Runtime takes as much again at the second run of
a shape. Pages that were never touched are in neither, nor is what a library keeps once for all engines of one shape.

Held against a takeoff: the demonstration's four engines were reckoned at 56 MiB in ONNX Runtime, and a process that
loaded and ran them all had grown by 59, of which 3 were free heap that glibc had kept. In torch it was 9 against 33,
nearly all of it what torch imports once for its first program with dynamic shapes. The reserve is for such things.

A GPU: on a Jetson its memory is the machine's own and no process's resident set shows it, so the drop of MemAvailable
counts where it is larger. On a discrete GPU the driver (NVML) says how much is used before and after; it cannot see
the peak of a run in between, but libraries keep what they took. Both readings are of the whole device: anything else
that allocates meanwhile is added. No engine on a GPU was ever measured so.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from messages import RuntimeNotAvailableError
from runtimes.gpu_memory import read_gpu_memory
from runtimes.measurements import MemoryUse

T = TypeVar("T")
_PROCESS = Path("/proc/self")
_MEMINFO = Path("/proc/meminfo")
_RESET_PEAK = "5"  # proc(5), clear_refs: resets the peak resident set size (VmHWM)
_KIB = 1024


class MemoryReading(msgspec.Struct, frozen=True, kw_only=True):
    """One moment, in bytes. `available` is the machine's, and `device_used` a discrete GPU's, where either counts."""

    resident: int
    available: int | None = None
    device_used: int | None = None


class MemoryGauge:
    """Readings of this process and of the device that its engine is on; `device_index` is None on the CPU.

    `shares_memory` says that the GPU has no memory of its own, as on a Jetson. Nothing else may allocate meanwhile.
    """

    def __init__(self, *, device_index: int | None = None, shares_memory: bool = False) -> None:
        self._device_index = None if shares_memory else device_index
        self._reads_machine = device_index is not None and shares_memory

    def at_rest(self) -> MemoryReading:
        """What stays once garbage and free heap are given back."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        resident_pages = int((_PROCESS / "statm").read_text().split()[1])
        return MemoryReading(
            resident=resident_pages * os.sysconf("SC_PAGE_SIZE"),
            available=_kib(_MEMINFO, "MemAvailable") if self._reads_machine else None,
            device_used=None if self._device_index is None else read_gpu_memory(self._device_index).used_bytes,
        )

    def peak_of(self, action: Callable[[], T]) -> tuple[T, int]:
        """Do it, and say how high the resident set was at most meanwhile, in bytes."""
        path = _PROCESS / "clear_refs"
        try:
            path.write_text(_RESET_PEAK)
        except OSError as error:
            raise RuntimeNotAvailableError(
                f"{path}: expected a kernel that resets the peak of this process's memory, which a run is measured by,"
                f" found: {error.strerror}; provision where it can be written (not in a container that forbids it)"
            ) from error
        result = action()
        return result, _kib(_PROCESS / "status", "VmHWM")


def memory_use(before: MemoryReading, loaded: MemoryReading, after_runs: MemoryReading, peak: int) -> MemoryUse:
    """Pure. `peak` is the highest resident set of the runs between the last two readings, in bytes."""
    return MemoryUse(
        load_bytes=max(0, loaded.resident - before.resident, _drop(before.available, loaded.available)),
        run_bytes=max(
            0, max(peak, after_runs.resident) - loaded.resident, _drop(loaded.available, after_runs.available)
        ),
        device_load_bytes=max(0, -_drop(before.device_used, loaded.device_used)),
        device_run_bytes=max(0, -_drop(loaded.device_used, after_runs.device_used)),
    )


def _drop(before: int | None, after: int | None) -> int:
    return 0 if before is None or after is None else before - after


def _kib(path: Path, field: str) -> int:
    match = re.search(rf"^{field}:\s+(\d+) kB$", path.read_text(), re.MULTILINE)
    if match is None:
        raise RuntimeNotAvailableError(f"{path}: expected a line '{field}: N kB', found none; it needs Linux 4.0")
    return int(match[1]) * _KIB
