"""Memory for outputs whose shape is known only once the engine has run.

TensorRT asks for it inside `execute_async_v3`, on its caller's thread, and swallows what Python raises there: it is
remembered and raised by the run. It says how many elements came out in `notify_shape`, before `execute_async_v3`
returns (`NvInferRuntime.h` of 10.3, IOutputAllocator).
"""

from __future__ import annotations

from types import ModuleType
from typing import Protocol, cast

from messages import C7Error, InferenceError
from runtimes.cuda.port import Cuda, DeviceMemory
from runtimes.cuda.release import release_all
from runtimes.tensorrt.bindings import Dims
from runtimes.tensorrt.inference.io_tensors import shape_of


class OutputMemory:
    """The block of one such output, which grows and is kept. Used by the thread that runs the engine."""

    def __init__(self, cuda: Cuda, name: str) -> None:
        self.name = name
        self.shape: tuple[int, ...] | None = None
        self.failure: BaseException | None = None
        self._cuda = cuda
        self._block: DeviceMemory | None = None
        self._outgrown: list[DeviceMemory] = []

    @property
    def address(self) -> int:
        if self._block is None:
            raise InferenceError(f"{self.name}: TensorRT asked for no memory for this output")
        return self._block.address

    def begin(self) -> None:
        """Before a run."""
        self.shape = self.failure = None

    def reallocated(self, size_bytes: int, alignment: int) -> int:
        """An address with room for `size_bytes`, 0 where there is none; `failure` says why then."""
        try:
            return self._reserved(size_bytes, alignment)
        except BaseException as error:  # noqa: BLE001 - it is raised by the run; TensorRT would print and forget it
            self.failure = error
            return 0

    def noticed(self, dims: Dims) -> None:
        try:
            self.shape = shape_of(dims)
        except BaseException as error:  # noqa: BLE001 - as above
            self.failure = error

    def settle(self) -> None:
        """After the stream was synchronised: give back what was outgrown."""
        outgrown, self._outgrown = self._outgrown, []
        release_all(block.free for block in outgrown)

    def free(self) -> None:
        block, self._block = self._block, None
        release_all([self.settle, *([block.free] if block is not None else [])])

    def _reserved(self, size_bytes: int, alignment: int) -> int:
        if self._block is None or self._block.size_bytes < size_bytes:
            larger = self._cuda.allocate(size_bytes)
            if self._block is not None:
                self._outgrown.append(self._block)
            self._block = larger
        if self._block.address % max(alignment, 1):
            raise InferenceError(
                f"{self.name}: expected memory aligned to {alignment} bytes for TensorRT, got {self._block.address:#x}"
                " from CUDA"
            )
        return self._block.address


class OutputAllocator(Protocol):
    """An `IOutputAllocator`, to be given to `set_output_allocator` as it is."""

    @property
    def memory(self) -> OutputMemory: ...


def make_output_allocator(trt: ModuleType, memory: OutputMemory) -> OutputAllocator:
    class Allocator(trt.IOutputAllocator):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.memory = memory

        def reallocate_output(self, _tensor_name: str, _memory: int, size: int, alignment: int) -> int:
            return memory.reallocated(size, alignment)

        def reallocate_output_async(
            self, _tensor_name: str, _memory: int, size: int, alignment: int, _stream: int
        ) -> int:
            return memory.reallocated(size, alignment)

        def notify_shape(self, _tensor_name: str, shape: Dims) -> None:
            memory.noticed(shape)

    return cast("OutputAllocator", Allocator())


def raise_remembered(memories: list[OutputMemory]) -> None:
    """Raise the first that a callback met, which TensorRT does not tell, and forget all of them.

    An error that stayed would hold the frames that it passed, and with them an engine that is let go of: its memory
    on the device goes with its last reference.
    """
    failed = [(memory.name, memory.failure) for memory in memories if memory.failure is not None]
    for memory in memories:
        memory.failure = None
    if not failed:
        return
    name, failure = failed[0]
    failed.clear()
    try:
        if isinstance(failure, C7Error) or not isinstance(failure, Exception):
            raise failure  # what ends a thread or the process is no failure of memory
        raise InferenceError(f"{name}: its memory could not be had: {failure!r}") from failure
    finally:
        del failure
