"""What the double of TensorRT's runtime believes, asked of a device. Red here: the double is wrong, and where it says
so; our own code may still be right, because it allows for more than one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest

from messages import EngineBuildError, EngineDeserializeError, OutOfMemoryError
from runtimes.cuda.port import Cuda, DeviceMemory
from runtimes.cuda.release import release_all
from runtimes.inference_runtime import BuildConfig
from runtimes.tensorrt.error_recorder import make_error_recorder
from runtimes.tensorrt.inference.engine import EngineLoader, LoadedEngine
from runtimes.tensorrt.inference.io_tensors import shape_of
from runtimes.tensorrt.inference.output_memory import OutputMemory, make_output_allocator
from runtimes.tensorrt.log import TensorrtLog
from tests.runtimes.tensorrt.on_a_device import networks
from tests.runtimes.tensorrt.on_a_device.conftest import Built, InChild, MakeRuntime, Say
from tests.runtimes.tensorrt.on_a_device.networks import FP16, FP16_ROWS
from tests.runtimes.tensorrt.on_a_device.plans import plan_with_host_code, plan_with_shape_values

pytestmark = pytest.mark.tensorrt

LoadEntry = Callable[[Any], LoadedEngine]
MIB = 1 << 20
WEIGHTS = (4096, 4096)
MAPS = 40
"""Feature maps of at most 4 GiB each: more than any board has, and than most cards."""


@pytest.fixture
def scaled(built: Built, load: LoadEntry) -> LoadedEngine:
    return load(built("scaled", networks.scaled_rows(), FP16_ROWS))


@pytest.fixture
def nonzero(built: Built, load: LoadEntry) -> LoadedEngine:
    return load(built("nonzero", networks.nonzero_rows(), FP16_ROWS))


@pytest.fixture
def blocks(cuda: Cuda) -> Iterator[Callable[[int], DeviceMemory]]:
    """`blocks(size_bytes)`: memory on the device, given back at the end."""
    taken: list[DeviceMemory] = []

    def take(size_bytes: int) -> DeviceMemory:
        taken.append(cuda.allocate(size_bytes))
        return taken[-1]

    yield take
    release_all(block.free for block in taken)


def context_of(trt: ModuleType, cuda: Cuda, loaded: LoadedEngine, blocks: Callable[[int], DeviceMemory]) -> Any:
    """One that is ready but for its outputs' addresses."""
    cuda.make_current()
    context: Any = loaded.engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
    scratch = blocks(max(int(loaded.engine.device_memory_size_v2), 1))
    context.set_device_memory(scratch.address, scratch.size_bytes)
    for tensor in loaded.io:
        if tensor.is_input:
            context.set_input_shape(tensor.name, tuple(2 if extent < 0 else extent for extent in tensor.spec.shape))
            if not tensor.on_host:
                context.set_tensor_address(tensor.name, blocks(MIB).address)
    return context


def said(loaded: LoadedEngine) -> str:
    return "; ".join(f"{error.code}: {error.text}" for error in loaded.reports.recorder.recorded.all())


def test_a_shape_outside_the_profile_is_refused_in_words_that_name_the_profile(
    trt: ModuleType, cuda: Cuda, scaled: LoadedEngine, blocks: Callable[[int], DeviceMemory], say: Say
) -> None:
    context = context_of(trt, cuda, scaled, blocks)
    with scaled.reports.listening():
        assert not context.set_input_shape("x", (7, 3))
        say(said(scaled))
        assert "profile" in said(scaled)


@pytest.mark.belief("the recorder is asked for its number of errors after each report")
def test_the_recorder_is_asked_for_its_errors_by_the_name_that_the_core_uses(
    trt: ModuleType, cuda: Cuda, scaled: LoadedEngine, blocks: Callable[[int], DeviceMemory], say: Say
) -> None:
    base: Any = type(make_error_recorder(trt))
    asked: list[str] = []

    class Counting(base):  # type: ignore[misc]
        def num_errors(self) -> int:
            asked.append("num_errors")
            return cast("int", super().num_errors())

        def get_num_errors(self) -> int:
            asked.append("get_num_errors")
            return cast("int", super().get_num_errors())

    recorder = Counting()
    scaled.engine.error_recorder = recorder
    context = context_of(trt, cuda, scaled, blocks)
    assert not context.set_input_shape("x", (7, 3))
    say(f"{recorder.recorded.count()} reported, asked {asked}")
    assert recorder.recorded.count() >= 1
    assert set(asked) == {"get_num_errors"}


