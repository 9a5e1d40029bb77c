"""TensorRT as a runtime: what flies on a Jetson."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from messages import EngineBuildError, EngineDeserializeError, Tensor, TensorSpec, ThermalFeed, ThermalState
from runtimes.config import C7InferenceConfig, GraphShapes
from runtimes.cuda.cuda_bindings import open_cuda
from runtimes.cuda.device_tensor import check_devices, on_cuda
from runtimes.host import detect_host
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry, EngineHandle
from runtimes.no_thermal_feed import NoThermalFeed
from runtimes.onnx_types import audit_typed
from runtimes.resident_engines import ResidentEngines
from runtimes.source_model import read_source
from runtimes.store.engine_artifact import ReadEngine, calibration_path, read_engine, read_verified
from runtimes.store.engine_filename import EngineFilenameSchema
from runtimes.store.engine_writer import BuiltEngine, write_engine
from runtimes.tensor_check import check_inputs, check_profile
from runtimes.tensorrt.bindings import Engine
from runtimes.tensorrt.building.build import build_engine
from runtimes.tensorrt.building.recipe import engine_recipe
from runtimes.tensorrt.inference.activation_memory import ActivationMemory
from runtimes.tensorrt.inference.engine import EngineLoader, LoadedEngine
from runtimes.tensorrt.inference.execution import Execution
from runtimes.tensorrt.inference.graphs import listed_shapes
from runtimes.tensorrt.inference.handle import TensorrtHandle
from runtimes.tensorrt.inference.io_tensors import IoTensor, differences, specs
from runtimes.tensorrt.library import import_tensorrt
from runtimes.tensorrt.log import process_log

Progress = Callable[[str], None]


class TensorrtRuntime:
    """`InferenceRuntime` on TensorRT 10.3 or newer, before 11. Its sources are ONNX models, whole in one file.

    It always runs on the CUDA device `config.device_index`; `config.device` and `config.threads` say nothing here.
    NumPy in, NumPy out; device tensors in, device tensors out, never through the host. Each handle has a context, a
    stream and memory of its own, so that handles may run at once; with `share_activation_memory` one waits for another.

    `progress` hears how far a build is, and `cancelled` is asked for a reason to end it, "" for none; both from
    TensorRT's threads, where a Ctrl-C arrives late. Raises RuntimeNotAvailableError where TensorRT, its libraries, the
    driver or the device is missing.
    """

    def __init__(
        self,
        config: C7InferenceConfig,
        thermal: ThermalFeed | None = None,
        read: ReadEngine = read_verified,
        progress: Progress | None = None,
        cancelled: Callable[[], str] = str,
    ) -> None:
        self._config = config
        self._progress = progress
        self._cancelled = cancelled
        self._thermal = thermal if thermal is not None else NoThermalFeed()
        self._read = read
        self._trt = import_tensorrt()
        version = str(self._trt.__version__)
        self._cuda = open_cuda(config.device_index)
        self._log = process_log(self._trt)
        self._loader = EngineLoader(self._trt, self._log, self._cuda)
        self._label = "tensorrt" if config.device_index == 0 else f"tensorrt[cuda:{config.device_index}]"
        self._host = detect_host(version, device_index=config.device_index, tensorrt=version)
        self._shared = ActivationMemory(self._cuda) if config.tensorrt.share_activation_memory else None
        self._resident: ResidentEngines[TensorrtHandle] = ResidentEngines()

    def compile_engine(self, model_path: Path, build_config: BuildConfig) -> EngineCacheEntry:
        """Build an ONNX model for this device, and refuse an engine that is weaker than what was asked for."""
        self._resident.refuse_compile(model_path)
        source = read_source(model_path, suffix=".onnx")
        model, types = audit_typed(source, build_config.precision)
        check_profile(model_path.stem, model.inputs, build_config.optimization_profiles, every_dynamic_input=True)
        options = self._config.tensorrt
        _refuse_graphs(model_path.stem, model.inputs, build_config, options.cuda_graphs.get(model_path.stem, ()))
        recipe = engine_recipe(str(model_path), build_config, types, optimization_level=options.optimization_level)
        directory = self._config.engine_dir if self._config.engine_dir is not None else model_path.parent / "engines"
        name = EngineFilenameSchema.for_host(model_path.stem, self._host, build_config.precision).format()
        began_ns = time.monotonic_ns()
        opened: list[LoadedEngine] = []

        def open_engine(plan: bytes) -> Engine:
            opened.append(self._loader.load(str(model_path), model_path.stem, plan))
            return opened[0].engine

        built = build_engine(
            self._trt,
            self._log,
            self._cuda,
            recipe,
            source,
            model,
            build_config,
            builder=options.builder,
            open_engine=open_engine,
            calibration_path=calibration_path(directory / name),
            timing_cache_dir=self._config.timing_cache_dir,
            cancelled=self._cancelled,
            tell=self._progress,
        )
        io = opened.pop().io
        inputs, outputs = specs(io, inputs=True), specs(io, inputs=False)
        differing = differences(model.inputs, inputs, build_config.optimization_profiles)
        if differing:
            raise EngineBuildError(f"{model_path}: TensorRT built another engine: {'; '.join(differing)}")
        return write_engine(
            directory,
            model_path.stem,
            source,
            BuiltEngine(
                data=built.data,
                inputs=inputs,
                outputs=outputs,
                build_tool=built.build_tool,
                dataset_sha256=built.dataset_sha256,
                calibration_cache=built.calibration_cache,
                timing_cache_sha256=built.timing_cache_sha256,
                report=built.report,
            ),
            build_config,
            self._label,
            self._host,
            time.monotonic_ns() - began_ns,
            room_bytes=self._config.storage_room_bytes,
        )

    def deserialize_engine(self, entry: EngineCacheEntry) -> TensorrtHandle:
        """Verify, deserialise, run at the profile's least, usual and greatest shapes, and capture the graphs listed."""
        plan = read_engine(entry, runtime_label=self._label, host=self._host, read=self._read)
        loaded = self._loader.load(str(entry.path), entry.model, plan)
        del plan
        _refuse_another(entry, loaded)
        return self._resident.admit(TensorrtHandle(entry, loaded, self._open))

    def suspend_engine(self, handle: EngineHandle) -> None:
        """Keeps the deserialised engine with its weights on the device."""
        self._resident.suspend(handle).suspend()

    def resume_engine(self, handle: EngineHandle) -> TensorrtHandle:
        resumed: list[TensorrtHandle] = []

        def resume(suspended: TensorrtHandle) -> TensorrtHandle:
            resumed.append(suspended.resumed(self._open))
            return resumed[0]

        try:
            return self._resident.resume(handle, resume)
        except BaseException:
            for each in resumed:  # the suspended one was released meanwhile, and so nobody would release this one
                each.release()
            raise

    def infer(self, handle: EngineHandle, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        engine = self._resident.require(handle)
        entry = engine.entry
        on_device = any(on_cuda(tensor) for tensor in inputs.values())
        check_inputs(
            entry.model, entry.inputs, entry.build_config.optimization_profiles, inputs, host_only=not on_device
        )
        if on_device:
            check_devices(entry.model, inputs, f"cuda:{self._cuda.index}")
        with engine.running() as execution:
            return execution.run(inputs)

    def release_engine(self, handle: EngineHandle) -> None:
        engine = self._resident.dismiss(handle)
        if engine is not None:
            engine.release()

    def thermal_state(self) -> ThermalState:
        return self._thermal.thermal_state()

    def current_runtime_label(self) -> str:
        return self._label

    def _open(self, entry: EngineCacheEntry, loaded: LoadedEngine) -> Execution:
        return Execution(
            self._trt,
            self._cuda,
            loaded,
            self._shared if self._shared is not None else ActivationMemory(self._cuda),
            entry.build_config.optimization_profiles,
            self._config.tensorrt.cuda_graphs.get(entry.model, ()),
        )


def _refuse_graphs(
    model: str, inputs: Mapping[str, TensorSpec], build_config: BuildConfig, listed: Sequence[GraphShapes]
) -> None:
    """Raises EngineBuildError for graphs that the engine could not be loaded with, before hours are spent on it."""
    io = tuple(IoTensor(name, spec, is_input=True) for name, spec in inputs.items())
    try:
        listed_shapes(model, io, build_config.optimization_profiles, listed)
    except EngineDeserializeError as error:
        raise EngineBuildError(str(error)) from error


def _refuse_another(entry: EngineCacheEntry, loaded: LoadedEngine) -> None:
    """Raises EngineDeserializeError where the engine takes or gives something else than its metadata says."""
    inputs, outputs = specs(loaded.io, inputs=True), specs(loaded.io, inputs=False)
    if (inputs, outputs) != (entry.inputs, entry.outputs):
        differing = differences({**entry.inputs, **entry.outputs}, {**inputs, **outputs})
        raise EngineDeserializeError(
            f"{entry.path}: expected the inputs and outputs of its metadata, found an engine that differs:"
            f" {'; '.join(differing) or 'one is an input here and an output there'}; compile it again"
        )
