"""Builder: a network and a configuration into an engine's bytes (`NvInfer.h` and `pyCore.cpp`, v10.3.0)."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..core import CORE, guarded
from ..enums import BuilderFlag, DataType, LayerType, MemoryPoolType
from ..inference.bound import Bound, incompatible
from ..inference.device import DEVICE, DeviceError, fails, lost, report_cuda
from ..inference.foundational_types import IHostMemory
from ..plan import Plan, encode
from .builder_config import IBuilderConfig, IOptimizationProfile
from .calibration import NoScalesError, Scales, calibrated_scales
from .callbacks import IProgressMonitor
from .engine_layers import describe
from .network import INetworkDefinition
from .profiles import InvalidProfileError, activation_bytes, calibration_shapes, checked_profiles
from .tactics import EngineLayer, NoImplementationError, choose, is_quantized, unscaled_tensors

UNPROVEN = (
    "names, number and nesting of the phases that a progress monitor hears of, and which threads they come from",
    "the words of a build that a monitor ended; that it ends at that very step",
    "the order of lines in a calibration table, and that constants have none in it",
    "a table of another version is passed over with a warning, and the network calibrated anew",
    "a timing cache of another version is refused even where a mismatch is to be ignored",
    "a timing cache that is corrupt gives None",
    "a tensor whose scale is 0 counts as one without a scale",
    "the inspector's names of the formats of Int64, Bool and BF16 tensors, and of kinds that no example shows",
    "a workspace of more than the device's memory is larger than the maximum possible value, and is not taken",
    "which of its permissions a build uses, and which layers become one: TensorRT chooses by time",
    "the line of a Builder that is made without a device: it is that of a Runtime; NVIDIA/TensorRT#2913 has 8.6's",
)
"""What is belief here: no header, source or public log says it of 10.3, and no device was asked."""

_WHERE = "IBuilder::buildSerializedNetwork"
_MIB = 1024**2
_ENGINE, _CALIBRATION, _COSTS, _TIMING = (
    "Building Engine",
    "Calibrating",
    "Computing profile costs",
    "Timing graph nodes",
)


class _CancelledError(Exception):
    """A monitor wants the build to end."""


class _Progress:
    """IProgressMonitor: "The application can return false for TensorRT to exit the build early", and phaseFinish "may
    be called before all steps in the range [0, nbSteps) have been reported".
    """

    def __init__(self, monitor: IProgressMonitor | None) -> None:
        self._monitor = monitor

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        if self._monitor is not None:
            guarded(self._monitor.phase_start, phase, parent, max(steps, 1), default=None)

    def step(self, phase: str, number: int) -> None:
        if self._monitor is not None and not guarded(self._monitor.step_complete, phase, number, default=False):
            raise _CancelledError

    def finish(self, phase: str) -> None:
        if self._monitor is not None:
            guarded(self._monitor.phase_finish, phase, default=None)


class Builder(metaclass=Bound):
    def __init__(self, logger: Any) -> None:
        if logger is None or not hasattr(logger, "log"):
            raise incompatible("__init__", logger)
        CORE.logger = CORE.logger or logger
        self._initialised = True
        self._logger = logger
        self.error_recorder: Any = None
        self.max_threads = 1
        code = DEVICE.error_code
        if code:
            text = f"createInferBuilder: Error Code 6: API Usage Error (CUDA initialization failure with error: {code}."
            CORE.report(None, "FAILED_INITIALIZATION", f"{text} Please check your CUDA installation)")
        if code or fails("Builder", None):
            raise TypeError("pybind11::init(): factory function returned nullptr")

    @property
    def logger(self) -> Any:
        return self._logger

    @property
    def platform_has_tf32(self) -> bool:
        return True

    @property
    def platform_has_fast_fp16(self) -> bool:
        return True

    @property
    def platform_has_fast_int8(self) -> bool:
        return True

    @property
    def num_DLA_cores(self) -> int:  # noqa: N802 - the name is NVIDIA's
        return 0

    def create_network(self, flags: int = 0) -> INetworkDefinition | None:
        """The flag EXPLICIT_BATCH is "deprecated and ignored"; every network has it."""
        return None if fails("create_network", self.error_recorder) else INetworkDefinition._made(self, int(flags))

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig._made(self)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile._made()

    def is_network_supported(self, network: INetworkDefinition, config: IBuilderConfig) -> bool:
        return bool(network._layers)

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        """None where there is no engine, with the reason in the log or the recorder; it raises nothing."""
        if not isinstance(network, INetworkDefinition) or not isinstance(config, IBuilderConfig):
            raise incompatible("build_serialized_network", network, config)
        DEVICE.require_bound("a build")
        if lost(_WHERE, self.error_recorder):
            return None
        progress = _Progress(config._monitor)
        progress.start(_ENGINE, None, 4)
        try:
            return self._built(network, config, progress)
        except _CancelledError:
            self._report("INTERNAL_ERROR", f"{_WHERE}: Error Code 2: Internal Error (the build was cancelled)")
        except NoScalesError as error:
            self._report("INVALID_CONFIG", f"{_WHERE}: Error Code 4: Internal Error ({error})")
        except InvalidProfileError as error:
            self._report("INVALID_CONFIG", f"{_WHERE}: Error Code 4: Internal Error ({error})")
        except NoImplementationError as error:
            self._report("UNSUPPORTED_STATE", f"{_WHERE}: Error Code 10: Internal Error ({error})")
        except DeviceError as error:
            report_cuda(self.error_recorder, _WHERE, error.code)
        finally:
            progress.finish(_ENGINE)
        return None

    def _built(self, network: INetworkDefinition, config: IBuilderConfig, progress: _Progress) -> IHostMemory | None:
        profiles = checked_profiles(network, config)
        scales = self._scales(network, config, progress)
        progress.step(_ENGINE, 0)
        layers = choose(network, config, scales)
        progress.step(_ENGINE, 1)
        if fails("build_serialized_network", self.error_recorder):
            return None
        self._time(layers, config, progress)
        progress.step(_ENGINE, 2)
        self._skip_tactics(layers, config)
        plan = Plan(
            onnx=network._model,
            profiles=profiles,
            layers=describe(network, layers, config.profiling_verbosity),
            name=network.name,
            activation_bytes=activation_bytes(network._model, profiles),
            device=CORE.device,
        )
        progress.step(_ENGINE, 3)
        return IHostMemory._holding(encode(plan, CORE.version))

    def _scales(self, network: INetworkDefinition, config: IBuilderConfig, progress: _Progress) -> Scales | None:
        """Networks with Q/DQ layers are not calibrated; without a calibrator there are dynamic ranges or nothing."""
        if network._typed() or not config.get_flag(BuilderFlag.INT8) or is_quantized(network):
            return None
        calibrator = config._calibrator
        if calibrator is None:
            CORE.say(
                "WARNING",
                "Calibrator is not being used. Users must provide dynamic range for all tensors that are not Int32 or"
                " Bool.",
            )
            tensors = [*network._inputs, *(each for layer in network._layers for each in layer._outputs)]
            scales = {each.name: max(map(abs, each._range)) / 127 for each in tensors if each._range}
        else:
            progress.start(_CALIBRATION, _ENGINE, 1 << 20)
            try:
                scales = calibrated_scales(
                    network,
                    calibrator,
                    calibration_shapes(network, config),
                    lambda batch: progress.step(_CALIBRATION, batch),
                )
            finally:
                progress.finish(_CALIBRATION)
        for name in unscaled_tensors(network, scales):
            CORE.say(
                "WARNING",
                f"Missing scale and zero-point for tensor {name}, expect fall back to non-int8 implementation for any"
                " layer consuming or producing given tensor",
            )
        return scales

    def _time(self, layers: list[EngineLayer], config: IBuilderConfig, progress: _Progress) -> None:
        """Both phases run at once, each on a thread of TensorRT's own: "The implementation of IProgressMonitor must be
        thread-safe so that it can be called from multiple internal threads".
        """

        def phase(name: str, timed: list[EngineLayer]) -> None:
            progress.start(name, _ENGINE, len(timed))
            try:
                for number, layer in enumerate(timed):
                    self._time_one(layer, config)
                    progress.step(name, number)
            finally:
                progress.finish(name)

        half = len(layers) // 2
        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(phase, _COSTS, layers[:half]), pool.submit(phase, _TIMING, layers[half:])]
            for each in running:
                each.exception()
        for each in running:
            each.result()

    def _time_one(self, layer: EngineLayer, config: IBuilderConfig) -> None:
        """Level 0 "will also not respect a timing cache". kERROR_ON_TIMING_CACHE_MISS "has an effect only when
        IBuilderConfig has an associated ITimingCache".
        """
        shapes = ",".join(str(list(tensor._shape)) for tensor in layer.inputs)
        key = f"{layer.kind.name} {layer.computes_in.name} {shapes}"
        cache = config._timing_cache
        if cache is None or config.builder_optimization_level == 0:
            CORE.timed.append(key)
            return
        if key in cache._times_ns:
            CORE.found_timed.append(key)
            return
        if config.get_flag(BuilderFlag.ERROR_ON_TIMING_CACHE_MISS):
            raise NoImplementationError(f"{key} is not in the timing cache.")
        cache._times_ns[key] = 1000 + zlib.crc32(key.encode()) % 1000
        CORE.timed.append(key)

    def _skip_tactics(self, layers: list[EngineLayer], config: IBuilderConfig) -> None:
        """The words are those of a build on an Orin (ultralytics/ultralytics#22271)."""
        asked = CORE.tactic_bytes
        free = DEVICE.memory.total_bytes - DEVICE.memory.used_bytes
        available = min(free, config.get_memory_pool_limit(MemoryPoolType.WORKSPACE))
        if asked <= available:
            return
        for number, layer in enumerate(layers):
            if layer.kind is LayerType.CONVOLUTION and layer.computes_in is not DataType.BOOL:
                CORE.say(
                    "WARNING",
                    f"Tactic Device request: {asked // _MIB}MB Available: {available // _MIB}MB. Device memory is"
                    " insufficient to use tactic.",
                )
                CORE.say(
                    "WARNING",
                    f"UNSUPPORTED_STATE: Skipping tactic {number} due to insufficient memory on requested size of"
                    f" {asked} detected for tactic 0x8a196054417f1c8a.",
                )

    def _report(self, code: str, text: str) -> None:
        CORE.report(self.error_recorder, code, text)
