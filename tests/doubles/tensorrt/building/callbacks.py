"""What a build calls back: calibrators and a progress monitor (`python/src/infer/pyInt8.cpp`, `pyCore.cpp`, v10.3.0).

Each trampoline prints what Python raised and gives its default: -1 for a batch size, no further batch, no cache, and
False of `step_complete`, which ends the build.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from ..core import guarded
from ..enums import CalibrationAlgoType
from ..inference.bound import Callback, pure_virtual


class IInt8Calibrator(Callback):
    """`get_batch`, `read_calibration_cache` and `write_calibration_cache` are bound "for documentation purposes only":
    overrides are found by name (`utils::getOverride`), and what stands here is never called.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()

    def get_batch_size(self) -> int:
        raise pure_virtual("IInt8Calibrator", "get_batch_size")

    def get_algorithm(self) -> CalibrationAlgoType:
        raise pure_virtual("IInt8Calibrator", "get_algorithm")

    def get_batch(self, names: Sequence[str]) -> list[int]:
        return []

    def read_calibration_cache(self) -> Any:
        return b""

    def write_calibration_cache(self, cache: Any) -> None:
        return


class IInt8EntropyCalibrator(IInt8Calibrator):
    __slots__ = ()

    def get_algorithm(self) -> CalibrationAlgoType:
        return CalibrationAlgoType.ENTROPY_CALIBRATION


class IInt8EntropyCalibrator2(IInt8Calibrator):
    __slots__ = ()

    def get_algorithm(self) -> CalibrationAlgoType:
        return CalibrationAlgoType.ENTROPY_CALIBRATION_2


class IInt8MinMaxCalibrator(IInt8Calibrator):
    __slots__ = ()

    def get_algorithm(self) -> CalibrationAlgoType:
        return CalibrationAlgoType.MINMAX_CALIBRATION


class IInt8LegacyCalibrator(IInt8Calibrator):
    __slots__ = ()

    def get_algorithm(self) -> CalibrationAlgoType:
        return CalibrationAlgoType.LEGACY_CALIBRATION


class IProgressMonitor(Callback):
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()

    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
        raise pure_virtual("IProgressMonitor", "phase_start")

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise pure_virtual("IProgressMonitor", "step_complete")

    def phase_finish(self, phase_name: str) -> None:
        raise pure_virtual("IProgressMonitor", "phase_finish")


def batch_size_of(calibrator: IInt8Calibrator) -> int:
    return int(guarded(calibrator.get_batch_size, default=-1))


def batch_of(calibrator: IInt8Calibrator, names: list[str]) -> list[int]:
    """The addresses; [] where there are no more batches, which is also what an exception comes to."""

    def get_batch() -> list[int]:
        given = _override(calibrator, "get_batch")(names)
        if given is None:
            return []
        # `result.cast<std::vector<size_t>>()`: a sequence of unsigned numbers, else a cast error.
        addresses = [address.__index__() for address in given]
        if any(address < 0 for address in addresses):
            raise OverflowError("Unable to cast Python instance to C++ type")
        return addresses

    return list(guarded(get_batch, default=[]))


def cache_of(calibrator: IInt8Calibrator) -> bytes | None:
    def read_calibration_cache() -> bytes | None:
        given = _override(calibrator, "read_calibration_cache")()
        return None if given is None else bytes(memoryview(given))

    found: bytes | None = guarded(read_calibration_cache, default=None)
    return found


def write_cache(calibrator: IInt8Calibrator, table: bytes) -> None:
    """`py::memoryview::from_buffer(const uint8_t*)`: read-only, and over memory that ends with the call. What was kept
    of it is full of 0xDD then.
    """
    memory = bytearray(table)

    def write_calibration_cache() -> None:
        _override(calibrator, "write_calibration_cache")(memoryview(memory).toreadonly())

    guarded(write_calibration_cache, default=None)
    memory[:] = b"\xdd" * len(memory)


def _override(calibrator: IInt8Calibrator, name: str) -> Any:
    """`utils::getOverride` (`python/include/utils.h`): without an override it prints that, and calling it throws."""
    if getattr(type(calibrator), name) is getattr(IInt8Calibrator, name):
        print(f"Method: {name} was not overriden. Please provide an implementation for this method.", file=sys.stderr)
        raise TypeError("'NoneType' object is not callable")
    return getattr(calibrator, name)
