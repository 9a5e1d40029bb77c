"""Work that becomes a graph, work that cannot, and a stream that takes work as before in both cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

import pytest

from messages import C7Error, DeviceFaultError, OutOfMemoryError
from runtimes.cuda.port import CaptureRefusedError, Cuda, DeviceMemory, Graph, PinnedMemory, Stream
from runtimes.cuda.release import release_all

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device

SIZE = 8


class Loop(NamedTuple):
    """Bytes that go to the device and come back."""

    stream: Stream
    given: PinnedMemory
    block: DeviceMemory
    result: PinnedMemory

    def enqueue(self) -> None:
        self.stream.copy_to_device(self.block.address, self.given.address, SIZE)
        self.stream.copy_to_host(self.result.address, self.block.address, SIZE)

    def works(self) -> bool:
        self.given.array[:] = 77
        self.enqueue()
        self.stream.synchronize()
        return bool((self.result.array == 77).all())


@pytest.fixture
def loop(cuda: Cuda, device: Device) -> Iterator[Loop]:
    made = Loop(cuda.open_stream(), cuda.allocate_pinned(SIZE), cuda.allocate(SIZE), cuda.allocate_pinned(SIZE))
    made.result.array[:] = 255
    yield made
    if device.answers:
        release_all((made.stream.close, made.given.free, made.block.free, made.result.free))


def test_captured_work_runs_at_each_launch_and_not_before(loop: Loop) -> None:
    graph = loop.stream.capture(loop.enqueue)
    assert (loop.result.array == 255).all()
    for value in (1, 2, 3):
        loop.given.array[:] = value
        loop.stream.launch(graph)
        loop.stream.synchronize()
        assert (loop.result.array == value).all()
    graph.close()
    graph.close()


def test_a_graph_is_brought_to_the_device_before_its_first_launch(loop: Loop, device: Device) -> None:
    graph = loop.stream.capture(loop.enqueue)
    assert device.calls[-2:] == ["cudaGraphUpload", "cudaStreamSynchronize"]
    graph.close()


def test_a_graph_whose_memory_was_freed_is_seen_at_its_launch(loop: Loop, device: Device) -> None:
    graph = loop.stream.capture(loop.enqueue)
    loop.block.free()
    loop.stream.launch(graph)
    with pytest.raises(DeviceFaultError):
        loop.stream.synchronize()
    assert "were used after" in device.take_misuse()


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("cudaStreamBeginCapture", 1),
        ("cudaStreamBeginCapture", 900),
        ("cudaStreamEndCapture", 901),
        ("cudaStreamEndCapture", 904),
        ("cudaGraphGetNodes", 1),
        ("cudaGraphInstantiateWithFlags", 1),
        ("cudaMemcpyAsync", 900),
        ("cudaMemcpyAsync", 906),
    ],
)
def test_a_capture_that_cuda_refuses_says_why_and_the_stream_works_on(
    cuda: Cuda, loop: Loop, device: Device, call: str, code: int
) -> None:
    before = device.live()
    device.fail(call, code)
    with pytest.raises(CaptureRefusedError, match=rf"cuda:0: {call}: .*\({code}\)"):
        loop.stream.capture(loop.enqueue)
    assert device.live() == before
    assert loop.works()
    cuda.check()


@pytest.mark.parametrize(
    ("call", "code", "kind"),
    [
        ("cudaGraphInstantiateWithFlags", 2, OutOfMemoryError),
        ("cudaGraphUpload", 2, OutOfMemoryError),
        ("cudaStreamEndCapture", 719, DeviceFaultError),
    ],
)
def test_what_is_wrong_with_the_device_is_not_called_a_refused_capture(
    loop: Loop, device: Device, call: str, code: int, kind: type[C7Error]
) -> None:
    before = device.live()
    device.fail(call, code)
    with pytest.raises(kind):
        loop.stream.capture(loop.enqueue)
    if device.answers:
        assert device.live() == before
        assert loop.works()


def test_a_capture_of_nothing_is_refused_because_its_launch_would_leave_the_last_frames_result(
    loop: Loop, device: Device
) -> None:
    before = device.live()
    with pytest.raises(CaptureRefusedError, match="expected work to capture, found none on the stream"):
        loop.stream.capture(lambda: None)
    assert device.live() == before
    assert loop.works()


def test_what_is_raised_while_work_is_captured_comes_through_and_ends_the_capture(loop: Loop, device: Device) -> None:
    before = device.live()

    def enqueue() -> None:
        loop.enqueue()
        raise KeyError("of the work")

    with pytest.raises(KeyError, match="of the work"):
        loop.stream.capture(enqueue)
    assert device.live() == before
    assert not device.capturing(loop.stream.handle)
    assert loop.works()


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda cuda, loop: cuda.allocate(16),
        lambda cuda, loop: cuda.allocate_pinned(16),
        lambda cuda, loop: loop.stream.synchronize(),
    ],
)
def test_a_thread_that_captures_may_neither_allocate_nor_synchronise(
    cuda: Cuda, loop: Loop, forbidden: Callable[[Cuda, Loop], object]
) -> None:
    def enqueue() -> None:
        loop.enqueue()
        forbidden(cuda, loop)

    with pytest.raises(CaptureRefusedError, match=r"cudaErrorStreamCaptureUnsupported \(900\): this work cannot"):
        loop.stream.capture(enqueue)
    assert loop.works()


def test_another_thread_may_allocate_and_run_while_one_captures(
    cuda: Cuda, loop: Loop, on_thread: Callable[[Callable[[], object]], object]
) -> None:
    def of_another() -> None:
        block = cuda.allocate(16)
        stream = cuda.open_stream()
        stream.synchronize()
        release_all((stream.close, block.free))

    def enqueue() -> None:
        loop.enqueue()
        on_thread(of_another)

    loop.stream.capture(enqueue).close()
    assert loop.works()


def test_a_dependency_on_work_outside_the_capture_is_refused(cuda: Cuda, loop: Loop) -> None:
    other, event = cuda.open_stream(), cuda.open_event()
    other.record(event)

    def enqueue() -> None:
        loop.stream.wait(event)

    with pytest.raises(CaptureRefusedError, match=r"cudaErrorStreamCaptureIsolation \(905\)"):
        loop.stream.capture(enqueue)
    release_all((other.close, event.close))


def test_a_graph_of_another_port_is_a_programming_error(loop: Loop) -> None:
    class Strange:
        def close(self) -> None: ...

    with pytest.raises(TypeError, match="expected one that a stream of this port captured, found Strange"):
        loop.stream.launch(cast("Graph", Strange()))


def test_the_capture_is_local_to_its_thread(loop: Loop, device: Device) -> None:
    modes = []

    def enqueue() -> None:
        loop.enqueue()
        capture = device.streams.stream(loop.stream.handle).capture
        modes.append(capture and capture.mode)

    loop.stream.capture(enqueue).close()
    assert modes == [1]
