"""`Runtime`: engines out of bytes, and what it says of bytes that it does not take.

Rules are those of `NvInferRuntime.h` (class IRuntime, createInferRuntime) and of the bindings' pyCore.cpp, tag v10.3.0.
"""

from __future__ import annotations

from typing import Any

from .. import plan as plans
from ..core import CORE
from .bound import Bound, incompatible
from .callbacks import ILogger, require_recorder
from .device import DEVICE, fails, lost
from .engine import ICudaEngine
from .model import Model

_WHERE = "IRuntime::deserializeCudaEngine"


class Runtime(metaclass=Bound):
    __slots__ = ("__weakref__", "_host_code", "_initialised", "_kept", "_logger", "_recorder", "_wild")

    def __init__(self, logger: ILogger) -> None:
        if not isinstance(logger, ILogger):
            raise incompatible("__init__", self, logger)
        self._wild = False
        CORE.logger = CORE.logger or logger
        if fails("Runtime", None):
            raise TypeError("pybind11::init(): factory function returned nullptr")
        DEVICE.require_bound("Runtime()")
        self._logger = logger
        self._recorder: Any = None
        self._kept: list[Any] = []
        self._host_code = False
        self._initialised = True
        if DEVICE.error_code:
            # As the lean library of 10.16.1 does without CUDA: two lines, and an object around a wild pointer.
            code = DEVICE.error_code
            CORE.say(
                "ERROR",
                f"createInferRuntime: Error Code 6: API Usage Error (CUDA initialization failure with error: {code}."
                " Please check your CUDA installation.)",
            )
            CORE.say("ERROR", "createInferRuntime: Error Code 1: Cuda Runtime")
            self._wild = True

    def __del__(self) -> None:
        if getattr(self, "_wild", False):
            DEVICE.note_misuse("a Runtime that was made without CUDA was destroyed, which ends the process")

    def _require_native(self, what: str) -> None:
        if self._wild:
            DEVICE.note_misuse(f"{what} of a Runtime that was made without CUDA, which ends the process")

    @property
    def logger(self) -> ILogger:
        self._require_native("logger")
        return self._logger

    @property
    def engine_host_code_allowed(self) -> bool:
        """ "The default value is false." """
        self._require_native("engine_host_code_allowed")
        return self._host_code

    @engine_host_code_allowed.setter
    def engine_host_code_allowed(self, allowed: bool) -> None:
        self._require_native("engine_host_code_allowed")
        self._host_code = bool(allowed)

    @property
    def error_recorder(self) -> Any:
        self._require_native("error_recorder")
        return self._recorder

    @error_recorder.setter
    def error_recorder(self, recorder: Any) -> None:
        """The binding keeps each that was ever set for as long as the runtime lives (py::keep_alive<1, 2> of
        `python/src/infer/pyCore.cpp`, tag v10.3.0).
        """
        require_recorder(recorder)
        self._require_native("error_recorder")
        self._recorder = recorder
        self._kept.append(recorder)

    def deserialize_cuda_engine(self, serialized_engine: Any) -> ICudaEngine | None:
        """ "If an error recorder has been set for the runtime, it will also be passed to the engine." """
        try:
            view = memoryview(serialized_engine)
        except TypeError:
            raise incompatible("deserialize_cuda_engine", self, serialized_engine) from None
        self._require_native("deserialize_cuda_engine")
        DEVICE.require_bound("deserialize_cuda_engine")
        if self._wild or fails("deserialize_cuda_engine", self._recorder) or lost(_WHERE, self._recorder):
            return None
        read = self._read(view.tobytes())
        return None if read is None else ICudaEngine._made(self, *read, self._recorder)

    def _read(self, data: bytes) -> tuple[plans.Plan, Model] | None:
        try:
            plan, version = plans.decode(data)
        except ValueError as error:
            return self._corrupt("plan->header.magicTag == rt::kPLAN_MAGIC_TAG" if str(error) == "magic" else "")
        if version != CORE.version:
            expected, found = (".".join(map(str, each)) for each in (CORE.version, version))
            # NVIDIA/TensorRT#2177 and #2900 are such engines.
            return self._refused(
                "Error Code 6: API Usage Error (The engine plan file is not compatible with this version of TensorRT,"
                f" expecting library version {expected} got {found}, please rebuild.)"
            )
        if plan.compute != CORE.compute:
            return self._refused(
                "Error Code 6: API Usage Error (The engine plan file is generated on an incompatible device, expecting"
                f" compute {CORE.compute} got compute {plan.compute}, please rebuild.)"
            )
        if plan.device != CORE.device:
            # A warning and no more (dusty-nv/jetson-inference#883; words as in janhq/jan#2408).
            CORE.say(
                "WARNING",
                "Using an engine plan file across different models of devices is not recommended and is likely to"
                " affect performance or even cause errors.",
            )
        if plan.host_code and not self._host_code:
            return self._refused(
                "Error Code 3: API Usage Error (Parameter check failed, condition: engineHostCodeAllowed. The engine"
                " has host executable code.)"
            )
        missing = sorted(set(plan.plugins) - CORE.plugins)
        if missing:
            CORE.report(
                self._recorder,
                "INVALID_ARGUMENT",
                "IPluginRegistry::getCreator: Error Code 4: API Usage Error (Cannot find plugin creator:"
                f" {missing[0]} not found in namespace )",
            )
            return self._corrupt("")
        try:
            return plan, Model(plan.onnx)
        except ValueError:
            return self._corrupt("")

    def _corrupt(self, condition: str) -> tuple[plans.Plan, Model] | None:
        """NVIDIA/TensorRT#2915 and #1596."""
        assertion = f"{condition} failed." if condition else "failed."
        CORE.report(
            self._recorder, "INTERNAL_ERROR", f"Error Code 1: Serialization (Serialization assertion {assertion})"
        )
        return self._refused("Error Code 4: Internal Error (Engine deserialization failed.)")

    def _refused(self, text: str) -> tuple[plans.Plan, Model] | None:
        CORE.report(self._recorder, "INTERNAL_ERROR", f"{_WHERE}: {text}")
        return None


def init_libnvinfer_plugins(logger: object, namespace: str) -> bool:
    """`python/src/infer/pyPlugin.cpp`: whether NVIDIA's own creators are registered."""
    if not isinstance(namespace, str):
        raise incompatible("init_libnvinfer_plugins", logger, namespace)
    if not CORE.plugins_register:
        CORE.say("ERROR", "initLibNvInferPlugins: Error Code 6: API Usage Error (no plugin creator was registered)")
    return CORE.plugins_register
