"""TensorRT's runtime, and engines out of the bytes that were verified."""

from __future__ import annotations

import ctypes
import threading
from types import ModuleType

import msgspec

from messages import C7Error, EngineDeserializeError, RuntimeNotAvailableError
from runtimes.cuda.port import Cuda
from runtimes.tensorrt.bindings import Engine, Runtime
from runtimes.tensorrt.faults import words_of
from runtimes.tensorrt.inference.io_tensors import IoTensor, describe_io
from runtimes.tensorrt.inference.plan_header import check_plan_version
from runtimes.tensorrt.inference.reports import EngineReports, raise_what_is_graver
from runtimes.tensorrt.log import TensorrtLog

TURN_TIMEOUT_S = 600.0
"""How long a load waits for another one, which may take minutes on a board that boots."""

_turn = threading.Lock()
"""One engine of the process at a time is deserialised: two peaks of memory at once could end both."""


class LoadedEngine(msgspec.Struct, frozen=True, eq=False):
    """An engine on the device, what it takes and gives, and what is said of it. It keeps TensorRT's runtime alive."""

    engine: Engine
    io: tuple[IoTensor, ...]
    reports: EngineReports


class EngineLoader:
    """One `Runtime` of TensorRT on one device. Callable from any thread."""

    def __init__(self, trt: ModuleType, log: TensorrtLog, cuda: Cuda) -> None:
        """`cuda` is open, which says that CUDA works: without it the library makes a runtime around a wild pointer.

        Raises RuntimeNotAvailableError with TensorRT's own words.
        """
        self._trt = trt
        self._log = log
        self._cuda = cuda
        self._runtime = _open_runtime(trt, log, cuda)
        # One for all loads: 10.3's binding keeps whatever a runtime was ever given (python/src/infer/pyCore.cpp,
        # keep_alive of error_recorder, tag v10.3.0), and a flight may load for hours.
        self._reports = EngineReports(trt, log, "tensorrt")
        self._runtime.error_recorder = self._reports.recorder

    def load(self, subject: str, model: str, plan: bytes, *, timeout_s: float = TURN_TIMEOUT_S) -> LoadedEngine:
        """Deserialise exactly these bytes. `subject` names the file in errors, `model` names the engine in those of
        its runs.

        Raises EngineDeserializeError, OutOfMemoryError, or what says that the device is lost.
        """
        check_plan_version(subject, plan, str(self._trt.__version__))
        if not _turn.acquire(timeout=timeout_s):
            raise EngineDeserializeError(
                f"{subject}: another engine of this process has been loading for more than {timeout_s:g} s; start the"
                " process again"
            )
        try:
            return self._deserialized(subject, model, plan)
        except C7Error as error:
            raise_what_is_graver(self._cuda, error)
            raise
        finally:
            _turn.release()

    def _deserialized(self, subject: str, model: str, plan: bytes) -> LoadedEngine:
        self._cuda.make_current()
        self._reports.subject = subject
        with self._reports.listening(this_thread_only=False):
            # A view of its own: 10.3's binding counts references to the buffer it is given without the interpreter's
            # lock (python/src/infer/pyCore.cpp, call_guard of deserialize_cuda_engine, tag v10.3.0), and nobody else
            # has this one.
            engine = self._runtime.deserialize_cuda_engine(memoryview(plan))
            if engine is None or self._reports.recorder.recorded.count():
                raise self._reports.error_of_load()
        reports = EngineReports(self._trt, self._log, model)
        engine.error_recorder = reports.recorder
        io = describe_io(self._trt, engine, subject)
        return LoadedEngine(engine, io, reports)


def _open_runtime(trt: ModuleType, log: TensorrtLog, cuda: Cuda) -> Runtime:
    cuda.make_current()
    with log.listening("WARNING", this_thread_only=True) as heard:
        try:
            runtime: Runtime = trt.Runtime(log)
        except TypeError as error:  # pybind11's word for a null pointer
            raise RuntimeNotAvailableError(
                f"tensorrt: TensorRT {trt.__version__} makes no runtime on cuda:{cuda.index}:"
                f" {words_of(heard.lines)} ({error}); put its library and the driver in order"
            ) from error
        if heard.errors:
            _keep_for_ever(runtime)
            raise RuntimeNotAvailableError(
                f"tensorrt: TensorRT {trt.__version__} makes no runtime that works on cuda:{cuda.index}:"
                f" {words_of(heard.lines)}; put the driver in order, and start the process again"
            )
        if not trt.init_libnvinfer_plugins(log, ""):
            raise RuntimeNotAvailableError(
                f"tensorrt: TensorRT {trt.__version__} cannot register its own plugins: {words_of(heard.lines)};"
                " install libnvinfer_plugin of the same version"
            )
    if runtime.engine_host_code_allowed:
        raise RuntimeNotAvailableError(
            "tensorrt: expected a runtime that runs no host code of engines, found engine_host_code_allowed set"
        )
    return runtime


def _keep_for_ever(runtime: Runtime) -> None:
    """A runtime that was made without CUDA wraps a wild pointer: to destroy it, at exit too, ends the process."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(runtime))
