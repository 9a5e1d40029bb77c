"""TensorRT's runtime on a device: made once, or refused with TensorRT's own words."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from messages import RuntimeNotAvailableError
from runtimes.cuda.port import Cuda
from runtimes.tensorrt.inference import engine as engine_module
from runtimes.tensorrt.inference.engine import EngineLoader
from runtimes.tensorrt.log import TensorrtLog

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device
    from tests.doubles.tensorrt.core import Core


def test_a_tensorrt_that_makes_no_runtime_is_not_available(
    trt: ModuleType, log: TensorrtLog, cuda: Cuda, core: Core
) -> None:
    core.fail("Runtime", "Error Code 6: API Usage Error (CUDA initialization failure with error: 35.)")
    with pytest.raises(
        RuntimeNotAvailableError, match=r"^tensorrt: TensorRT 10\.3\.0 makes no runtime on cuda:0: Error"
    ):
        EngineLoader(trt, log, cuda)


def test_a_thread_that_makes_a_runtime_has_chosen_its_device(
    trt: ModuleType,
    log: TensorrtLog,
    cuda: Cuda,
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
    on_thread: Callable[[Callable[[], Any]], Any],
) -> None:
    """Without it CUDA takes device 0."""
    native = trt.Runtime
    chosen: list[bool] = []

    def counted(logger: Any) -> Any:
        chosen.append("cudaSetDevice" in device.calls)
        return native(logger)

    monkeypatch.setattr(trt, "Runtime", counted)
    device.calls.clear()
    on_thread(lambda: EngineLoader(trt, log, cuda))
    assert chosen == [True]


def test_a_runtime_around_a_wild_pointer_is_refused_and_never_touched_or_destroyed(
    trt: ModuleType, log: TensorrtLog, cuda: Cuda, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    monkeypatch.setattr(engine_module, "_keep_for_ever", kept.append)
    monkeypatch.setattr(cuda, "make_current", lambda: None)  # CUDA works for us and for TensorRT it does not
    device.poison(700)
    with pytest.raises(
        RuntimeNotAvailableError, match=r"CUDA initialization failure with error: 700.*start the process"
    ):
        EngineLoader(trt, log, cuda)
    assert len(kept) == 1
    kept[0]._wild = False  # so that this test may let go of it


def test_what_is_kept_for_ever_has_a_reference_that_nobody_gives_back() -> None:
    class Wild:
        pass

    wild = Wild()
    before = sys.getrefcount(wild)
    engine_module._keep_for_ever(wild)  # type: ignore[arg-type]
    assert sys.getrefcount(wild) == before + 1
    ctypes.pythonapi.Py_DecRef(ctypes.py_object(wild))


def test_plugins_that_cannot_be_registered_are_refused(
    trt: ModuleType, log: TensorrtLog, cuda: Cuda, core: Core
) -> None:
    core.plugins_register = False
    with pytest.raises(
        RuntimeNotAvailableError, match=r"cannot register its own plugins: .*libnvinfer_plugin of the same"
    ):
        EngineLoader(trt, log, cuda)


def test_a_runtime_that_would_run_code_of_engines_on_the_host_is_refused(
    trt: ModuleType, log: TensorrtLog, cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt.Runtime, "engine_host_code_allowed", True)
    with pytest.raises(RuntimeNotAvailableError, match="found engine_host_code_allowed set"):
        EngineLoader(trt, log, cuda)
