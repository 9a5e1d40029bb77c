"""What the double of CUDA believes of a device, asked of one. Red here: the double is wrong, and where it says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runtimes.cuda.port import CaptureRefusedError, Cuda, Stream
from runtimes.cuda.release import release_all
from runtimes.cuda_errors import CUDA_ERRORS
from tests.runtimes.tensorrt.on_a_device import networks
from tests.runtimes.tensorrt.on_a_device.conftest import Built, InChild, Say
from tests.runtimes.tensorrt.on_a_device.networks import FP16_ROWS

pytestmark = pytest.mark.tensorrt

INVALID_VALUE, CONTEXT_IS_DESTROYED = 1, 709
INVALIDATED, NOT_CAPTURING, WRONG_THREAD = 901, 903, 908
STICKY = {error.code for error in CUDA_ERRORS if error.outlook == "sticky"}


def allocate_pinned(cuda: Cuda) -> Callable[[], None]:
    return lambda: cuda.allocate_pinned(16).free()


def free(cuda: Cuda) -> Callable[[], None]:
    return cuda.allocate(16).free


def free_pinned(cuda: Cuda) -> Callable[[], None]:
    return cuda.allocate_pinned(16).free


@pytest.mark.belief("cudaFree, cudaHostAlloc and cudaFreeHost end a capture of their own thread")
@pytest.mark.parametrize("prepare", [allocate_pinned, free, free_pinned])
def test_memory_that_is_had_or_given_back_ends_a_capture(
    cuda: Cuda, prepare: Callable[[Cuda], Callable[[], None]]
) -> None:
    stream, block, given = cuda.open_stream(), cuda.allocate(16), cuda.allocate_pinned(16)
    act = prepare(cuda)

    def enqueue() -> None:
        stream.copy_to_device(block.address, given.address, 16)
        act()

    with pytest.raises(CaptureRefusedError):
        stream.capture(enqueue)
    stream.synchronize()
    release_all((stream.close, block.free, given.free))


@pytest.mark.belief("cudaMemcpyAsync refuses an address past the end of a block")
def test_a_copy_past_the_end_of_a_block_is_refused_at_the_call(in_child: InChild) -> None:
    found = in_child("copy_past_the_end")
    assert (found["at_the_call"], found["afterwards"]) == (INVALID_VALUE, 0)


@pytest.mark.belief("a sticky error comes back from every call")
def test_after_a_sticky_error_every_call_gives_it(in_child: InChild, built: Built, say: Say) -> None:
    entry = built("scaled", networks.scaled_rows(), FP16_ROWS)
    found = in_child("poison", entry.path)
    say(f"accepted {found['accepted']}, then {found['codes']}")
    assert found["accepted"]
    assert len(set(found["codes"].values())) == 1
    assert set(found["codes"].values()) <= STICKY


@pytest.mark.belief("cudaStreamEndCapture ends the capture when it fails")
def test_a_capture_that_could_not_be_ended_here_is_still_one_there_and_the_next_end_is_its_last(
    cuda: Cuda, in_child: InChild
) -> None:
    codes = in_child("end_a_capture_on_another_thread")["codes"]
    assert codes[:2] == [0, WRONG_THREAD]
    assert codes[2] in (0, INVALIDATED)
    assert codes[3:] == [NOT_CAPTURING, 0], "a stream that captures nothing, and works"


@pytest.mark.belief("cudaStreamEndCapture ends the capture when it fails")
def test_a_stream_whose_capture_was_spoilt_takes_work_and_captures_again(cuda: Cuda) -> None:
    stream, block, given, result = (
        cuda.open_stream(),
        cuda.allocate(16),
        cuda.allocate_pinned(16),
        cuda.allocate_pinned(16),
    )
    for _ in range(3):
        with pytest.raises(CaptureRefusedError):
            stream.capture(stream.synchronize)
        given.array[:] = 7
        round_trip(stream, block.address, given.address, result.address)
        stream.synchronize()
        assert (result.array == 7).all()
    graph = stream.capture(lambda: round_trip(stream, block.address, given.address, result.address))
    given.array[:] = 9
    stream.launch(graph)
    stream.synchronize()
    assert (result.array == 9).all()
    release_all((graph.close, stream.close, block.free, given.free, result.free))


def round_trip(stream: Stream, block: int, given: int, result: int) -> None:
    stream.copy_to_device(block, given, 16)
    stream.copy_to_host(result, block, 16)


@pytest.mark.belief("cudaErrorContextIsDestroyed comes back from every call")
def test_after_the_primary_context_was_destroyed_every_call_says_so(in_child: InChild, say: Say) -> None:
    found = in_child("destroy_the_context")
    if "skipped" in found:
        pytest.skip(found["skipped"])
    say(str(found["codes"]))
    assert found["reset"] == 0
    assert set(found["codes"].values()) == {CONTEXT_IS_DESTROYED}
