"""Blocks of memory that know whether they are freed."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

from messages import InferenceError
from runtimes.cuda.calls import CudaCalls


class CudaMemory:
    """`DeviceMemory`: a block of cudaMalloc."""

    _ALLOCATE: tuple[str, tuple[int, ...]] = ("cudaMalloc", ())
    _FREE = "cudaFree"

    def __init__(self, calls: CudaCalls, size_bytes: int) -> None:
        if size_bytes < 0:
            raise ValueError(f"size_bytes: expected 0 or more, found {size_bytes}")
        name, flags = self._ALLOCATE
        self._calls = calls
        self._size_bytes = size_bytes
        # CUDA gives no address for zero bytes.
        self._address: int | None = calls.number(name, max(size_bytes, 1), *flags)

    @property
    def address(self) -> int:
        if self._address is None:
            raise InferenceError(f"{self._calls.subject}: a block of {self._size_bytes} bytes was used after its free")
        return self._address

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    def free(self) -> None:
        address, self._address = self._address, None
        if address is not None:
            self._calls.call(self._FREE, address)


class CudaPinnedMemory(CudaMemory):
    """`PinnedMemory`: a block of cudaHostAlloc."""

    _ALLOCATE = ("cudaHostAlloc", (0,))  # cudaHostAllocDefault
    _FREE = "cudaFreeHost"

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        block = (ctypes.c_uint8 * self._size_bytes).from_address(self.address)
        return np.frombuffer(memoryview(block), np.uint8)
