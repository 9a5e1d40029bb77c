"""The one interface through which every component runs its networks, and the records that cross it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Protocol, runtime_checkable

import msgspec

from messages import Tensor, ThermalState
from messages.lifecycle import Sha256
from messages.tensor import RANK_MAX, Name, TensorSpecs
from runtimes.build_report import BuildReport
from runtimes.measurements import INT_MAX, AccuracyRecord, Bytes, MemoryUse, PowerMode

Precision = Literal["fp16", "int8", "mixed", "fp32"]
"""`fp32` is legal exactly where the device is `cpu`; it is this project's addition to the specification."""

Shape = Annotated[tuple[Annotated[int, msgspec.Meta(ge=0)], ...], msgspec.Meta(max_length=RANK_MAX)]
ProfileRange = tuple[Name, Shape, Shape, Shape]
"""(input_name, min_shape, opt_shape, max_shape)."""


class BuildConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How to compile one model.

    `optimization_profiles` is one profile over several inputs: one tuple for each input with a dynamic dimension,
    and never two for the same input (docs/decisions/engine-cache-entry.md). `calibration_dataset` is required for
    int8. `workspace_mb` bounds the scratch memory of a build in MiB.
    """

    precision: Precision = "fp16"
    workspace_mb: Annotated[int, msgspec.Meta(ge=1, le=INT_MAX)] = 1024
    calibration_dataset: Path | None = None
    optimization_profiles: tuple[ProfileRange, ...] = ()


class HostTuple(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an engine is bound to. An engine whose tuple differs from the host's is refused at takeoff.

    `sm` is the CUDA compute capability times ten (87 on Orin), 0 without a GPU. `jetpack`, `l4t`, `tensorrt` and
    `cuda` are versions as text, "0" where the thing is not installed. `device_name` is the GPU's name, or the
    processor's on a machine without one. `runtime_version` is the version of the library that runs the engine.
    """

    sm: Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]
    sm_count: Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]
    device_name: str
    jetpack: str
    l4t: str
    tensorrt: str
    cuda: str
    machine: str
    runtime_version: str


class EngineCacheEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One compiled engine: where it lies, what it was made from, and for which host.

    `path` is absolute in memory; on disk the entry is written without it, beside the engine file.
    `runtime_label` is the label of the runtime that built it, and the only one that may load it.
    `inputs` and `outputs` use -1 for dynamic dimensions.

    The hashes of the dataset, the calibration cache and the timing cache are None where the build used none.
    `self_test_sha256` is the hash of the known answers beside the engine. `power`, `memory` and `accuracy` are what
    provisioning measured, and None where an engine was compiled without being provisioned. `build` is what TensorRT was
    asked for and what it did, None where another library built the engine.
    """

    model: Name
    path: Path
    engine_sha256: Sha256
    engine_size_bytes: Bytes
    source_name: str
    source_sha256: Sha256
    runtime_label: str
    build_config: BuildConfig
    host: HostTuple
    inputs: TensorSpecs
    outputs: TensorSpecs
    build_tool: str
    build_ns: Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]
    dataset_sha256: Sha256 | None = None
    calibration_sha256: Sha256 | None = None
    timing_cache_sha256: Sha256 | None = None
    self_test_sha256: Sha256 | None = None
    power: PowerMode | None = None
    memory: MemoryUse | None = None
    accuracy: AccuracyRecord | None = None
    build: BuildReport | None = None


class EngineHandle(Protocol):
    """An engine that is resident and ready to run; opaque but for its description. One thread at a time uses it."""

    @property
    def entry(self) -> EngineCacheEntry: ...


class InferenceRuntime(Protocol):
    """Compiles, loads and runs engines. Raises typed errors; never logs a decision, never falls back.

    Different handles may be used from different threads at once; one handle by one thread at a time.
    """

    def compile_engine(self, model_path: Path, build_config: BuildConfig) -> EngineCacheEntry:
        """Compile a source model before the flight. Blocks for seconds to tens of minutes.

        Raises EngineBuildError or CalibrationCacheError; nothing half written is left behind. Raises
        EngineBuildError as soon as any engine is loaded: nothing is compiled in flight.
        """
        ...

    def deserialize_engine(self, entry: EngineCacheEntry) -> EngineHandle:
        """Verify the file and make it resident.

        Raises EngineDeserializeError naming expected and found, CorruptEngineError where the files are not those that
        were signed off, OutOfMemoryError, or DeviceFaultError.
        """
        ...

    def infer(self, handle: EngineHandle, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run once and wait for the result.

        NumPy in, NumPy out. The inputs are read, never written or kept; each output is a new array that no later
        run touches. Raises InvalidInputError (nothing ran), InferenceError, of which DeviceFaultError,
        DeviceContextError and TransientInferenceError say how far the damage goes, or OutOfMemoryError.
        """
        ...

    def release_engine(self, handle: EngineHandle) -> None:
        """Free what the handle holds. Releasing twice does nothing.

        Raises DeviceFaultError where the device answers no more; the handle is released all the same.
        """
        ...

    def thermal_state(self) -> ThermalState:
        """The newest sample of the feed given at construction. Raises TelemetryUnavailableError."""
        ...

    def current_runtime_label(self) -> str:
        """Runtime and device in one word: `tensorrt`, `onnx_trt_ep[cpu]`, `pytorch_fp16[cuda:0]`."""
        ...


@runtime_checkable
class SuspendsEngines(InferenceRuntime, Protocol):
    """A runtime that starts an engine again from what it verified and opened, without reading it a second time.

    Ask with `isinstance`. `release_engine` frees a suspended engine too, and nothing is compiled beside one.
    """

    def suspend_engine(self, handle: EngineHandle) -> None:
        """Free all that a run needs, and keep what was verified and opened. The handle runs no more.

        Suspending twice does nothing. Raises InferenceError for a handle that was released.
        """
        ...

    def resume_engine(self, handle: EngineHandle) -> EngineHandle:
        """A new handle around what was kept; the suspended one is dismissed.

        Raises InferenceError where the handle is not suspended. Raises OutOfMemoryError or EngineDeserializeError
        where it cannot be made to run again: it stays suspended then, until it is released.
        """
        ...
