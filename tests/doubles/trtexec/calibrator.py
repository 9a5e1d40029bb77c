"""The calibrator that trtexec has (`samples/common/sampleEngines.cpp`, RndInt8Calibrator, v10.3.0)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.doubles import tensorrt as trt
    from tests.doubles.cuda.bindings import runtime as cuda
    from tests.doubles.cuda.double import DEVICE
else:
    import tensorrt as trt
    from cuda.bindings import runtime as cuda
    from cuda.double import DEVICE


class TableCalibrator(trt.IInt8EntropyCalibrator2):
    """RndInt8Calibrator: the table of `--calib`, and one batch of random numbers where the file cannot be opened."""

    def __init__(self, path: str, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self._path = Path(path)
        self._shapes = shapes
        self._is_done = False

    def get_batch_size(self) -> int:
        return 1

    def read_calibration_cache(self) -> bytes | None:
        try:
            return self._path.read_bytes() or None
        except OSError:
            return None

    def get_batch(self, names: Sequence[str]) -> list[int]:
        if self._is_done:
            return []
        self._is_done = True
        addresses = []
        for name in names:
            size_bytes = trt.volume(self._shapes[name]) * 4
            address = cuda.cudaMalloc(size_bytes)[1] or 0
            DEVICE.bytes_at(address, size_bytes)[:] = 63  # float32 0.747...: no worse a guess than a random one
            addresses.append(address)
        return addresses

    def write_calibration_cache(self, cache: object) -> None:
        return
