"""Streams: their order, when their work is done, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from messages import (
    C7Error,
    DeviceContextError,
    DeviceFaultError,
    InferenceError,
    OutOfMemoryError,
    TransientInferenceError,
)
from runtimes.cuda.port import Cuda, DeviceMemory, PinnedMemory, Stream
from runtimes.cuda.release import release_all

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device

SIZE = 8


class Path(NamedTuple):
    """A stream with memory on both sides of it."""

    stream: Stream
    given: PinnedMemory
    block: DeviceMemory
    result: PinnedMemory

    def there(self) -> None:
        self.stream.copy_to_device(self.block.address, self.given.address, SIZE)

    def back(self) -> None:
        self.stream.copy_to_host(self.result.address, self.block.address, SIZE)


@pytest.fixture
def path(cuda: Cuda, device: Device) -> Iterator[Path]:
    made = Path(cuda.open_stream(), cuda.allocate_pinned(SIZE), cuda.allocate(SIZE), cuda.allocate_pinned(SIZE))
    made.given.array[:] = np.arange(SIZE)
    made.result.array[:] = 255
    yield made
    if device.answers:
        release_all((made.stream.close, made.given.free, made.block.free, made.result.free))


def test_what_went_to_the_device_comes_back_when_the_stream_is_synchronised(path: Path) -> None:
    path.there()
    path.back()
    assert (path.result.array == 255).all()
    path.stream.synchronize()
    np.testing.assert_array_equal(path.result.array, np.arange(SIZE))


def test_a_host_buffer_that_changes_before_the_synchronise_changes_what_arrives(path: Path) -> None:
    path.there()
    path.back()
    path.given.array[:] = 9
    path.stream.synchronize()
    assert (path.result.array == 9).all()


def test_bytes_go_from_block_to_block_without_the_host(cuda: Cuda, path: Path) -> None:
    other = cuda.allocate(SIZE)
    path.there()
    path.stream.copy_on_device(other.address, path.block.address, SIZE)
    path.stream.copy_to_host(path.result.address, other.address, SIZE)
    path.stream.synchronize()
    np.testing.assert_array_equal(path.result.array, np.arange(SIZE))
    other.free()


def test_part_of_a_block_is_copied_by_its_address(path: Path) -> None:
    path.stream.copy_to_device(path.block.address + 4, path.given.address, 4)
    path.stream.copy_to_host(path.result.address, path.block.address + 4, 4)
    path.stream.synchronize()
    np.testing.assert_array_equal(path.result.array, [0, 1, 2, 3, 255, 255, 255, 255])


def test_a_copy_of_zero_bytes_asks_nothing_of_the_device(path: Path, device: Device) -> None:
    path.stream.copy_to_device(path.block.address, path.given.address, 0)
    assert "cudaMemcpyAsync" not in device.calls


def test_a_stream_waits_for_what_an_event_of_another_recorded(cuda: Cuda, path: Path) -> None:
    other, event = cuda.open_stream(), cuda.open_event()
    path.there()
    path.stream.record(event)
    other.wait(event)
    other.copy_to_host(path.result.address, path.block.address, SIZE)
    other.synchronize()
    np.testing.assert_array_equal(path.result.array, np.arange(SIZE))
    release_all((other.close, event.close))


def test_an_event_is_over_when_the_work_before_it_is_and_not_that_behind_it(
    cuda: Cuda, path: Path, device: Device
) -> None:
    event = cuda.open_event()
    path.there()
    path.stream.record(event)
    path.back()
    event.synchronize()
    assert device.queued() == 1
    assert (path.result.array == 255).all()
    event.close()


def test_no_stream_waits_for_the_default_one(cuda: Cuda, path: Path, device: Device) -> None:
    opened = [stream for handle, stream in device.streams.streams.items() if handle]
    assert len(opened) == 2
    assert {stream.flags for stream in opened} == {1}


def test_an_error_that_passes_is_raised_once_and_the_work_behind_it_is_done(path: Path, device: Device) -> None:
    device.fail("work", 701)
    path.there()
    path.back()
    with pytest.raises(TransientInferenceError):
        path.stream.synchronize()
    path.stream.synchronize()
    assert (path.result.array == 0xCD).all()


def test_threads_work_on_streams_of_their_own_at_the_same_time(cuda: Cuda) -> None:
    def run(value: int) -> bool:
        stream, given, block = cuda.open_stream(), cuda.allocate_pinned(SIZE), cuda.allocate(SIZE)
        result = cuda.allocate_pinned(SIZE)
        right = True
        for _ in range(50):
            given.array[:] = value
            stream.copy_to_device(block.address, given.address, SIZE)
            stream.copy_to_host(result.address, block.address, SIZE)
            stream.synchronize()
            right = right and bool((result.array == value).all())
        release_all((stream.close, given.free, block.free, result.free))
        return right

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(4), timeout=60)) == [True] * 4


def test_a_stream_that_is_closed_ends_its_work_first(path: Path) -> None:
    path.there()
    path.back()
    path.stream.close()
    path.stream.close()
    np.testing.assert_array_equal(path.result.array, np.arange(SIZE))


@pytest.mark.parametrize(
    "use",
    [
        lambda path: path.there(),
        lambda path: path.stream.synchronize(),
        lambda path: path.stream.handle,
        lambda path: path.stream.capture(lambda: None),
    ],
)
def test_a_closed_stream_takes_nothing(path: Path, use: Callable[[Path], object]) -> None:
    path.stream.close()
    with pytest.raises(InferenceError, match="CudaStream was used after its close"):
        use(path)


LATE: tuple[tuple[int, type[C7Error]], ...] = (
    (2, OutOfMemoryError),
    (700, DeviceFaultError),
    (701, TransientInferenceError),
    (702, DeviceFaultError),
    (709, DeviceContextError),
    (719, DeviceFaultError),
    (999, InferenceError),
)


@pytest.mark.parametrize(("code", "kind"), LATE)
def test_what_queued_work_meets_is_raised_where_its_stream_is_synchronised(
    path: Path, device: Device, code: int, kind: type[C7Error]
) -> None:
    device.fail("work", code)
    path.there()
    with pytest.raises(C7Error, match=rf"cuda:0: cudaStreamSynchronize: .*\({code}\)") as caught:
        path.stream.synchronize()
    assert type(caught.value) is kind


@pytest.mark.parametrize("code", [700, 702, 719])
def test_after_a_sticky_error_every_call_and_every_check_fails(
    cuda: Cuda, path: Path, device: Device, code: int
) -> None:
    device.fail("work", code)
    path.there()
    for call in (path.stream.synchronize, path.there, cuda.check, cuda.check, cuda.memory, path.block.free):
        with pytest.raises(DeviceFaultError, match=rf"\({code}\): every further CUDA call of this process fails"):
            call()


def test_a_lost_context_that_cannot_be_made_anew_is_a_device_that_is_dead_to_this_process(
    cuda: Cuda, path: Path, device: Device
) -> None:
    device.poison(709)
    with pytest.raises(DeviceContextError, match="load all its engines again"):
        path.stream.synchronize()
    for call in (cuda.make_current, cuda.check, cuda.memory):
        with pytest.raises(DeviceFaultError, match=r"no new one can be made in this process: start the process again"):
            call()


@pytest.mark.parametrize("code", [1, 2, 701])
def test_an_error_that_passes_leaves_a_device_that_answers(cuda: Cuda, path: Path, device: Device, code: int) -> None:
    device.fail("cudaMemcpyAsync", code)
    with pytest.raises(C7Error):
        path.there()
    cuda.check()
    path.there()
    path.stream.synchronize()


def test_a_check_forgets_the_last_error_before_it_asks_the_device(cuda: Cuda, path: Path, device: Device) -> None:
    device.fail("cudaMemcpyAsync", 701)
    with pytest.raises(TransientInferenceError):
        path.there()
    cuda.check()
    assert device.calls[-4:] == ["cudaGetLastError", "cudaSetDevice", "cudaMemsetAsync", "cudaStreamSynchronize"]
    assert device.last_error() == 0


def test_a_check_waits_for_no_other_stream(cuda: Cuda, path: Path, device: Device) -> None:
    path.there()
    cuda.check()
    assert device.queued() == 1


def test_a_check_is_possible_while_another_stream_is_captured(
    cuda: Cuda, path: Path, on_thread: Callable[[Callable[[], object]], object]
) -> None:
    def enqueue() -> None:
        path.there()
        on_thread(cuda.check)

    path.stream.capture(enqueue).close()


def test_an_unknown_error_says_what_cuda_says_and_no_more(path: Path, device: Device) -> None:
    device.fail("cudaStreamSynchronize", 999)
    with pytest.raises(InferenceError, match=r"unknown error; cudaErrorUnknown \(999\): CUDA does not say whether"):
        path.stream.synchronize()


def test_an_error_that_the_binding_has_no_name_for_is_still_an_inference_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def newer(stream: object) -> None:
        raise ValueError("98765 is not a valid cudaError_t")

    monkeypatch.setattr("cuda.bindings.runtime.cudaStreamSynchronize", newer)
    with pytest.raises(InferenceError, match=r"98765 is not a valid cudaError_t.*as new as the driver"):
        path.stream.synchronize()
