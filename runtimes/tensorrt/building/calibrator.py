"""TensorRT's INT8 calibrator over our batches.

TensorRT swallows what a callback raises: in `get_batch` it takes it for the end of the data and writes a table that
looks whole, in `read_calibration_cache` it calibrates anew. So nothing is raised there: it is remembered, the data
ends, and `finish` tells.
"""

from __future__ import annotations

from types import ModuleType
from typing import Protocol

import numpy as np
from typing_extensions import Buffer

from messages import CalibrationCacheError, EngineBuildError
from runtimes.calibration.batch_feed import BatchFeed
from runtimes.cuda.port import Cuda, DeviceMemory, PinnedMemory, Stream
from runtimes.cuda.release import release_all

CALIBRATOR = "EntropyCalibration2"
"""The algorithm as the first line of a table names it."""


class Calibrator(Protocol):
    """What `entropy_calibrator` makes: an `IInt8EntropyCalibrator2`, with what came of the calibration."""

    trusted: bytes | None
    """The table of a former build that it was given."""
    failure: BaseException | None
    """What stopped the calibration; a build is not worth finishing then."""
    table: bytes | None
    """The table that TensorRT wrote, or None while it wrote none."""

    def finish(self) -> bytes:
        """The table that the engine was built with, once the build is over.

        Raises what stopped the calibration; EngineBuildError where TensorRT did not take every batch once, or wrote no
        table; CalibrationCacheError where it did not take the table that it was given.
        """

    def close(self) -> None:
        """Free the device's memory. The build must be over."""


class DeviceBatch:
    """The arrays of one batch on the device, in blocks that the next batch is written over. Each has a pinned one."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._stream: Stream | None = None
        self._blocks: dict[str, DeviceMemory] = {}
        self._staging: dict[str, PinnedMemory] = {}

    def put(self, batch: dict[str, np.ndarray], names: list[str]) -> list[int]:
        """The addresses in the order of `names`. Raises EngineBuildError for a name that no batch has."""
        strange = sorted(set(names) - batch.keys())
        if strange:
            raise EngineBuildError(
                f"TensorRT calibrates inputs {', '.join(names)}, and the dataset has none named {', '.join(strange)}"
            )
        if self._stream is None:
            self._cuda.make_current()
            self._stream = self._cuda.open_stream()
        for name in names:
            array = np.ascontiguousarray(batch[name])
            if name not in self._blocks:
                # All batches have one shape: the dataset refuses others.
                self._blocks[name] = self._cuda.allocate(array.nbytes)
                self._staging[name] = self._cuda.allocate_pinned(array.nbytes)
            block, staging = self._blocks[name], self._staging[name]
            staging.array[:] = array.reshape(-1).view(np.uint8)
            self._stream.copy_to_device(block.address, staging.address, block.size_bytes)
        self._stream.synchronize()
        return [self._blocks[name].address for name in names]

    def free(self) -> None:
        steps = [block.free for block in (*self._blocks.values(), *self._staging.values())]
        self._blocks, self._staging = {}, {}
        stream, self._stream = self._stream, None
        release_all([*steps, *([stream.close] if stream is not None else [])])


def entropy_calibrator(trt: ModuleType, cuda: Cuda, feed: BatchFeed, trusted: bytes | None = None) -> Calibrator:
    """An `IInt8EntropyCalibrator2` that gives TensorRT each batch of `feed` once.

    With `trusted`, a table of the same dataset and model, it gives that instead, and no batch.
    """

    class EntropyCalibrator(trt.IInt8EntropyCalibrator2):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)
            self.trusted = trusted
            self.failure: BaseException | None = None
            self.table: bytes | None = None
            self._read = False
            self._batch = DeviceBatch(cuda)

        def get_batch_size(self) -> int:
            return 1  # of no meaning since TensorRT 10: the batch is in the shapes

        def get_batch(self, names: list[str]) -> list[int] | None:
            if self.failure is not None or trusted is not None:
                self.failure = self.failure or CalibrationCacheError(
                    "TensorRT did not take the calibration table of a former build and asked for batches; remove the"
                    " engine's calibration file and compile again"
                )
                return None
            try:
                batch = feed.next_batch()
                if batch is None:
                    self.failure = feed.failure
                    return None
                return self._batch.put(batch, list(names))
            except BaseException as error:  # noqa: BLE001 - TensorRT would swallow it; `finish` raises it
                self.failure = error
                return None

        def read_calibration_cache(self) -> bytes | None:
            self._read = True
            return trusted

        def write_calibration_cache(self, cache: Buffer) -> None:
            try:
                self.table = bytes(memoryview(cache))  # TensorRT's memory, which ends with this call
            except BaseException as error:  # noqa: BLE001 - as above
                self.failure = self.failure or error

        def finish(self) -> bytes:
            if self.failure is not None:
                raise self.failure
            if trusted is not None:
                if not self._read:
                    raise CalibrationCacheError(
                        "TensorRT never asked for the calibration table of a former build; compile again without it"
                    )
                return trusted
            feed.finish()
            if self.table is None:
                raise EngineBuildError("expected TensorRT to write its calibration table, found that it wrote none")
            return self.table

        def close(self) -> None:
            self._batch.free()

    calibrator: Calibrator = EntropyCalibrator()
    return calibrator