@pytest.mark.belief("set_tensor_address refuses an address that is not aligned")
@pytest.mark.belief("the words of a refused host code, of missing device memory")
def test_an_address_that_is_not_aligned_is_refused_at_the_call(
    trt: ModuleType, cuda: Cuda, scaled: LoadedEngine, blocks: Callable[[int], DeviceMemory], say: Say
) -> None:
    context, block = context_of(trt, cuda, scaled, blocks), blocks(MIB)
    with scaled.reports.listening():
        assert context.set_tensor_address("scaled", block.address)
        assert not context.set_tensor_address("scaled", block.address + 2)
        say(said(scaled))
        assert "align" in said(scaled)


@pytest.mark.belief("memory that is too small for USER_MANAGED is refused by execute_async_v3")
@pytest.mark.belief("the words of a refused host code, of missing device memory")
def test_scratch_memory_that_is_told_as_too_small_is_refused_by_the_run_and_by_nothing_before(
    in_child: InChild, built: Built, say: Say
) -> None:
    profile = (("image", (1, 32, 64, 64), (1, 32, 64, 64), (4, 32, 64, 64)),)
    maps = networks.living_feature_maps(3, side=64)
    entry = built("maps", maps, BuildConfig(precision="fp16", optimization_profiles=profile))
    found = in_child("run_in_less_memory_than_is_told_to_be_needed", entry.path)
    say("; ".join(found["said"]))
    assert found["needed"] > 1
    assert (found["said_at_once"], found["accepted"]) == (0, False)
    assert found["said"]


@pytest.mark.belief("an output that depends on data makes execute_async_v3 wait for the stream")
def test_an_output_that_depends_on_data_has_the_run_wait_before_it_asks_for_memory(
    trt: ModuleType, cuda: Cuda, nonzero: LoadedEngine, blocks: Callable[[int], DeviceMemory]
) -> None:
    context, stream = context_of(trt, cuda, nonzero, blocks), cuda.open_stream()
    source, result = blocks(64 * MIB), cuda.allocate_pinned(64 * MIB)
    result.array[-1] = 1
    memory = OutputMemory(cuda, "where")
    seen: list[int] = []

    class Watching(type(make_output_allocator(trt, memory))):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)

        def reallocate_output_async(self, name: str, held: int, size: int, alignment: int, stream: int) -> int:
            seen.append(int(result.array[-1]))
            return memory.reallocated(size, alignment)

        def notify_shape(self, name: str, shape: Any) -> None:
            memory.noticed(shape)

    allocator = Watching()
    fill(cuda, source, 0)
    with nonzero.reports.listening():
        context.set_tensor_address("negated", blocks(MIB).address)
        assert context.set_output_allocator("where", allocator)
        stream.copy_to_host(result.address, source.address, 64 * MIB)
        assert context.execute_async_v3(stream.handle), said(nonzero)
    assert memory.shape is not None, "notify_shape comes before execute_async_v3 returns"
    assert set(seen) == {0}, "what was queued before the run is done once memory is asked for"
    stream.synchronize()
    del context
    release_all((memory.free, stream.close, result.free))


def fill(cuda: Cuda, block: DeviceMemory, byte: int) -> None:
    pinned, stream = cuda.allocate_pinned(block.size_bytes), cuda.open_stream()
    pinned.array[:] = byte
    stream.copy_to_device(block.address, pinned.address, block.size_bytes)
    stream.synchronize()
    release_all((stream.close, pinned.free))


def test_an_output_that_depends_on_data_cannot_be_captured(make_runtime: MakeRuntime, built: Built) -> None:
    entry = built("nonzero", networks.nonzero_rows(), FP16_ROWS)
    runtime = make_runtime(cuda_graphs={"nonzero": ({"x": (2, 3)},)})
    with pytest.raises(EngineDeserializeError, match=r"output where has a shape that only the run decides"):
        runtime.deserialize_engine(entry)
    assert make_runtime().deserialize_engine(entry)


