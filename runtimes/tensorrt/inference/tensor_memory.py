"""Where one input or output of an engine lies: a block on the device, and a page-locked one on the host beside it."""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np

from messages import InferenceError, TensorSpec
from runtimes.cuda.port import Cuda, DeviceMemory, PinnedMemory, Stream
from runtimes.cuda.release import release_all

Block = TypeVar("Block", bound=DeviceMemory)


class TensorMemory:
    """Grows to the largest size that was asked for. Used by one thread at a time.

    A tensor that TensorRT keeps `on_host` has its page-locked block only.
    """

    def __init__(self, cuda: Cuda, name: str, spec: TensorSpec, *, on_host: bool) -> None:
        self.name = name
        self.dtype = np.dtype(spec.dtype)
        self.on_host = on_host
        self._cuda = cuda
        self._device: DeviceMemory | None = None
        self._host: PinnedMemory | None = None

    @property
    def address(self) -> int:
        """What TensorRT is told."""
        return self._require(self._host if self.on_host else self._device).address

    @property
    def host_address(self) -> int:
        return self._staged().address

    def reserve(self, shape: tuple[int, ...], *, staging_only: bool = False) -> None:
        """Have room for an array of this shape, on the host alone where it only passes through. The address may change.

        Nothing of this tensor may be under way. Raises OutOfMemoryError.
        """
        size_bytes = math.prod(shape) * self.dtype.itemsize
        lacks_device = not (self.on_host or staging_only or self._device)
        if self._host is not None and size_bytes <= self._host.size_bytes and not lacks_device:
            return
        self.free()
        self._host = self._cuda.allocate_pinned(size_bytes)
        if not self.on_host and not staging_only:
            self._device = self._cuda.allocate(size_bytes)

    def view(self, shape: tuple[int, ...]) -> np.ndarray:
        """The page-locked block as an array. It may be touched while nothing is under way."""
        return self._staged().array[: math.prod(shape) * self.dtype.itemsize].view(self.dtype).reshape(shape)

    def stage(self, array: np.ndarray, stream: Stream) -> None:
        """Copy an array in, however it lies in memory. It is read before this returns."""
        np.copyto(self.view(array.shape), array, casting="equiv")
        if not self.on_host:
            stream.copy_to_device(self.address, self.host_address, array.nbytes)

    def free(self) -> None:
        """Idempotent. Nothing may be under way."""
        blocks = [block for block in (self._device, self._host) if block is not None]
        self._device = self._host = None
        release_all(block.free for block in blocks)

    def _staged(self) -> PinnedMemory:
        return self._require(self._host)

    def _require(self, block: Block | None) -> Block:
        if block is None:
            raise InferenceError(
                f"{self.name}: expected memory for this tensor, found none: it was given back, or never asked for"
            )
        return block
