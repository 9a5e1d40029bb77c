"""What an engine on TensorRT holds is given back: at its release, its suspension, and where it could not be had."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from messages import DeviceFaultError, InferenceError, OutOfMemoryError
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.tensorrt.inference.execution import Execution
from tests.runtimes.tensorrt.runtimes import MakeRuntime, arrays

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device
    from tests.doubles.tensorrt.core import Core

STICKY = 700


def test_a_released_engine_leaves_no_memory_on_the_device(
    make_runtime: MakeRuntime, entry: EngineCacheEntry, device: Device
) -> None:
    runtime = make_runtime()
    before = device.live()
    handle = runtime.deserialize_engine(entry)
    outputs = runtime.infer(handle, arrays())
    runtime.release_engine(handle)
    assert device.live() == before
    assert np.isfinite(np.asarray(outputs["descriptor"])).all()


def test_a_suspended_engine_keeps_its_weights_and_nothing_else(
    make_runtime: MakeRuntime, entry: EngineCacheEntry, device: Device, core: Core
) -> None:
    runtime = make_runtime()
    before = device.live()
    handle = runtime.deserialize_engine(entry)
    runtime.suspend_engine(handle)
    kept = [each for each in device.live() if each not in before]
    assert not [each for each in kept if each.startswith(("stream", "pinned"))]
    core.calls.clear()
    resumed = runtime.resume_engine(handle)
    assert "deserialize_cuda_engine" not in core.calls
    runtime.release_engine(resumed)
    assert device.live() == before


def test_a_resume_that_finds_no_memory_leaves_the_engine_suspended(
    make_runtime: MakeRuntime, entry: EngineCacheEntry, device: Device
) -> None:
    runtime = make_runtime()
    handle = runtime.deserialize_engine(entry)
    expected = runtime.infer(handle, arrays())
    runtime.suspend_engine(handle)
    before = device.live()
    device.fail("cudaMalloc", 2)
    with pytest.raises(OutOfMemoryError):
        runtime.resume_engine(handle)
    assert device.live() == before
    resumed = runtime.resume_engine(handle)
    np.testing.assert_array_equal(
        np.asarray(runtime.infer(resumed, arrays())["descriptor"]), np.asarray(expected["descriptor"])
    )
    runtime.release_engine(resumed)


def test_an_engine_that_is_released_while_it_is_resumed_leaves_nothing(
    make_runtime: MakeRuntime, entry: EngineCacheEntry, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_runtime()
    before = device.live()
    handle = runtime.deserialize_engine(entry)
    runtime.suspend_engine(handle)
    opened = runtime._open

    def open_and_release(*given: Any) -> Any:
        execution = opened(*given)
        runtime.release_engine(handle)
        return execution

    monkeypatch.setattr(runtime, "_open", open_and_release)
    with pytest.raises(InferenceError, match="released while it was resumed"):
        runtime.resume_engine(handle)
    monkeypatch.undo()
    assert device.live() == before


def test_a_run_under_way_at_a_release_ends_well_and_gives_the_memory_back(
    make_runtime: MakeRuntime, entry: EngineCacheEntry, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_runtime()
    before = device.live()
    handle = runtime.deserialize_engine(entry)
    expected = np.asarray(runtime.infer(handle, arrays())["descriptor"])
    begun, go_on = threading.Event(), threading.Event()
    run = Execution.run

    def slow_run(execution: Execution, inputs: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return run(execution, inputs)

    monkeypatch.setattr(Execution, "run", slow_run)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(runtime.infer, handle, arrays())
        assert begun.wait(60)
        runtime.release_engine(handle)
        go_on.set()
        np.testing.assert_array_equal(np.asarray(result.result(timeout=60)["descriptor"]), expected)
    assert device.live() == before


def test_a_run_under_way_at_a_suspension_ends_well_before_its_memory_goes(
    make_runtime: MakeRuntime, entry: EngineCacheEntry, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = make_runtime()
    handle = runtime.deserialize_engine(entry)
    expected = np.asarray(runtime.infer(handle, arrays())["descriptor"])
    run = Execution.run
    under_way: list[int] = []

    def suspended_meanwhile(execution: Execution, inputs: Any) -> Any:
        runtime.suspend_engine(handle)
        under_way.append(len(device.live()))
        return run(execution, inputs)

    monkeypatch.setattr(Execution, "run", suspended_meanwhile)
    np.testing.assert_array_equal(np.asarray(runtime.infer(handle, arrays())["descriptor"]), expected)
    monkeypatch.undo()
    assert len(device.live()) < under_way[0]
    runtime.release_engine(runtime.resume_engine(handle))


def test_a_sticky_error_is_the_devices_and_the_release_says_it_too(
    make_runtime: MakeRuntime, entry: EngineCacheEntry, device: Device
) -> None:
    runtime = make_runtime()
    handle = runtime.deserialize_engine(entry)
    device.fail("work", STICKY)
    with pytest.raises(DeviceFaultError, match="an illegal memory access"):
        runtime.infer(handle, arrays())
    with pytest.raises(DeviceFaultError):
        runtime.release_engine(handle)
    runtime.release_engine(handle)
