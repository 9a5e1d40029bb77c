"""Streams, events and graphs that know whether they are closed."""

from __future__ import annotations

from collections.abc import Callable
from typing import SupportsInt

from messages import InferenceError
from runtimes.cuda.calls import CudaCalls
from runtimes.cuda.port import CaptureRefusedError, Event, Graph


class _Handle:
    """One thing that CUDA opened and closes."""

    _DESTROY = ""

    def __init__(self, calls: CudaCalls, handle: int) -> None:
        self._calls = calls
        self._handle: int | None = handle

    @property
    def handle(self) -> int:
        if self._handle is None:
            raise InferenceError(f"{self._calls.subject}: {type(self).__name__} was used after its close")
        return self._handle

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            self._calls.call(self._DESTROY, handle)


class CudaEvent(_Handle):
    """`Event`, without timing: cudaEventDisableTiming, which the Runtime API manual says performs best."""

    _DESTROY = "cudaEventDestroy"

    def __init__(self, calls: CudaCalls) -> None:
        super().__init__(calls, calls.number("cudaEventCreateWithFlags", calls.library.cudaEventDisableTiming))

    def synchronize(self) -> None:
        self._calls.call("cudaEventSynchronize", self.handle)


class CudaGraph(_Handle):
    """`Graph`: an executable one."""

    _DESTROY = "cudaGraphExecDestroy"


class CudaStream(_Handle):
    """`Stream`, made with cudaStreamNonBlocking."""

    _DESTROY = "cudaStreamDestroy"

    def __init__(self, calls: CudaCalls, make_current: Callable[[], None]) -> None:
        super().__init__(calls, calls.number("cudaStreamCreateWithFlags", calls.library.cudaStreamNonBlocking))
        self._kinds = calls.library.cudaMemcpyKind
        self._make_current = make_current

    def copy_to_device(self, address: int, host_address: int, size_bytes: int) -> None:
        self._copy(address, host_address, size_bytes, self._kinds.cudaMemcpyHostToDevice)

    def copy_to_host(self, host_address: int, address: int, size_bytes: int) -> None:
        self._copy(host_address, address, size_bytes, self._kinds.cudaMemcpyDeviceToHost)

    def copy_on_device(self, address: int, source_address: int, size_bytes: int) -> None:
        self._copy(address, source_address, size_bytes, self._kinds.cudaMemcpyDeviceToDevice)

    def fill(self, address: int, byte: int, size_bytes: int) -> None:
        self._calls.call("cudaMemsetAsync", address, byte, size_bytes, self.handle)

    def synchronize(self) -> None:
        self._calls.call("cudaStreamSynchronize", self.handle)

    def record(self, event: Event) -> None:
        self._calls.call("cudaEventRecord", event.handle, self.handle)

    def wait(self, event: Event) -> None:
        self._calls.call("cudaStreamWaitEvent", self.handle, event.handle, 0)

    def capture(self, enqueue: Callable[[], None]) -> Graph:
        self._make_current()
        mode = self._calls.library.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._build("cudaStreamBeginCapture", self.handle, mode)
        try:
            enqueue()
        except BaseException:
            self._abandon_capture()
            raise
        (captured,) = self._build("cudaStreamEndCapture", self.handle)
        try:
            _, count = self._build("cudaGraphGetNodes", captured)
            if not int(count):
                raise CaptureRefusedError(f"{self._calls.subject}: expected work to capture, found none on the stream")
            (executable,) = self._build("cudaGraphInstantiateWithFlags", captured, 0)
        finally:
            self._calls.call("cudaGraphDestroy", captured)
        graph = CudaGraph(self._calls, int(executable))
        try:
            # So that the first launch, which is a frame's, brings nothing to the device.
            self._calls.call("cudaGraphUpload", graph.handle, self.handle)
            self.synchronize()
        except BaseException:
            graph.close()
            raise
        return graph

    def launch(self, graph: Graph) -> None:
        if not isinstance(graph, CudaGraph):
            raise TypeError(f"graph: expected one that a stream of this port captured, found {type(graph).__name__}")
        self._make_current()
        self._calls.call("cudaGraphLaunch", graph.handle, self.handle)

    def _copy(self, address: int, source_address: int, size_bytes: int, kind: object) -> None:
        if size_bytes:
            self._calls.call("cudaMemcpyAsync", address, source_address, size_bytes, kind, self.handle)

    def _build(self, name: str, *arguments: object) -> tuple[SupportsInt, ...]:
        """A call on the way to a graph: what CUDA's table says nothing of is a refusal of the graph."""
        try:
            return self._calls.call(name, *arguments)
        except InferenceError as error:
            if type(error) is InferenceError:
                raise CaptureRefusedError(str(error)) from error
            raise

    def _abandon_capture(self) -> None:
        """End a capture whose work failed. What failed is told; that the capture did too says nothing more."""
        code, values = self._calls.attempt("cudaStreamEndCapture", self.handle)
        if code == 0:
            self._calls.attempt("cudaGraphDestroy", *values)
