"""Engines out of bytes: what is loaded, what is refused with whose words, and what is left where one is refused."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from messages import (
    C7Error,
    DeviceFaultError,
    EngineDeserializeError,
    OutOfMemoryError,
)
from runtimes.cuda.port import Cuda
from runtimes.tensorrt.inference import engine as engine_module
from runtimes.tensorrt.inference.engine import EngineLoader
from runtimes.tensorrt.log import TensorrtLog
from tests.runtimes.tensorrt import models
from tests.runtimes.tensorrt.engines import ROWS, Load, MakePlan

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device
    from tests.doubles.tensorrt.core import Core

WORDS = "Error Code 9: Internal Error (it is the weather)"


def test_an_engine_says_what_it_takes_and_gives_and_listens_under_its_models_name(load: Load) -> None:
    loaded = load(models.dynamic(), ROWS)
    assert [(tensor.name, str(tensor.spec), tensor.is_input) for tensor in loaded.io] == [
        ("x", "float32[?, 3]", True),
        ("scale", "float32[3]", True),
        ("scaled", "float32[?, 3]", False),
        ("total", "float32[?]", False),
        ("echo", "float32[?, 3]", False),
    ]
    assert loaded.reports.subject == "m"
    assert loaded.engine.error_recorder is loaded.reports.recorder


def test_what_an_engine_reports_to_goes_with_it(load: Load) -> None:
    """The binding keeps what a runtime is given, and engines are loaded for as long as a flight lasts."""
    recorders = [weakref.ref(load(models.static()).reports.recorder) for _ in range(3)]
    gc.collect()
    assert [recorder() for recorder in recorders] == [None] * 3


def test_an_engine_has_the_recorder_though_it_took_none_of_its_runtime(
    load: Load, trt: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    native = trt.Runtime.deserialize_cuda_engine

    def takes_none(runtime: Any, data: Any) -> Any:
        engine = native(runtime, data)
        engine.error_recorder = None
        return engine

    monkeypatch.setattr(trt.Runtime, "deserialize_cuda_engine", takes_none)
    loaded = load(models.static())
    assert loaded.engine.error_recorder is loaded.reports.recorder


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_loaded_whatever_holds_them(loader: EngineLoader, make_plan: MakePlan, kind: Any) -> None:
    assert loader.load("m.engine", "m", kind(make_plan(models.static()))).io[0].name == "image"


def test_an_engine_lives_on_without_its_loader_and_goes_with_its_last_user(
    trt: ModuleType, log: TensorrtLog, cuda: Cuda, device: Device, make_plan: MakePlan
) -> None:
    before = device.live()
    loader = EngineLoader(trt, log, cuda)
    loaded = loader.load("m.engine", "m", make_plan(models.static()))
    gone = weakref.ref(loaded.engine)
    del loader
    assert len(device.live()) == len(before) + 1
    assert loaded.engine.create_engine_inspector() is not None
    del loaded
    assert gone() is None
    assert device.live() == before


def test_another_thread_may_load(load: Load, on_thread: Callable[[Callable[[], Any]], Any]) -> None:
    assert on_thread(lambda: load(models.static())).io[0].name == "image"


# What is refused.


def refused(loader: EngineLoader, device: Device, plan: bytes, kind: type[C7Error], match: str) -> None:
    """With this error, nothing is left, and the same loader loads the next one."""
    before = device.live()
    with pytest.raises(kind, match=match):
        loader.load("m.engine", "m", plan)
    assert device.live() == before


def test_an_engine_of_another_tensorrt_is_refused_before_it_is_read(
    loader: EngineLoader, device: Device, core: Core, trt: ModuleType
) -> None:
    plan = trt.plan.encode(trt.plan.Plan(onnx=models.static()), (10, 4, 0, 11))
    refused(
        loader, device, plan, EngineDeserializeError, r"^m\.engine: expected an engine of TensorRT 10\.3\.0, found one"
    )
    assert "deserialize_cuda_engine" not in core.calls


def test_an_engine_of_another_build_of_the_same_tensorrt_is_refused_in_tensorrts_words(
    loader: EngineLoader, device: Device, trt: ModuleType
) -> None:
    plan = trt.plan.encode(trt.plan.Plan(onnx=models.static()), (10, 3, 0, 30))
    refused(
        loader,
        device,
        plan,
        EngineDeserializeError,
        r"expecting library version 10\.3\.0\.26 got 10\.3\.0\.30, please rebuild\.\); the engine is another"
        r" TensorRT's; compile it on this machine",
    )


def test_an_engine_of_another_kind_of_device_is_refused(
    loader: EngineLoader, device: Device, make_plan: MakePlan
) -> None:
    plan = make_plan(models.static(), compute="8.6")
    refused(
        loader, device, plan, EngineDeserializeError, r"compute 8\.7 got compute 8\.6.*another device's; compile it"
    )


def test_of_another_model_of_the_same_kind_tensorrt_only_warns(load: Load, log: TensorrtLog) -> None:
    with log.listening("WARNING") as heard:
        assert load(models.static(), device="another").io
    assert [line.text[:57] for line in heard.lines] == ["Using an engine plan file across different models of devi"]


def test_an_engine_whose_plugin_is_missing_names_it_and_loads_once_it_is_there(
    loader: EngineLoader, device: Device, core: Core, make_plan: MakePlan
) -> None:
    plan = make_plan(models.static(), plugins=("GridSample",))
    refused(loader, device, plan, EngineDeserializeError, "GridSample not found.*load its library before")
    core.plugins.add("GridSample")
    assert loader.load("m.engine", "m", plan).io


def test_an_engine_with_code_for_the_host_is_refused(loader: EngineLoader, device: Device, make_plan: MakePlan) -> None:
    refused(loader, device, make_plan(models.static(), host_code=True), EngineDeserializeError, "host executable code")


@pytest.mark.parametrize("size", [0, 27, 28, 60, -1])
def test_an_engine_that_is_cut_off_anywhere_is_refused(
    loader: EngineLoader, device: Device, make_plan: MakePlan, size: int
) -> None:
    refused(loader, device, make_plan(models.static())[:size], EngineDeserializeError, r"^m\.engine: .*compile it")


def test_an_engine_whose_inside_is_altered_is_refused_in_tensorrts_words(
    loader: EngineLoader, device: Device, make_plan: MakePlan
) -> None:
    plan = make_plan(b"no model at all")
    refused(loader, device, plan, EngineDeserializeError, r"Error Code 1: Serialization.*Engine deserialization failed")


def test_an_engine_of_several_profiles_is_refused(loader: EngineLoader, device: Device, make_plan: MakePlan) -> None:
    plan = make_plan(models.dynamic(), profiles=(ROWS, ROWS))
    refused(loader, device, plan, EngineDeserializeError, r"expected an engine with one optimisation profile, found 2")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (WORDS, EngineDeserializeError),
        ("", EngineDeserializeError),
        ("Error Code 2: OutOfMemory (Requested size was 9 bytes.)", OutOfMemoryError),
        ("Error Code 1: Cuda Runtime (an illegal memory access was encountered)", DeviceFaultError),
    ],
)
def test_a_load_that_fails_is_the_error_of_what_tensorrt_says(
    loader: EngineLoader, device: Device, core: Core, make_plan: MakePlan, text: str, kind: type[C7Error]
) -> None:
    core.fail("deserialize_cuda_engine", text)
    refused(loader, device, make_plan(models.static()), kind, rf"^m\.engine: .*{re.escape(text)}")
    assert loader.load("m.engine", "m", make_plan(models.static())).io


def test_what_tensorrts_own_threads_say_of_a_load_counts(
    loader: EngineLoader,
    device: Device,
    trt: ModuleType,
    log: Any,
    make_plan: MakePlan,
    on_thread: Callable[[Callable[[], Any]], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(_runtime: Any, _plan: Any) -> None:
        on_thread(lambda: log.log(trt.ILogger.Severity.ERROR, WORDS))

    monkeypatch.setattr(trt.Runtime, "deserialize_cuda_engine", fails)
    refused(loader, device, make_plan(models.static()), EngineDeserializeError, "it is the weather")


def test_an_engine_that_was_made_though_an_error_was_recorded_is_refused(
    loader: EngineLoader, device: Device, core: Core, make_plan: MakePlan
) -> None:
    core.fail("deserialize_cuda_engine", WORDS, goes_on=True)
    refused(loader, device, make_plan(models.static()), EngineDeserializeError, "it is the weather")


def test_weights_for_which_there_is_no_memory_are_an_out_of_memory(
    loader: EngineLoader, device: Device, make_plan: MakePlan
) -> None:
    device.fail("cudaMalloc", 2)
    refused(loader, device, make_plan(models.static()), OutOfMemoryError, r"^m\.engine: .*out of memory")


def test_a_device_that_is_lost_is_told_though_tensorrt_speaks_of_other_things(
    loader: EngineLoader, device: Device, core: Core, make_plan: MakePlan
) -> None:
    core.fail("deserialize_cuda_engine", "Error Code 4: Internal Error (Engine deserialization failed.)")
    device.fail("cudaStreamSynchronize", 719)
    with pytest.raises(
        DeviceFaultError, match=r"unspecified launch failure.*found after: m\.engine: TensorRT does not load"
    ):
        loader.load("m.engine", "m", make_plan(models.static()))


# One load at a time.


def test_a_load_waits_no_longer_than_it_is_given_for_another(
    loader: EngineLoader, make_plan: MakePlan, on_thread: Callable[[Callable[[], Any]], Any]
) -> None:
    plan = make_plan(models.static())
    with (
        engine_module._turn,
        pytest.raises(EngineDeserializeError, match=r"^m\.engine: another engine .* for more than 0\.01 s; start the"),
    ):
        on_thread(lambda: loader.load("m.engine", "m", plan, timeout_s=0.01))
    assert loader.load("m.engine", "m", plan, timeout_s=0.01).io


def test_many_threads_load_one_after_the_other(
    loader: EngineLoader, make_plan: MakePlan, trt: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(models.dynamic(), ROWS)
    inside: list[object] = []
    most: list[int] = []
    native = trt.Runtime.deserialize_cuda_engine

    def counted(runtime: Any, data: Any) -> Any:
        inside.append(data)
        most.append(len(inside))
        try:
            return native(runtime, data)
        finally:
            inside.pop()

    monkeypatch.setattr(trt.Runtime, "deserialize_cuda_engine", counted)
    with ThreadPoolExecutor(6) as pool:
        loaded = list(pool.map(lambda number: loader.load(f"{number}.engine", "m", plan), range(6)))
    assert [each.io[0].name for each in loaded] == ["x"] * 6
    assert most == [1] * 6
