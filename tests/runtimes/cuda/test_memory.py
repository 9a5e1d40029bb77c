"""Blocks of memory: what they are worth, when they are gone, and what it is when there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from messages import DeviceFaultError, InferenceError, OutOfMemoryError, TransientInferenceError
from runtimes.cuda.port import Cuda
from runtimes.cuda.release import release_all

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device


@pytest.mark.parametrize("kind", ["allocate", "allocate_pinned"])
def test_a_block_is_aligned_and_given_back_once(cuda: Cuda, device: Device, kind: str) -> None:
    before = device.live()
    block = getattr(cuda, kind)(1000)
    assert (block.address % 256, block.size_bytes) == (0, 1000)
    assert len(device.live()) == len(before) + 1
    block.free()
    block.free()
    assert device.live() == before


@pytest.mark.parametrize("kind", ["allocate", "allocate_pinned"])
def test_a_freed_block_has_no_address(cuda: Cuda, kind: str) -> None:
    block = getattr(cuda, kind)(64)
    block.free()
    with pytest.raises(InferenceError, match="cuda:0: a block of 64 bytes was used after its free"):
        _ = block.address


def test_the_bytes_of_a_freed_pinned_block_are_not_handed_out(cuda: Cuda) -> None:
    block = cuda.allocate_pinned(64)
    block.free()
    with pytest.raises(InferenceError, match="after its free"):
        _ = block.array


def test_two_blocks_of_zero_bytes_have_addresses_of_their_own(cuda: Cuda) -> None:
    first, second = cuda.allocate(0), cuda.allocate(0)
    assert first.address != second.address
    assert 0 not in (first.address, second.address)
    assert first.size_bytes == 0
    release_all((first.free, second.free))


def test_a_negative_size_is_a_programming_error(cuda: Cuda) -> None:
    with pytest.raises(ValueError, match="size_bytes: expected 0 or more, found -1"):
        cuda.allocate(-1)


@pytest.mark.parametrize("size", [0, 1, 1024])
def test_a_pinned_array_is_the_block_itself(cuda: Cuda, size: int) -> None:
    block = cuda.allocate_pinned(size)
    block.array[:] = 7
    assert block.array.dtype == np.uint8
    assert block.array.shape == (size,)
    assert (block.array == 7).all()
    if size:
        assert block.array.ctypes.data == block.address
    block.free()


@pytest.mark.parametrize("kind", ["allocate", "allocate_pinned"])
def test_a_device_that_is_full_says_so_and_answers_on(cuda: Cuda, device: Device, kind: str) -> None:
    device.memory.total_bytes = 4096
    with pytest.raises(OutOfMemoryError, match=r"out of memory; cudaErrorMemoryAllocation \(2\)"):
        getattr(cuda, kind)(8192)
    device.memory.total_bytes = device.memory.used_bytes
    cuda.check()


def test_memory_that_is_freed_while_queued_work_uses_it_is_seen(cuda: Cuda, device: Device) -> None:
    stream, block, pinned = cuda.open_stream(), cuda.allocate(16), cuda.allocate_pinned(16)
    stream.copy_to_device(block.address, pinned.address, 16)
    block.free()
    with pytest.raises(DeviceFaultError, match=r"cudaErrorIllegalAddress \(700\)"):
        stream.synchronize()
    assert "were used after their device block was freed" in device.take_misuse()


def test_a_copy_past_the_end_of_a_block_is_refused_at_the_call(cuda: Cuda, device: Device) -> None:
    stream, block, pinned = cuda.open_stream(), cuda.allocate(16), cuda.allocate_pinned(32)
    with pytest.raises(InferenceError, match=r"cudaMemcpyAsync: invalid argument; cudaErrorInvalidValue \(1\)"):
        stream.copy_to_device(block.address, pinned.address, 32)
    assert "reach past the end" in device.take_misuse()
    release_all((stream.close, block.free, pinned.free))


def test_a_free_that_fails_is_told_once_and_not_tried_again(cuda: Cuda, device: Device) -> None:
    block = cuda.allocate(16)
    address = block.address
    device.fail("cudaFree", 1)
    with pytest.raises(InferenceError, match="cudaFree: invalid argument"):
        block.free()
    block.free()
    assert device.calls.count("cudaFree") == 1
    device.memory.free(address, "device")


def test_every_step_of_a_release_is_carried_out_and_the_gravest_error_raised() -> None:
    done: list[str] = []

    def fail(error: Exception) -> None:
        done.append(str(error))
        raise error

    with pytest.raises(DeviceFaultError, match=r"dead \(2 more failed to be given back\)"):
        release_all(
            (
                lambda: fail(TransientInferenceError("over")),
                lambda: fail(DeviceFaultError("dead")),
                lambda: done.append("given back"),
                lambda: fail(OutOfMemoryError("full")),
            )
        )
    assert done == ["over", "dead", "given back", "full"]


def test_one_error_of_a_release_comes_through_as_it_is() -> None:
    error = InferenceError("one")

    def fail() -> None:
        raise error

    with pytest.raises(InferenceError) as caught:
        release_all((fail,))
    assert caught.value is error


def test_a_programming_error_in_a_release_is_not_put_off() -> None:
    def fail() -> None:
        raise TypeError("no such thing")

    with pytest.raises(TypeError, match="no such thing"):
        release_all((fail,))


def test_a_block_that_goes_while_another_one_is_looked_for_disturbs_nothing(cuda: Cuda, device: Device) -> None:
    """As the collector frees one, on the very thread that searches."""
    kept = [cuda.allocate(64) for _ in range(8)]
    litter = [cuda.allocate(64) for _ in range(8)]

    class Address(int):
        def __ge__(self, other: int) -> bool:
            if litter:
                litter.pop().free()
            return int(self) >= other

    assert device.memory.find(Address(kept[-1].address), 64) is not None
    for block in (*kept, *litter):
        block.free()
