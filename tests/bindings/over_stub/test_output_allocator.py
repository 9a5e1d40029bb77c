"""Our output allocator in NVIDIA's bindings, over a device of host memory: memory when asked, shapes, and failures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from messages import InferenceError, OutOfMemoryError
from runtimes.cuda.port import Cuda
from runtimes.tensorrt.inference.output_memory import OutputMemory, make_output_allocator, raise_remembered
from tests.bindings.callbacks import Core

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device

STREAM = 0x7F0000001230

Give = Callable[[Core, object, int, int], int]


@pytest.fixture
def memory(cuda: Cuda) -> Iterator[OutputMemory]:
    made = OutputMemory(cuda, "scores")
    made.begin()
    yield made
    made.free()


def at_once(core: Core, allocator: object, size: int, alignment: int) -> int:
    return core.reallocate(allocator, "scores", 0, size, alignment)


def on_a_stream(core: Core, allocator: object, size: int, alignment: int) -> int:
    return core.reallocate_async(allocator, "scores", 0, size, alignment, STREAM)


@pytest.fixture(params=[at_once, on_a_stream])
def give(request: pytest.FixtureRequest) -> Give:
    found: Give = request.param
    return found


def test_it_is_the_interface_that_its_vtable_was_written_down_for(
    trt: ModuleType, core: Core, memory: OutputMemory
) -> None:
    allocator = make_output_allocator(trt, memory)
    assert "PyOutputAllocator" in core.class_name(allocator)
    assert core.interface(allocator) == ("IOutputAllocator", 1)


def test_every_argument_arrives_in_its_place(trt: ModuleType, core: Core) -> None:
    calls: list[tuple[object, ...]] = []

    class Recording(trt.IOutputAllocator):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)

        def reallocate_output(self, *arguments: object) -> int:
            calls.append(arguments)
            return 0x1000

        def reallocate_output_async(self, *arguments: object) -> int:
            calls.append(arguments)
            return 0x2000

        def notify_shape(self, name: str, shape: object) -> None:
            calls.append((name, type(shape), tuple(shape)))  # type: ignore[arg-type]

    allocator = Recording()
    assert core.reallocate(allocator, "scores", 0x40, 2**40, 256) == 0x1000
    assert core.reallocate_async(allocator, "scores", 0x40, 2**40, 256, STREAM) == 0x2000
    core.notify_shape(allocator, "scores", (2, 0, 2**33))
    assert calls == [
        ("scores", 0x40, 2**40, 256),
        ("scores", 0x40, 2**40, 256, STREAM),
        ("scores", trt.Dims, (2, 0, 2**33)),
    ]


def test_the_core_gets_room_that_grows_and_is_kept(
    trt: ModuleType, core: Core, memory: OutputMemory, give: Give
) -> None:
    allocator = make_output_allocator(trt, memory)
    small = give(core, allocator, 1000, 256)
    assert small == memory.address
    assert give(core, allocator, 10, 256) == small
    larger = give(core, allocator, 5000, 256)
    assert larger == memory.address != small
    assert memory.failure is None


@pytest.mark.parametrize("shape", [(), (3, 4), (0, 5), (1,) * 8])
def test_the_shape_that_came_out_is_heard(
    trt: ModuleType, core: Core, memory: OutputMemory, shape: tuple[int, ...]
) -> None:
    core.notify_shape(make_output_allocator(trt, memory), "scores", shape)
    assert memory.shape == shape


def test_a_shape_that_the_core_does_not_know_is_none(trt: ModuleType, core: Core, memory: OutputMemory) -> None:
    core.notify_shape(make_output_allocator(trt, memory), "scores", None)
    assert memory.shape is None
    assert memory.failure is None


def test_memory_that_cannot_be_had_is_a_null_pointer_and_the_run_raises_why(
    trt: ModuleType,
    core: Core,
    device: Device,
    memory: OutputMemory,
    give: Give,
    capfd: pytest.CaptureFixture[str],
) -> None:
    device.fail("cudaMalloc", 2)
    assert give(core, make_output_allocator(trt, memory), 1000, 256) == 0
    with pytest.raises(OutOfMemoryError):
        raise_remembered([memory])
    assert capfd.readouterr().err == "", "the bindings met an exception"


def test_an_alignment_that_cuda_does_not_give_is_a_null_pointer_and_the_run_raises_why(
    trt: ModuleType, core: Core, memory: OutputMemory, give: Give
) -> None:
    assert give(core, make_output_allocator(trt, memory), 1000, 2**62) == 0
    with pytest.raises(InferenceError, match=f"expected memory aligned to {2**62} bytes"):
        raise_remembered([memory])
