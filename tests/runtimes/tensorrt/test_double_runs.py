"""The double of TensorRT runs engines no more kindly than the real one: late, in place, and every misuse is noted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from messages import DeviceFaultError
from runtimes.cuda.port import CaptureRefusedError, Cuda, DeviceMemory, Stream
from runtimes.cuda.release import release_all
from tests.runtimes.tensorrt import models
from tests.runtimes.tensorrt.engines import ROWS, SCALE, Load

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device

X = np.array([[1, 2, 3], [4, 5, 6]], np.float32)


class Bench:
    """A context of the double without anything of the product around it, and blocks that it may be told."""

    def __init__(self, trt: ModuleType, cuda: Cuda, device: Device, engine: Any) -> None:
        self.trt, self.cuda, self.device, self.engine = trt, cuda, device, engine
        self.recorder = engine.error_recorder.recorded
        self.context: Any = self.new_context()
        self.blocks: dict[str, DeviceMemory] = {}
        self.scratch = cuda.allocate(4096)
        self.streams: list[Stream] = [cuda.open_stream(), cuda.open_stream()]

    def new_context(self) -> Any:
        return self.engine.create_execution_context(self.trt.ExecutionContextAllocationStrategy.USER_MANAGED)

    def put(self, name: str, array: np.ndarray) -> None:
        raw = np.frombuffer(array.tobytes(), np.uint8)
        if name not in self.blocks:
            self.blocks[name] = self.cuda.allocate(256)
        self.device.bytes_at(self.blocks[name].address, raw.size)[:] = raw

    def get(self, name: str, count: int) -> list[float]:
        found = self.device.bytes_at(self.blocks[name].address, count * 4).view(np.float32)
        return [float(value) for value in found]

    def tell(self, context: Any) -> None:
        """All that a run of `models.dynamic` needs."""
        self.put("x", X)
        self.put("scale", SCALE)
        for name in ("scaled", "total", "echo"):
            self.put(name, np.zeros(12, np.float32))
        assert context.set_input_shape("x", (2, 3))
        for name, block in self.blocks.items():
            assert context.set_tensor_address(name, block.address)
        context.set_device_memory(self.scratch.address, 4096)

    def words(self) -> str:
        said = "; ".join(error.text for error in self.recorder.all())
        self.recorder.clear()
        return said

    def close(self) -> None:
        self.context = self.engine = None
        if not self.device.answers:
            return
        release_all(each.close for each in self.streams)
        release_all(block.free for block in (self.scratch, *self.blocks.values()))


@pytest.fixture
def bench(trt: ModuleType, cuda: Cuda, device: Device, load: Load) -> Iterator[Bench]:
    made = Bench(trt, cuda, device, load(models.dynamic(), ROWS).engine)
    made.tell(made.context)
    yield made
    made.close()


def test_a_run_is_carried_out_when_its_stream_is_synchronised_and_reads_what_is_there_then(bench: Bench) -> None:
    assert bench.context.execute_async_v3(bench.streams[0].handle)
    assert bench.get("echo", 6) == [0] * 6
    bench.put("x", X + 10)
    bench.streams[0].synchronize()
    assert bench.get("echo", 6) == [11, 12, 13, 14, 15, 16]


def test_activation_memory_is_overwritten_by_every_run(bench: Bench) -> None:
    assert bench.context.execute_async_v3(bench.streams[0].handle)
    bench.streams[0].synchronize()
    assert set(bench.device.bytes_at(bench.scratch.address, 4096)) == {0x5A}


def test_a_graph_replays_the_addresses_and_shapes_of_its_capture(bench: Bench) -> None:
    stream = bench.streams[0]
    graph = stream.capture(lambda: bench.context.execute_async_v3(stream.handle))
    for added in (0, 100):
        bench.put("x", X + added)
        stream.launch(graph)
        stream.synchronize()
        assert bench.get("echo", 6) == [float(value) + added for value in X.reshape(-1)]
    assert bench.context.set_input_shape("x", (1, 3))
    assert "set_input_shape of an execution context that is captured" in bench.device.take_misuse()
    bench.put("echo", np.zeros(12, np.float32))
    stream.launch(graph)
    stream.synchronize()
    assert bench.get("echo", 6)[3:] == [104, 105, 106]
    graph.close()


def test_two_runs_of_one_context_at_once_are_a_misuse_and_one_after_the_other_are_none(bench: Bench) -> None:
    first, second = bench.streams
    for _ in range(2):
        assert bench.context.execute_async_v3(first.handle)
    first.synchronize()
    assert bench.context.execute_async_v3(first.handle)
    assert bench.context.execute_async_v3(second.handle)
    first.synchronize()
    assert bench.device.take_misuse() == "one execution context is used by two runs at once"
    second.synchronize()


def test_two_runs_in_the_same_activation_memory_at_once_are_a_misuse(bench: Bench) -> None:
    other = bench.new_context()
    bench.tell(other)
    for context, stream in zip((bench.context, other), bench.streams, strict=True):
        assert context.execute_async_v3(stream.handle)
    bench.streams[0].synchronize()
    assert bench.device.take_misuse() == "two runs use the same activation memory at once"
    bench.streams[1].synchronize()


def test_a_graph_that_is_launched_beside_another_run_in_its_memory_is_a_misuse(bench: Bench) -> None:
    first, second = bench.streams
    graph = first.capture(lambda: bench.context.execute_async_v3(first.handle))
    other = bench.new_context()
    bench.tell(other)
    first.launch(graph)
    assert other.execute_async_v3(second.handle)
    first.synchronize()
    assert bench.device.take_misuse() == "two runs use the same activation memory at once"
    second.synchronize()
    graph.close()


def test_a_run_whose_context_was_destroyed_before_it_is_a_misuse(bench: Bench) -> None:
    assert bench.context.execute_async_v3(bench.streams[0].handle)
    bench.context = None
    bench.streams[0].synchronize()
    assert bench.device.take_misuse() == "a run was carried out after its execution context was destroyed"


def test_memory_that_was_freed_before_the_run_is_an_illegal_address(bench: Bench) -> None:
    assert bench.context.execute_async_v3(bench.streams[0].handle)
    bench.scratch.free()
    with pytest.raises(DeviceFaultError, match="an illegal memory access was encountered"):
        bench.streams[0].synchronize()
    assert "4096 bytes at" in bench.device.take_misuse()


@pytest.mark.parametrize("call", ["deserialize_cuda_engine", "create_execution_context", "execute_async_v3"])
def test_a_thread_that_never_chose_a_device_is_a_misuse(
    bench: Bench, call: str, trt: ModuleType, on_thread: Callable[[Callable[[], Any]], Any], log: Any, load: Load
) -> None:
    calls: dict[str, Callable[[], Any]] = {
        "deserialize_cuda_engine": lambda: trt.Runtime(log).deserialize_cuda_engine(b"none"),
        "create_execution_context": bench.new_context,
        "execute_async_v3": lambda: bench.context.execute_async_v3(bench.streams[0].handle),
    }
    on_thread(calls[call])
    bench.streams[0].synchronize()
    assert f"{call} on a thread that has no current device" in bench.device.misuses()
    bench.device.forget_misuses()


@pytest.mark.parametrize(
    ("lacking", "words"),
    [
        (lambda context: context.set_tensor_address("x", 0), "Address is not set for input tensor x"),
        (lambda context: context.set_tensor_address("total", 0), 'Tensor "total" is bound to nullptr'),
        (lambda context: context.set_device_memory(0, 0), "4096 bytes of device memory are needed, 0 are set"),
        (lambda context: context.set_device_memory(0x100, 100), "4096 bytes of device memory are needed, 100 are set"),
    ],
)
def test_a_run_that_lacks_something_is_refused_with_its_reason(
    bench: Bench, lacking: Callable[[Any], object], words: str
) -> None:
    lacking(bench.context)
    assert bench.context.execute_async_v3(bench.streams[0].handle) is False
    assert words in bench.words()
    assert bench.device.queued() == 0


def test_a_run_without_a_shape_is_refused_and_what_lacks_is_listed(bench: Bench) -> None:
    context = bench.new_context()
    assert tuple(context.get_tensor_shape("x")) == (-1, 3)
    assert tuple(context.get_tensor_shape("total")) == (-1,)
    assert context.infer_shapes() == ["x"]
    assert context.execute_async_v3(bench.streams[0].handle) is False
    assert "Not all dimensions of input tensor x are set" in bench.words()
    assert context.set_input_shape("x", [4, 3])
    assert context.infer_shapes() == []
    assert tuple(context.get_tensor_shape("total")) == (4,)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda context: context.set_input_shape("x", (7, 3)), "does not satisfy any optimization profile"),
        (lambda context: context.set_input_shape("x", (2, 4)), "Static dimension mismatch"),
        (lambda context: context.set_input_shape("x", (2,)), "Static dimension mismatch"),
        (lambda context: context.set_input_shape("total", (2,)), "total is no input"),
        (lambda context: context.set_input_shape("z", (2,)), "z is no tensor of the engine"),
        (lambda context: context.set_tensor_address("z", 0), "z is no tensor of the engine"),
        (lambda context: context.set_tensor_address("x", 0x1001), "not aligned to 256 bytes"),
        (lambda context: context.execute_async_v3(0x7777), r"Cuda Runtime (invalid resource handle)"),
    ],
)
def test_what_does_not_fit_is_false_with_its_reason(bench: Bench, call: Callable[[Any], bool], words: str) -> None:
    assert call(bench.context) is False
    assert words in bench.words()


def test_a_run_on_a_device_that_is_lost_is_false_with_cudas_words(bench: Bench) -> None:
    bench.device.poison(700)
    assert bench.context.execute_async_v3(bench.streams[0].handle) is False
    assert bench.words() == (
        "IExecutionContext::enqueueV3: Error Code 1: Cuda Runtime (an illegal memory access was encountered)"
    )
    assert bench.new_context() is None


def test_a_context_that_manages_its_own_memory_takes_it_and_gives_it_back(bench: Bench) -> None:
    before = bench.device.live()
    static = bench.trt.ExecutionContextAllocationStrategy.STATIC
    context = bench.engine.create_execution_context(static)
    assert len(bench.device.live()) == len(before) + 1
    del context
    assert bench.device.live() == before
    bench.device.fail("cudaMalloc", 2)
    assert bench.engine.create_execution_context(static) is None
    assert "Error Code 1: Cuda Runtime (out of memory)" in bench.words()
    assert bench.device.live() == before


def test_an_output_that_depends_on_data_cannot_be_captured(
    trt: ModuleType, cuda: Cuda, device: Device, load: Load
) -> None:
    bench = Bench(trt, cuda, device, load(models.where_nonzero(), ROWS).engine)
    stream = bench.streams[0]
    bench.put("x", X)
    bench.put("negated", X)
    assert bench.context.set_input_shape("x", (2, 3))
    assert tuple(bench.context.get_tensor_shape("where")) == (2, -1)
    for name in ("x", "negated"):
        assert bench.context.set_tensor_address(name, bench.blocks[name].address)
    bench.context.set_device_memory(bench.scratch.address, 4096)
    assert bench.context.set_output_allocator("where", trt.IOutputAllocator())
    with pytest.raises(CaptureRefusedError, match=r"\(901\)"):
        stream.capture(lambda: bench.context.execute_async_v3(stream.handle))
    assert "Cuda Runtime (operation not permitted when stream is capturing)" in bench.words()
    assert bench.context.execute_async_v3(stream.handle) is False
    assert "OutOfMemory (Requested size was 96 bytes.)" in bench.words()
    bench.close()
