"""What the double of the device sees: each misuse that a real one would let pass or punish much later."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from runtimes.cuda.port import Cuda
from runtimes.cuda.release import release_all

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device

ROOT = Path(__file__).parents[3]


def taken(device: Device) -> list[str]:
    lines = device.misuses()
    device.forget_misuses()
    return lines


def test_a_second_free_is_seen(device: Device) -> None:
    runtime = importlib.import_module("cuda.bindings.runtime")
    runtime.cudaSetDevice(0)
    _, address = runtime.cudaMalloc(16)
    assert [int(runtime.cudaFree(address)[0]), int(runtime.cudaFree(address)[0])] == [0, 1]
    assert taken(device) == [f"device memory at {address:#x} was freed again; no such block is allocated"]


def test_pinned_memory_is_not_freed_as_the_devices(device: Device) -> None:
    runtime = importlib.import_module("cuda.bindings.runtime")
    runtime.cudaSetDevice(0)
    _, address = runtime.cudaHostAlloc(16, 0)
    assert int(runtime.cudaFree(address)[0]) == 1
    assert len(taken(device)) == 1
    assert device.live() == ["pinned memory, 16 bytes"]


def test_a_thread_that_never_chose_the_device_is_seen(
    device: Device, on_thread: Callable[[Callable[[], Any]], Any]
) -> None:
    runtime = importlib.import_module("cuda.bindings.runtime")
    runtime.cudaSetDevice(0)
    on_thread(lambda: runtime.cudaMalloc(16))
    assert taken(device) == ["cudaMalloc on a thread that has no current device"]


@pytest.mark.parametrize("direction", ["to", "from"])
def test_a_copy_of_pageable_memory_is_carried_out_and_seen(cuda: Cuda, device: Device, direction: str) -> None:
    stream, block, pageable = cuda.open_stream(), cuda.allocate(4), np.arange(4, dtype=np.uint8)
    if direction == "to":
        stream.copy_to_device(block.address, pageable.ctypes.data, 4)
        pageable[:] = 9
        stream.synchronize()
        assert device.bytes_at(block.address, 4).tolist() == [0, 1, 2, 3]
    else:
        device.bytes_at(block.address, 4)[:] = 7
        stream.copy_to_host(pageable.ctypes.data, block.address, 4)
        assert pageable.tolist() == [7, 7, 7, 7]
    (line,) = taken(device)
    assert line.endswith("pageable memory")
    release_all((stream.close, block.free))


def test_fresh_memory_is_not_zero_and_freed_memory_is_overwritten(cuda: Cuda) -> None:
    block = cuda.allocate_pinned(4)
    view = block.array
    assert view.tolist() == [0xCD] * 4
    block.free()
    assert view.tolist() == [0xDD] * 4


def test_work_of_another_library_runs_in_the_order_of_its_stream(cuda: Cuda, device: Device) -> None:
    stream, pinned = cuda.open_stream(), cuda.allocate_pinned(1)
    seen: list[int] = []
    for value in (1, 2):
        device.enqueue(stream.handle, lambda value=value: device.bytes_at(pinned.address, 1).fill(value))  # type: ignore[misc]
        device.enqueue(stream.handle, lambda: seen.append(int(device.bytes_at(pinned.address, 1)[0])))
    assert seen == []
    stream.synchronize()
    assert seen == [1, 2]
    release_all((stream.close, pinned.free))


def test_an_address_that_is_nobodys_is_an_illegal_one(cuda: Cuda, device: Device) -> None:
    error = sys.modules["cuda.double"].DeviceError
    with pytest.raises(error, match="cudaErrorIllegalAddress"):
        device.bytes_at(0x10, 4)
    assert taken(device) == ["4 bytes at 0x10 are in no block of the device"]


@pytest.mark.parametrize(
    ("told", "refusal"),
    [
        ({"device_count": 0, "driver_version": 0}, "with no driver"),
        ({"device_count": 0}, "a driver for CUDA 12.6"),
        ({"total_bytes": 8}, "OutOfMemoryError"),
        ({"fail": [["cudaMemsetAsync", 719, 0]]}, "DeviceFaultError"),
    ],
)
def test_a_child_process_is_told_through_its_environment(told: dict[str, object], refusal: str) -> None:
    program = "from runtimes.cuda.cuda_bindings import open_cuda; open_cuda(0)"
    environment = {"PYTHONPATH": f"{ROOT / 'tests/doubles'}:{ROOT}", "CUDA_DOUBLE": json.dumps(told)}
    ended = subprocess.run(  # noqa: S603 - our own interpreter, our own program
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert refusal in ended.stderr
