"""The double of TensorRT answers as NVIDIA's bindings do: what cannot be made, what callbacks may do, what is told."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.runtimes.tensorrt import models
from tests.runtimes.tensorrt.engines import ROWS, MakePlan, Profile

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device
    from tests.doubles.tensorrt.core import Core


@pytest.fixture
def logger(trt: ModuleType) -> Any:
    """Keeps what it is told, as (severity, text)."""

    class Logger(trt.ILogger):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.said: list[tuple[str, str]] = []

        def log(self, severity: Any, msg: str) -> None:
            self.said.append((severity.name, msg))

    return Logger()


@pytest.fixture
def runtime(trt: ModuleType, logger: Any, cuda: Any) -> Any:
    return trt.Runtime(logger)


# What cannot be made.


@pytest.mark.parametrize("name", ["IHostMemory", "ICudaEngine", "IExecutionContext", "EngineInspector"])
def test_what_only_tensorrt_makes_has_no_constructor(trt: ModuleType, name: str) -> None:
    with pytest.raises(TypeError, match=rf"^tensorrt\.tensorrt\.{name}: No constructor defined!$"):
        getattr(trt, name)()


@pytest.mark.parametrize("name", ["ILogger", "IErrorRecorder", "IOutputAllocator"])
def test_a_base_that_was_not_initialised_is_refused(trt: ModuleType, name: str) -> None:
    class Forgetful(getattr(trt, name)):  # type: ignore[misc]
        def __init__(self) -> None:
            self.own = 1

    with pytest.raises(TypeError, match=rf"{name}\.__init__\(\) must be called when overriding __init__"):
        Forgetful()


def test_a_runtime_that_is_not_made_is_a_type_error_with_its_reason_in_the_log(
    trt: ModuleType, logger: Any, cuda: Any, core: Core
) -> None:
    core.fail("Runtime", "Error Code 6: API Usage Error")
    with pytest.raises(TypeError, match=r"^pybind11::init\(\): factory function returned nullptr$"):
        trt.Runtime(logger)
    assert logger.said == [("ERROR", "Error Code 6: API Usage Error")]


def test_without_cuda_a_runtime_says_two_errors_and_every_use_of_it_ends_the_process(
    trt: ModuleType, logger: Any, cuda: Any, device: Device
) -> None:
    device.remove_device()
    wild = trt.Runtime(logger)
    assert [severity for severity, _ in logger.said] == ["ERROR", "ERROR"]
    assert "CUDA initialization failure with error: 35" in logger.said[0][1]
    assert wild.deserialize_cuda_engine(b"x") is None
    _ = wild.engine_host_code_allowed
    del wild
    assert [line.partition(" of a")[0] for line in device.misuses()[:2]] == [
        "deserialize_cuda_engine",
        "engine_host_code_allowed",
    ]
    assert "was destroyed" in device.misuses()[2]
    device.forget_misuses()
    device.device_count, device.driver_version = 1, 12060


@pytest.mark.parametrize("arguments", [(), (1,), ("x", (2, 3), 4), ("x", np.zeros(2)), (1, (2, 3)), ("x", "23")])
def test_arguments_of_other_types_are_a_type_error(
    trt: ModuleType, runtime: Any, make_plan: MakePlan, arguments: tuple[Any, ...]
) -> None:
    engine = runtime.deserialize_cuda_engine(make_plan(models.dynamic(), ROWS))
    context = engine.create_execution_context()
    with pytest.raises(TypeError):
        context.set_input_shape(*arguments)
    with pytest.raises(TypeError):
        context.execute_async_v3(-1)
    with pytest.raises(TypeError):
        runtime.deserialize_cuda_engine("a path")


# What callbacks may do.


def test_what_a_callback_raises_is_printed_and_forgotten(
    trt: ModuleType, cuda: Any, core: Core, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(trt.ILogger):  # type: ignore[name-defined,misc]
        def log(self, severity: Any, msg: str) -> None:
            raise KeyboardInterrupt("of the logger")

    runtime = trt.Runtime(Broken())
    assert runtime.deserialize_cuda_engine(b"no engine at all") is None
    assert "[ERROR] Exception caught in log(): of the logger" in capsys.readouterr().err


def test_an_error_goes_to_the_recorder_of_what_met_it_and_not_to_the_log(
    trt: ModuleType, runtime: Any, logger: Any, make_plan: MakePlan
) -> None:
    heard: list[Any] = []

    class Recorder(trt.IErrorRecorder):  # type: ignore[name-defined,misc]
        def get_num_errors(self) -> int:
            heard.append("counted")
            return 0

        def report_error(self, code: Any, desc: str) -> bool:
            heard.append(desc)
            return True

    runtime.error_recorder = Recorder()
    engine = runtime.deserialize_cuda_engine(make_plan(models.dynamic(), ROWS))
    context = engine.create_execution_context()
    assert engine.error_recorder is context.error_recorder is runtime.error_recorder
    assert not context.set_input_shape("x", (9, 3))
    assert [text == "counted" or "optimization profile" in text for text in heard] == [True, True]
    assert logger.said == []
    context.error_recorder = None
    assert not context.set_input_shape("x", (9, 3))
    assert len(heard) == 2
    assert len(logger.said) == 1


def test_a_recorder_that_counts_by_the_documented_name_alone_is_not_heard(
    trt: ModuleType, runtime: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    class Documented(trt.IErrorRecorder):  # type: ignore[name-defined,misc]
        def num_errors(self) -> int:
            return 0

        def report_error(self, code: Any, desc: str) -> bool:
            return True

    runtime.error_recorder = Documented()
    assert runtime.deserialize_cuda_engine(b"") is None
    assert "get_num_errors" in capsys.readouterr().err


# What is told.


def test_an_engine_names_its_tensors_by_index_and_when_iterated_over(runtime: Any, make_plan: MakePlan) -> None:
    engine = runtime.deserialize_cuda_engine(make_plan(models.dynamic(), ROWS, name="m@1"))
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    assert names == [*engine] == ["x", "scale", "scaled", "total", "echo"]
    assert engine[-1] == "echo"
    assert engine.name == "m@1"
    assert engine.get_tensor_name(9) is None


def test_a_name_that_is_no_tensors_has_no_shape_and_a_word_about_it(
    trt: ModuleType, runtime: Any, logger: Any, make_plan: MakePlan
) -> None:
    engine = runtime.deserialize_cuda_engine(make_plan(models.dynamic(), ROWS))
    with pytest.raises(ValueError, match="should return >= 0"):
        len(engine.get_tensor_shape("z"))
    assert engine.get_tensor_mode("z") == trt.TensorIOMode.NONE
    assert engine.get_tensor_dtype("z") == trt.DataType.FLOAT
    assert [text.count("invalid tensor name: z") for _, text in logger.said] == [1, 1, 1]


def test_a_profile_tells_shapes_of_every_input_and_values_of_those_on_the_host(
    runtime: Any, make_plan: MakePlan
) -> None:
    profile: Profile = (("x", (1, 4), (2, 4), (4, 4)),)
    values = ((("target", (1, 4), (2, 4), (4, 4)),),)
    engine = runtime.deserialize_cuda_engine(make_plan(models.reshaped(), profile, on_host=("target",), values=values))
    assert [tuple(dims) for dims in engine.get_tensor_profile_shape("x", 0)] == [(1, 4), (2, 4), (4, 4)]
    assert [tuple(dims) for dims in engine.get_tensor_profile_shape("target", 0)] == [(2,)] * 3
    assert engine.get_tensor_profile_values(0, "target") == [[1, 4], [2, 4], [4, 4]]
    with pytest.raises(RuntimeError, match="does not correspond to an input shape tensor"):
        engine.get_tensor_profile_values(0, "x")


def test_host_memory_is_bytes_through_the_buffer_protocol_alone(trt: ModuleType) -> None:
    memory = trt.IHostMemory._holding(b"abc")
    assert bytes(memory) == bytes(memoryview(memory)) == b"abc"
    assert memory.nbytes == 3
    with pytest.raises(TypeError, match="has no len"):
        len(memory)


def test_infer_shapes_raises_for_shapes_that_fit_nothing_and_may_end_the_process_before_10_16(
    runtime: Any, make_plan: MakePlan, device: Device
) -> None:
    fit: Profile = (("a", (1, 3), (2, 3), (4, 3)), ("b", (1, 3), (2, 3), (4, 3)))
    context = runtime.deserialize_cuda_engine(make_plan(models.added(), fit)).create_execution_context()
    for name, count in (("a", 2), ("b", 3)):
        assert context.set_input_shape(name, (count, 3))
    with pytest.raises(RuntimeError, match=r"^infer_shapes error code: -1$"):
        context.infer_shapes()
    assert "without the interpreter's lock" in device.take_misuse()


def test_volumes_and_types_are_numpys(trt: ModuleType) -> None:
    assert trt.volume(trt.Dims([2, 3])) == 6
    assert trt.volume(()) == 1
    assert trt.nptype(trt.float16) is np.float16
    with pytest.raises(TypeError, match="Could not resolve TensorRT datatype"):
        trt.nptype(trt.DataType.BF16)
