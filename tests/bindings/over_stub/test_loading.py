"""Our loading in NVIDIA's bindings, as far as TensorRT's answer: the runtime, the bytes, and what is said of them."""

from __future__ import annotations

import gc
import struct
from collections.abc import Iterator
from types import ModuleType

import pytest

from messages import C7Error, EngineDeserializeError, OutOfMemoryError, RuntimeNotAvailableError
from runtimes.cuda.port import Cuda
from runtimes.tensorrt.inference.engine import EngineLoader
from runtimes.tensorrt.library import version_numbers
from runtimes.tensorrt.log import process_log
from tests.bindings.callbacks import Core


@pytest.fixture
def runtimes(core: Core) -> Iterator[Core]:
    """`Runtime(...)` makes some, and all of them go."""
    gc.collect()
    before = core.runtimes_alive()
    core.makes_runtimes(True)
    yield core
    core.makes_runtimes(False)
    gc.collect()
    assert core.runtimes_alive() == before


@pytest.fixture
def plan(trt: ModuleType) -> bytes:
    numbers = (*version_numbers(trt.__version__), 0)[:4]
    return struct.pack("<4sI16x4B", b"ftrt", 0, *numbers) + bytes(range(256)) * 100


def load(trt: ModuleType, cuda: Cuda, plan: bytes) -> C7Error:
    """What is raised, for the stub gives no engine."""
    with pytest.raises(C7Error) as refused:
        EngineLoader(trt, process_log(trt), cuda).load("gen-7/vpr.engine", "vpr", plan)
    found: C7Error = refused.value.with_traceback(None)
    return found


def test_a_load_gives_tensorrt_just_the_bytes_that_were_verified(
    trt: ModuleType, runtimes: Core, cuda: Cuda, plan: bytes
) -> None:
    error = load(trt, cuda, plan)
    assert runtimes.loaded_plan() == plan
    assert isinstance(error, EngineDeserializeError)
    assert "gen-7/vpr.engine: TensorRT does not load the engine: TensorRT says no reason" in str(error)


def test_what_a_load_reports_is_told_though_it_comes_from_a_thread_of_tensorrts(
    trt: ModuleType, runtimes: Core, cuda: Cuda, plan: bytes
) -> None:
    # Where the core is on a thread of its own, this ends only if the bindings give the interpreter's lock away.
    runtimes.will_report(
        int(trt.ErrorCodeTRT.INVALID_CONFIG), "The engine plan file is not compatible with this version"
    )
    error = load(trt, cuda, plan)
    assert isinstance(error, EngineDeserializeError)
    assert "not compatible with this version" in str(error)
    assert "another TensorRT's; compile it on this machine" in str(error)


def test_memory_that_a_load_lacks_is_told_by_its_code_alone(
    trt: ModuleType, runtimes: Core, cuda: Cuda, plan: bytes
) -> None:
    runtimes.will_report(int(trt.ErrorCodeTRT.FAILED_ALLOCATION), "it is what it is")
    assert isinstance(load(trt, cuda, plan), OutOfMemoryError)


def test_a_plan_of_another_version_never_reaches_tensorrt(
    trt: ModuleType, runtimes: Core, cuda: Cuda, plan: bytes
) -> None:
    load(trt, cuda, plan)
    foreign = plan[:25] + bytes([plan[25] ^ 1]) + plan[26:]
    assert "engines never cross versions" in str(load(trt, cuda, foreign))
    assert runtimes.loaded_plan() == plan


def test_a_runtime_that_said_errors_is_refused_and_never_destroyed(trt: ModuleType, core: Core, cuda: Cuda) -> None:
    core.makes_runtimes(True)
    before = core.runtimes_alive()
    core.will_say(1, "createInferRuntime: Error Code 6: API Usage Error (CUDA initialization failure)")
    with pytest.raises(RuntimeNotAvailableError, match=r"makes no runtime that works on cuda:0.*API Usage Error"):
        EngineLoader(trt, process_log(trt), cuda)
    core.makes_runtimes(False)
    gc.collect()
    assert core.runtimes_alive() == before + 1


def test_plugins_that_cannot_be_registered_are_refused_by_the_librarys_name(
    trt: ModuleType, runtimes: Core, cuda: Cuda
) -> None:
    runtimes.makes_runtimes(True, plugins=False)
    with pytest.raises(RuntimeNotAvailableError, match="install libnvinfer_plugin of the same version"):
        EngineLoader(trt, process_log(trt), cuda)


def test_a_runtime_that_runs_host_code_of_engines_is_refused(trt: ModuleType, runtimes: Core, cuda: Cuda) -> None:
    runtimes.makes_runtimes(True, host_code_allowed=True)
    with pytest.raises(RuntimeNotAvailableError, match="found engine_host_code_allowed set"):
        EngineLoader(trt, process_log(trt), cuda)


def test_the_recorder_that_tensorrt_holds_is_ours(trt: ModuleType, runtimes: Core, cuda: Cuda, plan: bytes) -> None:
    loader = EngineLoader(trt, process_log(trt), cuda)
    with pytest.raises(EngineDeserializeError):
        loader.load("gen-7/vpr.engine", "vpr", plan)
    assert runtimes.recorder() == runtimes.address(loader._runtime.error_recorder)
    assert "PyErrorRecorder" in runtimes.class_name(loader._runtime.error_recorder)