@pytest.mark.belief("an engine and a context have memory of cudaMalloc of their own")
def test_an_engine_takes_its_weights_of_the_device_and_gives_them_back(
    trt: ModuleType, log: TensorrtLog, cuda: Cuda, built: Built, say: Say
) -> None:
    weight_bytes = WEIGHTS[0] * WEIGHTS[1] * 2
    entry = built("heavy", networks.heavy_rows(*WEIGHTS), FP16)
    plan = entry.path.read_bytes()
    loader = EngineLoader(trt, log, cuda)
    loader.load("warm", "heavy", plan)  # what the library takes once is none of the engine's
    before = cuda.memory()[0]
    held = loader.load("heavy", "heavy", plan)
    taken = before - cuda.memory()[0]
    del held
    kept = before - cuda.memory()[0]
    say(f"weights {weight_bytes >> 20} MiB, taken {taken >> 20}, kept {kept >> 20}")
    assert taken >= weight_bytes // 2
    assert kept < weight_bytes // 2


@pytest.mark.belief("what is said of memory goes to the recorder, and its warning to the log")
@pytest.mark.belief("an engine and a context have memory of cudaMalloc of their own")
def test_a_context_for_which_no_device_is_large_enough_is_an_out_of_memory_in_tensorrts_own_words(
    trt: ModuleType, cuda: Cuda, built: Built, load: LoadEntry, make_runtime: MakeRuntime, say: Say
) -> None:
    profile = (("image", (1, 32, 256, 256), (1, 32, 256, 256), (1023, 32, 256, 256)),)
    config = BuildConfig(precision="fp16", optimization_profiles=profile)
    try:
        entry = built("huge", networks.living_feature_maps(MAPS), config)
    except EngineBuildError as error:
        pytest.skip(f"TensorRT builds no engine that is too large to run: {error}")
    loaded = load(entry)
    needed, total = int(loaded.engine.device_memory_size_v2), cuda.memory()[1]
    if needed <= total:
        pytest.skip(f"the engine needs {needed >> 30} GiB and the device has {total >> 30}")
    with loaded.reports.listening(this_thread_only=False):
        assert loaded.engine.create_execution_context(trt.ExecutionContextAllocationStrategy.STATIC) is None
        say(said(loaded))
        assert isinstance(loaded.reports.error_of_load(), OutOfMemoryError)
    assert loaded.reports.recorder.recorded.count() >= 1
    with pytest.raises(OutOfMemoryError, match="its activations need"):
        make_runtime().deserialize_engine(entry)
    cuda.check()


@pytest.mark.belief("inputs on the host are read when execute_async_v3 is called")
@pytest.mark.belief("the words of a refused host code, of missing device memory")
def test_values_that_decide_shapes_are_read_at_the_call_and_refused_outside_their_range(
    trt: ModuleType, log: TensorrtLog, cuda: Cuda, blocks: Callable[[int], DeviceMemory], say: Say, tmp_path: Path
) -> None:
    plan = plan_with_shape_values(trt, log, tmp_path)
    loaded = EngineLoader(trt, log, cuda).load("reshaped", "reshaped", plan)
    on_host = {tensor.name for tensor in loaded.io if tensor.on_host}
    assert "target" in on_host
    stream, target, size = cuda.open_stream(), cuda.allocate_pinned(16), cuda.allocate_pinned(16)
    context = context_of(trt, cuda, loaded, blocks)
    values, result = target.array.view(np.int64), size.array.view(np.int64)
    values[:] = (4, 2)
    context.set_tensor_address("target", target.address)
    context.set_tensor_address("size", size.address if "size" in on_host else blocks(MIB).address)
    context.set_tensor_address("y", blocks(MIB).address)
    with loaded.reports.listening():
        assert shape_of(context.get_tensor_shape("y")) == (4, 2)
        assert context.execute_async_v3(stream.handle), said(loaded)
        values[:] = (2, 4)
        stream.synchronize()
    say(f"on the host: {', '.join(sorted(on_host))}")
    assert "size" not in on_host or result.tolist() == [4, 2]
    with loaded.reports.listening():
        values[:] = (64, 64)
        shape = shape_of(context.get_tensor_shape("y"))
        ran = shape is not None and context.execute_async_v3(stream.handle)
        say(said(loaded))
        assert not ran
        assert said(loaded)
    stream.synchronize()
    del context
    release_all((stream.close, target.free, size.free))


@pytest.mark.belief("the words of a refused host code, of missing device memory")
def test_an_engine_with_host_code_is_refused_by_a_runtime_that_allows_none(
    trt: ModuleType, log: TensorrtLog, cuda: Cuda, tmp_path: Path, say: Say
) -> None:
    plan = plan_with_host_code(trt, log, tmp_path)
    with pytest.raises(EngineDeserializeError) as refusal:
        EngineLoader(trt, log, cuda).load("with_host_code", "with_host_code", plan)
    say(str(refusal.value))
    assert "host" in str(refusal.value).lower()
