"""The scratch memory that contexts run in: one engine's own, or one block that all engines of a device share.

TensorRT allocates none of it (`USER_MANAGED`), so that memory that runs out is told by CUDA's own code. Contexts may
share a block only where no two of them run at once (`NvInferRuntime.h` of 10.3, setDeviceMemoryV2): whoever runs holds
it until its stream is synchronised.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from messages import InferenceError, OutOfMemoryError
from runtimes.cuda.port import Cuda, DeviceMemory

TURN_TIMEOUT_S = 30.0
"""Far more than any run takes. The device gate lets one engine run at a time, so that nobody waits here in flight."""


class ActivationMemory:
    """One block, as large as its largest member needs. Callable from any thread."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._turn = threading.Lock()
        self._block: DeviceMemory | None = None
        self._members: list[int] = []

    @property
    def size_bytes(self) -> int:
        block = self._block
        return 0 if block is None else block.size_bytes

    def join(self, subject: str, size_bytes: int, *, timeout_s: float = TURN_TIMEOUT_S) -> None:
        """Be one of those for whom the block is large enough. A larger one takes its place where it must.

        Raises OutOfMemoryError, or InferenceError as `running` does; those who joined before keep their block then.
        """
        with self._held(subject, timeout_s):
            if self._block is None or self._block.size_bytes < size_bytes:
                self._replace(subject, size_bytes)
            self._members.append(size_bytes)

    def leave(self, subject: str, size_bytes: int, *, timeout_s: float = TURN_TIMEOUT_S) -> None:
        """With the last one the block goes. The caller runs no more. Raises as `running` does, and the block stays."""
        with self._held(subject, timeout_s):
            self._members.remove(size_bytes)
            block = self._block
            if not self._members and block is not None:
                self._block = None
                block.free()

    @contextmanager
    def running(self, subject: str, *, timeout_s: float = TURN_TIMEOUT_S) -> Iterator[tuple[int, int]]:
        """(address, size in bytes), for one run to its end. Raises InferenceError where another one does not end."""
        with self._held(subject, timeout_s):
            if self._block is None:
                raise InferenceError(f"{subject}: expected activation memory, found none: it was given back")
            yield self._block.address, self._block.size_bytes

    @contextmanager
    def _held(self, subject: str, timeout_s: float) -> Iterator[None]:
        if not self._turn.acquire(timeout=timeout_s):
            raise InferenceError(
                f"{subject}: another engine has held the activation memory that they share for more than"
                f" {timeout_s:g} s; set share_activation_memory = false in [runtime.tensorrt]"
            )
        try:
            yield
        finally:
            self._turn.release()

    def _replace(self, subject: str, size_bytes: int) -> None:
        try:
            larger = self._cuda.allocate(size_bytes)
        except OutOfMemoryError as error:
            free_bytes, total_bytes = self._cuda.memory()
            raise OutOfMemoryError(
                f"{subject}: its activations need {size_bytes} bytes (device_memory_size_v2), found {free_bytes} free"
                f" of {total_bytes}: {error}"
            ) from error
        before, self._block = self._block, larger
        if before is not None:
            before.free()
