"""What is asked of one CUDA device. Addresses, handles and sizes are plain ints, which every library takes.

Every method may raise what CUDA's code says (`runtimes.cuda_errors`): OutOfMemoryError, DeviceContextError,
DeviceFaultError or TransientInferenceError, else InferenceError. CUDA reports an error of queued work at any later
call, at the latest where its stream is synchronised.

Any thread may call. `free` and `close` are idempotent, and an object counts as gone whether they raise or not: CUDA
promises no second try. One object is used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from messages import InferenceError


class CaptureRefusedError(InferenceError):
    """Work on a stream could not become a graph. The capture is ended, and the stream takes work as before."""


class DeviceMemory(Protocol):
    """One block on the device, aligned to 256 bytes at least. A block of zero bytes has an address of its own too."""

    @property
    def address(self) -> int:
        """Raises InferenceError once the block is freed."""

    @property
    def size_bytes(self) -> int: ...

    def free(self) -> None:
        """Give the block back. The work that uses it must be over: synchronise its stream first."""


class PinnedMemory(DeviceMemory, Protocol):
    """One page-locked block on the host, which the device reads and writes without a copy in between.

    The host's bytes belong to the copy that is under way until its stream is synchronised.
    """

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """All its bytes, one-dimensional and writable. No view of it may be used once the block is freed."""


class Event(Protocol):
    """A point in a stream's work."""

    @property
    def handle(self) -> int:
        """The cudaEvent_t. Raises InferenceError once the event is closed."""

    def synchronize(self) -> None:
        """Wait until the work that was recorded is done. Lets other Python threads run."""

    def close(self) -> None: ...


class Graph(Protocol):
    """Captured work, instantiated and uploaded. The memory that it names must live until it is closed."""

    def close(self) -> None:
        """Its launches must be over: synchronise their stream first."""


class Stream(Protocol):
    """Work in order, beside every other stream: none waits for the default stream, nor it for them.

    The copies are asynchronous: both sides stay untouched, and allocated, until `synchronize`. A host address lies in
    pinned memory: a copy from or to any other may wait for the stream.
    """

    @property
    def handle(self) -> int:
        """The cudaStream_t. Raises InferenceError once the stream is closed."""

    def copy_to_device(self, address: int, host_address: int, size_bytes: int) -> None: ...

    def copy_to_host(self, host_address: int, address: int, size_bytes: int) -> None: ...

    def copy_on_device(self, address: int, source_address: int, size_bytes: int) -> None: ...

    def synchronize(self) -> None:
        """Wait until all work is done, and raise what it met. Lets other Python threads run.

        CUDA knows no limit for this wait: whoever runs an engine is watched from another thread.
        """

    def record(self, event: Event) -> None: ...

    def wait(self, event: Event) -> None:
        """Later work of this stream waits for what `event` recorded. The calling thread does not."""

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        """What `enqueue` puts on this stream, as a graph. None of it runs, and the stream must be idle.

        Inside it the calling thread may neither allocate, nor free, nor synchronise; other threads may. Raises
        CaptureRefusedError where CUDA refuses; what `enqueue` raises comes through. Both end the capture.
        """

    def launch(self, graph: Graph) -> None: ...

    def close(self) -> None:
        """CUDA finishes the work that is queued, and then frees the stream."""


class Cuda(Protocol):
    """One device, through its primary context: the one that TensorRT, torch and ONNX Runtime use too."""

    @property
    def index(self) -> int: ...

    def make_current(self) -> None:
        """Bind the device to the calling thread. Each thread does so before another library works on it.

        Raises DeviceFaultError where the context is destroyed, and no new one can be made in this process.
        """

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes of the device. On a Jetson free leaves out what the system could reclaim."""

    def allocate(self, size_bytes: int) -> DeviceMemory: ...

    def allocate_pinned(self, size_bytes: int) -> PinnedMemory: ...

    def open_stream(self) -> Stream: ...

    def open_event(self) -> Event: ...

    def check(self) -> None:
        """Have the device do one tiny piece of work. Raises where it does not answer; other streams are no matter.

        First forgets the calling thread's last error, which says nothing of the next call unless it is sticky.
        """

    def close(self) -> None:
        """Give back what `check` needs. What was allocated and opened has its own end; the context stays."""
