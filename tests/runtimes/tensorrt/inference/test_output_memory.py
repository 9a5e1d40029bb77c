"""Memory for outputs whose shape only the run decides: what TensorRT is handed, and what it never tells."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messages import InferenceError, OutOfMemoryError
from runtimes.cuda.port import Cuda
from runtimes.tensorrt.inference.output_memory import OutputMemory, make_output_allocator, raise_remembered
from tests.runtimes.tensorrt import models
from tests.runtimes.tensorrt.engines import ROWS, Ready, assert_same

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device


@pytest.fixture
def memory(cuda: Cuda) -> Iterator[OutputMemory]:
    made = OutputMemory(cuda, "where")
    yield made
    made.free()
    made.free()


def live_bytes(device: Device) -> list[int]:
    return sorted(block.size_bytes for block in device.memory.live())


def test_a_block_is_kept_for_whatever_fits_and_a_larger_one_takes_its_place(
    memory: OutputMemory, device: Device
) -> None:
    before = live_bytes(device)
    first = memory.reallocated(100, 256)
    assert memory.reallocated(40, 256) == first == memory.address
    second = memory.reallocated(300, 256)
    assert second != first
    assert live_bytes(device) == sorted([*before, 100, 300])
    memory.settle()
    assert live_bytes(device) == sorted([*before, 300])
    assert memory.address == second


def test_before_tensorrt_asks_there_is_no_memory(memory: OutputMemory) -> None:
    with pytest.raises(InferenceError, match=r"^where: TensorRT asked for no memory for this output$"):
        _ = memory.address


def test_memory_that_cannot_be_had_is_no_address_now_and_an_error_of_the_run(
    memory: OutputMemory, device: Device
) -> None:
    kept = memory.reallocated(16, 256)
    device.fail("cudaMalloc", 2)
    assert memory.reallocated(1000, 256) == 0
    with pytest.raises(OutOfMemoryError, match="out of memory"):
        raise_remembered([memory])
    raise_remembered([memory])
    assert memory.reallocated(16, 256) == kept


def test_an_alignment_that_cuda_does_not_give_is_an_error_of_the_run(memory: OutputMemory) -> None:
    assert memory.reallocated(16, 1 << 40) == 0
    with pytest.raises(InferenceError, match=r"^where: expected memory aligned to 1099511627776 bytes for TensorRT"):
        raise_remembered([memory])


def test_a_new_run_knows_nothing_of_the_one_before(memory: OutputMemory, trt: ModuleType, device: Device) -> None:
    memory.noticed(trt.Dims([2, 3]))
    device.fail("cudaMalloc", 2)
    memory.reallocated(16, 256)
    assert memory.shape == (2, 3)
    memory.begin()
    assert memory.shape is None
    raise_remembered([memory])


def test_a_shape_that_tensorrt_does_not_have_is_none(memory: OutputMemory, trt: ModuleType) -> None:
    memory.noticed(trt.Dims._invalid())
    raise_remembered([memory])
    assert memory.shape is None


@pytest.mark.parametrize(
    ("failure", "kind", "text"),
    [
        (OSError("of a library"), InferenceError, r"^where: its memory could not be had: OSError\('of a library'\)$"),
        (KeyboardInterrupt(), KeyboardInterrupt, r"^$"),
        (SystemExit(3), SystemExit, r"^3$"),
    ],
)
def test_what_a_callback_met_is_raised_by_the_run(
    memory: OutputMemory, monkeypatch: pytest.MonkeyPatch, failure: BaseException, kind: type[BaseException], text: str
) -> None:
    def fails(_size_bytes: int, _alignment: int) -> int:
        raise failure

    monkeypatch.setattr(memory, "_reserved", fails)
    assert memory.reallocated(16, 256) == 0
    with pytest.raises(kind, match=text):
        raise_remembered([memory])


def test_of_several_the_first_is_raised_and_none_is_remembered(cuda: Cuda, trt: ModuleType) -> None:
    memories = [OutputMemory(cuda, name) for name in ("a", "b", "c")]
    assert [memory.reallocated(1, 1 << 40) for memory in memories[1:]] == [0, 0]
    with pytest.raises(InferenceError, match=r"^b: expected memory aligned"):
        raise_remembered(memories)
    raise_remembered(memories)
    for memory in memories:
        memory.free()


def test_the_allocator_answers_by_both_of_its_names(memory: OutputMemory, trt: ModuleType) -> None:
    allocator: Any = make_output_allocator(trt, memory)
    assert allocator.memory is memory
    assert allocator.reallocate_output_async("where", 0, 8, 256, 0x10) == memory.address
    assert allocator.reallocate_output("where", memory.address, 8, 256) == memory.address
    allocator.notify_shape("where", trt.Dims([2, 0]))
    assert memory.shape == (2, 0)


# In an engine.


def test_an_engine_takes_more_memory_only_when_an_output_is_longer_than_any_before(
    ready: Ready, device: Device
) -> None:
    engine = ready(models.where_nonzero(), ROWS)
    allocated = []
    for count in (1, 6, 3, 6, 1):
        device.calls.clear()
        engine.run({"x": np.ones((count, 3), np.float32)})
        allocated.append(device.calls.count("cudaMalloc"))
        assert device.calls.count("cudaFree") == allocated[-1]
    assert allocated == [1, 1, 0, 0, 0]


def test_an_engine_whose_output_stays_empty_is_given_an_address_all_the_same(ready: Ready) -> None:
    engine = ready(models.where_nonzero(), ROWS)
    inputs = {"x": np.zeros((2, 3), np.float32)}
    assert_same(engine.run(inputs), models.answers(models.where_nonzero(), inputs))


def test_an_engine_that_tells_no_shape_has_no_result_and_runs_on(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = ready(models.where_nonzero(), ROWS)
    inputs = {"x": np.ones((2, 3), np.float32)}
    with monkeypatch.context() as patch:
        patch.setattr(OutputMemory, "noticed", lambda _memory, _dims: None)
        with pytest.raises(InferenceError, match=r"^m: TensorRT gave no shape for output where, found None$"):
            engine.run(inputs)
    assert_same(engine.run(inputs), models.answers(models.where_nonzero(), inputs))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(sizes=st.lists(st.integers(1, 4096), min_size=1, max_size=8))
def test_whatever_is_asked_for_there_is_room_and_one_block_in_the_end(
    cuda: Cuda, device: Device, sizes: list[int]
) -> None:
    before = live_bytes(device)
    memory = OutputMemory(cuda, "where")
    for size in sizes:
        address = memory.reallocated(size, 256)
        assert device.bytes_at(address, size).size == size
    memory.settle()
    assert live_bytes(device) == sorted([*before, max(sizes)])
    memory.free()
    assert live_bytes(device) == before
