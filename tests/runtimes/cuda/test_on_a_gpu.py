"""The port on a real device, through NVIDIA's own package: the first thing to run on new hardware."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from messages import OutOfMemoryError, RuntimeNotAvailableError
from runtimes.cuda.cuda_bindings import open_cuda
from runtimes.cuda.port import CaptureRefusedError, Cuda
from runtimes.cuda.release import release_all

pytestmark = pytest.mark.gpu
SIZE = 1 << 20


@pytest.fixture
def cuda() -> Iterator[Cuda]:
    try:
        opened = open_cuda(0)
    except RuntimeNotAvailableError as error:
        pytest.skip(str(error))
    yield opened
    opened.close()


def test_bytes_come_back_from_the_device_directly_and_by_a_graph(cuda: Cuda) -> None:
    stream, event = cuda.open_stream(), cuda.open_event()
    given, result = cuda.allocate_pinned(SIZE), cuda.allocate_pinned(SIZE)
    first, second = cuda.allocate(SIZE), cuda.allocate(SIZE)
    assert (first.address % 256, second.address % 256) == (0, 0)

    def enqueue() -> None:
        stream.copy_to_device(first.address, given.address, SIZE)
        stream.copy_on_device(second.address, first.address, SIZE)
        stream.copy_to_host(result.address, second.address, SIZE)

    given.array[:] = np.arange(SIZE, dtype=np.uint32).astype(np.uint8)
    enqueue()
    stream.record(event)
    event.synchronize()
    np.testing.assert_array_equal(result.array, given.array)
    graph = stream.capture(enqueue)
    for value in (3, 4):
        given.array[:] = value
        stream.launch(graph)
        stream.synchronize()
        assert (result.array == value).all()
    release_all((graph.close, event.close, stream.close, given.free, result.free, first.free, second.free))


def test_a_device_that_is_full_says_so_and_answers_on(cuda: Cuda) -> None:
    _, total_bytes = cuda.memory()
    with pytest.raises(OutOfMemoryError):
        cuda.allocate(2 * total_bytes)
    cuda.check()


def test_refused_captures_leave_a_stream_that_works(cuda: Cuda) -> None:
    stream = cuda.open_stream()

    def allocate() -> None:
        cuda.allocate(16).free()

    for enqueue in (allocate, stream.synchronize, lambda: None):
        with pytest.raises(CaptureRefusedError):
            stream.capture(enqueue)
        stream.synchronize()
        cuda.check()
    stream.close()


def test_another_thread_allocates_and_checks_during_a_capture(
    cuda: Cuda, on_thread: Callable[[Callable[[], object]], object]
) -> None:
    stream, given, block = cuda.open_stream(), cuda.allocate_pinned(16), cuda.allocate(16)

    def enqueue() -> None:
        stream.copy_to_device(block.address, given.address, 16)
        on_thread(cuda.check)
        on_thread(lambda: cuda.allocate(16).free())

    stream.capture(enqueue).close()
    release_all((stream.close, given.free, block.free))
