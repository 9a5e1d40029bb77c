"""What a build is asked for (`NvInfer.h` and `python/src/infer/pyCore.cpp`, v10.3.0)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core import CORE
from ..enums import (
    BuilderFlag,
    DeviceType,
    EngineCapability,
    HardwareCompatibilityLevel,
    MemoryPoolType,
    PreviewFeature,
    ProfilingVerbosity,
    QuantizationFlag,
    RuntimePlatform,
    TacticSource,
)
from ..inference.bound import Product, incompatible
from ..inference.device import DEVICE
from ..inference.foundational_types import Dims
from .callbacks import IInt8Calibrator, IProgressMonitor
from .network import ILayer, warn_superseded
from .timing_cache import ITimingCache

DEFAULT_LEVEL = 3
"""`setBuilderOptimizationLevel`: "The default optimization level is 3"."""
_SELECTORS = ("min", "opt", "max")


class IOptimizationProfile(Product):
    """Its builder owns it (`py::nodelete`)."""

    _shapes: dict[str, dict[str, tuple[int, ...]]]
    extra_memory_target: float

    @classmethod
    def _made(cls) -> IOptimizationProfile:
        made = cls.__new__(cls)
        made._shapes, made.extra_memory_target = {}, 1.0
        return made

    def set_shape(
        self,
        input: str,  # noqa: A002 - NVIDIA's names, here and below
        min: Sequence[int],  # noqa: A002
        opt: Sequence[int],
        max: Sequence[int],  # noqa: A002
    ) -> None:
        """Three calls of setDimensions; the first that is inconsistent raises, and leaves the profile incomplete."""
        held = self._shapes[input] = {}
        for name, shape in zip(_SELECTORS, (min, opt, max), strict=True):
            extents = Dims(shape)[:]
            if any(
                len(other) != len(extents) or any(a > b for a, b in zip(other, extents, strict=True))
                for other in held.values()
            ) or any(extent < 0 for extent in extents):
                raise RuntimeError(f"Shape provided for {name} is inconsistent with other shapes.")
            held[name] = extents

    def get_shape(self, input: str) -> list[Dims]:  # noqa: A002
        return [Dims(shape) for shape in self._shapes.get(input, {}).values()]

    def __bool__(self) -> bool:
        """isValid: "whenever one of the minimum, optimum, or maximum dimensions of a tensor have been set, the others
        have also been set".
        """
        return all(len(held) == len(_SELECTORS) for held in self._shapes.values())


class IBuilderConfig(Product):
    avg_timing_iterations: int
    engine_capability: EngineCapability
    default_device_type: DeviceType
    DLA_core: int
    quantization_flags: int
    profiling_verbosity: ProfilingVerbosity
    builder_optimization_level: int
    hardware_compatibility_level: HardwareCompatibilityLevel
    runtime_platform: RuntimePlatform
    plugins_to_serialize: list[str]
    max_aux_streams: int
    algorithm_selector: Any
    profile_stream: int
    flags: int
    _builder: Any
    _pools: dict[MemoryPoolType, int]
    _previews: set[PreviewFeature]
    _tactic_sources: int
    _profiles: list[IOptimizationProfile]
    _calibration_profile: IOptimizationProfile | None
    _calibrator: IInt8Calibrator | None
    _monitor: IProgressMonitor | None
    _timing_cache: ITimingCache | None

    @classmethod
    def _made(cls, builder: Any) -> IBuilderConfig:
        made = cls.__new__(cls)
        made._builder = builder
        made.reset()
        return made

    def reset(self) -> None:
        """The header's defaults: TF32 is "Enabled by default", the workspace "defaults to max device memory", and the
        layers' names alone are "the default setting" of ProfilingVerbosity.
        """
        self.flags = 1 << int(BuilderFlag.TF32)
        self.avg_timing_iterations = 1
        self.engine_capability = EngineCapability.STANDARD
        self.default_device_type, self.DLA_core = DeviceType.GPU, -1
        self.quantization_flags = 0
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.builder_optimization_level = DEFAULT_LEVEL
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.runtime_platform = RuntimePlatform.SAME_AS_BUILD
        self.plugins_to_serialize, self.algorithm_selector = [], None
        self.max_aux_streams, self.profile_stream = 0, 0
        self._pools = {
            pool: DEVICE.memory.total_bytes if pool is MemoryPoolType.WORKSPACE else 0 for pool in MemoryPoolType
        }
        self._previews = set()
        self._tactic_sources = sum(1 << int(source) for source in TacticSource if int(source) > 2)
        self._profiles, self._calibration_profile = [], None
        self._calibrator = self._monitor = self._timing_cache = None

    def set_flag(self, flag: BuilderFlag) -> None:
        self.flags |= 1 << int(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags &= ~(1 << int(flag))

    def get_flag(self, flag: BuilderFlag) -> bool:
        return bool(self.flags >> int(flag) & 1)

    def get_quantization_flag(self, flag: QuantizationFlag) -> bool:
        return bool(self.quantization_flags >> int(flag) & 1)

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        """ "If the size of the pool is larger than the maximum possible value for the configuration, this function does
        nothing and emits ErrorCode::kUNSUPPORTED_STATE": for a workspace that is the device's memory.
        """
        if pool_size < 0:
            raise incompatible("set_memory_pool_limit", pool, pool_size)
        if pool is MemoryPoolType.WORKSPACE and pool_size > DEVICE.memory.total_bytes:
            text = (
                f"IBuilderConfig::setMemoryPoolLimit: Error Code 10: poolSize {pool_size} exceeds the device's memory"
            )
            CORE.report(self._builder.error_recorder, "UNSUPPORTED_STATE", text)
            return
        self._pools[pool] = pool_size

    def get_memory_pool_limit(self, pool: MemoryPoolType) -> int:
        return self._pools[pool]

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        """ "-1 if the input is not valid"."""
        if not profile:
            CORE.report(self._builder.error_recorder, "INVALID_ARGUMENT", "addOptimizationProfile: invalid profile")
            return -1
        self._profiles.append(profile)
        return len(self._profiles) - 1

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def set_calibration_profile(self, profile: IOptimizationProfile) -> bool:
        warn_superseded()
        if not profile:
            return False
        self._calibration_profile = profile
        return True

    def get_calibration_profile(self) -> IOptimizationProfile | None:
        warn_superseded()
        return self._calibration_profile

    @property
    def int8_calibrator(self) -> IInt8Calibrator | None:
        warn_superseded()
        return self._calibrator

    @int8_calibrator.setter
    def int8_calibrator(self, calibrator: IInt8Calibrator | None) -> None:
        warn_superseded()
        if calibrator is not None and not isinstance(calibrator, IInt8Calibrator):
            raise incompatible("int8_calibrator", calibrator)
        self._calibrator = calibrator

    @property
    def progress_monitor(self) -> IProgressMonitor | None:
        return self._monitor

    @progress_monitor.setter
    def progress_monitor(self, monitor: IProgressMonitor | None) -> None:
        if monitor is not None and not isinstance(monitor, IProgressMonitor):
            raise incompatible("progress_monitor", monitor)
        self._monitor = monitor

    def create_timing_cache(self, serialized_timing_cache: Any) -> ITimingCache | None:
        if CORE.injected("create_timing_cache") is not None:
            return None
        return ITimingCache._read(bytes(memoryview(serialized_timing_cache)), self._builder.error_recorder)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        """ "A failure will be reported if the CUDA device property in the provided cache is different from current
        environment. ignoreMismatch = true skips strict verification". The bindings keep the cache alive.
        """
        if not isinstance(cache, ITimingCache):
            raise incompatible("set_timing_cache", cache, ignore_mismatch)
        if not cache._fits(ignore_device=ignore_mismatch):
            text = "IBuilderConfig::setTimingCache: Error Code 3: API Usage Error (timing cache of another device)"
            CORE.report(self._builder.error_recorder, "INVALID_ARGUMENT", text)
            return False
        self._timing_cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._timing_cache

    def get_tactic_sources(self) -> int:
        return self._tactic_sources

    def set_tactic_sources(self, tactic_sources: int) -> bool:
        self._tactic_sources = tactic_sources
        return True

    def get_preview_feature(self, feature: PreviewFeature) -> bool:
        return feature in self._previews

    def set_preview_feature(self, feature: PreviewFeature, enable: bool) -> None:
        (self._previews.add if enable else self._previews.discard)(feature)

    def can_run_on_DLA(self, layer: ILayer) -> bool:  # noqa: N802
        return False
