"""ONNX Runtime as a runtime, on one provider that is always named: TensorRT, CUDA or the CPU."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from messages import (
    C7Error,
    ConfigError,
    EngineBuildError,
    EngineDeserializeError,
    InferenceError,
    OutOfMemoryError,
    Tensor,
    TensorSpec,
    ThermalFeed,
    ThermalState,
)
from messages.lifecycle import Sha256
from runtimes.config import C7InferenceConfig, Provider
from runtimes.host import detect_host
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry, EngineHandle, Precision
from runtimes.no_thermal_feed import NoThermalFeed
from runtimes.onnx_model import audit_onnx, refuse_partial_engine
from runtimes.onnx_session import (
    Session,
    dimension_names_of,
    error_of_resource,
    error_of_run,
    import_onnxruntime,
    open_session,
    ort_errors,
    prove_provider,
    refuse_environment,
    silent_run_options,
    specs_of_nodes,
)
from runtimes.resident_engines import ResidentEngines
from runtimes.source_model import read_source
from runtimes.store.engine_artifact import ReadEngine, read_engine, read_verified
from runtimes.store.engine_writer import BuiltEngine, write_engine
from runtimes.store.regular_file import read_regular_file
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.tensor_check import check_inputs, check_profile

PRECISIONS: dict[Provider, tuple[Precision, ...]] = {
    "cpu": ("fp32",),
    "cuda": ("fp16", "mixed"),
    "tensorrt": ("mixed",),
}
"""What each provider does. The first is all that it guarantees."""

TIMING_MAX_BYTES = 64 * 1024**2
"""TensorRT's timing caches grow to a few MiB."""

_WHY_NOT: dict[Provider, str] = {
    "cpu": "the CPU provider runs fp16 convolutions as fp32 between casts",
    "cuda": "fp32 belongs to the CPU, and int8 to the runtime tensorrt",
    "tensorrt": "this provider cannot forbid TensorRT to keep layers in fp32, which is what mixed says; for fp16"
    " throughout and for int8 configure the runtime tensorrt",
}


class OnnxHandle:
    """A resident session. `names` are the outputs in the session's order.

    `ran_out_of_memory` says that of its last run: the arena keeps what that run had got before it failed.
    """

    def __init__(self, entry: EngineCacheEntry, session: Session) -> None:
        self.entry = entry
        self.session: Session | None = session
        self.dimension_names = dimension_names_of(session.get_inputs())
        self.names = [node.name for node in session.get_outputs()]
        self.ran_out_of_memory = False


class OnnxTrtEpRuntime:
    """`InferenceRuntime` on ONNX Runtime. Its sources are ONNX models, whole in one file; NumPy in, NumPy out.

    Construction proves that `config.provider` really runs here, and raises ConfigError where none is given and
    RuntimeNotAvailableError where it cannot. On the CPU and on CUDA the engine is the model as ONNX Runtime
    optimised it for this host; on TensorRT it is the compiled engine inside an EPContext model. `threads` bounds
    the CPU threads of a run, which do not spin between runs.
    """

    def __init__(
        self, config: C7InferenceConfig, thermal: ThermalFeed | None = None, read: ReadEngine = read_verified
    ) -> None:
        if config.provider is None:
            raise ConfigError(
                "onnx_trt_ep: expected provider, found none: choose tensorrt, cuda or cpu; none is taken by default"
            )
        if config.device == "cuda" and config.provider == "cpu":
            raise ConfigError(
                'onnx_trt_ep: provider = "cpu" and device = "cuda" contradict each other; leave device out, or choose'
                " provider tensorrt or cuda"
            )
        ort = import_onnxruntime()
        refuse_environment(config.provider)
        prove_provider(config.provider, config.device_index)
        self._provider: Provider = config.provider
        self._config = config
        device = "" if config.provider == "cpu" else f":{config.device_index}"
        self._label = f"onnx_trt_ep[{config.provider}{device}]"
        self._version = str(ort.__version__)
        self._host = detect_host(self._version, device_index=config.device_index)
        self._thermal = thermal if thermal is not None else NoThermalFeed()
        self._read = read
        self._errors = ort_errors()
        # A build goes through a temporary folder, which may be full.
        self._build_errors: tuple[type[Exception], ...] = (*self._errors, OSError)
        self._run_options = silent_run_options()
        self._after_out_of_memory = silent_run_options(shrinks_cpu_arena=config.provider == "cpu")
        self._resident: ResidentEngines[OnnxHandle] = ResidentEngines()

    def compile_engine(self, model_path: Path, build_config: BuildConfig) -> EngineCacheEntry:
        """Optimise or build an ONNX model for this host. `workspace_mb` bounds TensorRT's build and no other."""
        self._resident.refuse_compile(model_path)
        self._refuse_precision(model_path, build_config.precision)
        source = read_source(model_path, suffix=".onnx")
        model = audit_onnx(source, build_config.precision)
        profile = build_config.optimization_profiles
        check_profile(model_path.stem, model.inputs, profile, every_dynamic_input=self._provider == "tensorrt")
        began_ns = time.monotonic_ns()
        try:
            data = self._built(model_path.stem, model.data, build_config)
            inputs, outputs = _described(self._open(data))
        except self._build_errors as error:
            refused = EngineBuildError(f"{model_path}: {type(error).__name__}: {str(error).strip()[:500]}")
            raise (error_of_resource(str(model_path), error) or refused) from error
        if inputs != model.inputs:
            raise EngineBuildError(f"{model_path}: expected an engine with inputs {model.inputs}, found {inputs}")
        return write_engine(
            self._config.engine_dir if self._config.engine_dir is not None else model_path.parent / "engines",
            model_path.stem,
            source,
            BuiltEngine(
                data=data,
                inputs=inputs,
                outputs=outputs,
                build_tool=f"onnxruntime {self._version}",
                timing_cache_sha256=(
                    timing_cache_sha256(self._config.timing_cache_dir, self._host.sm)
                    if self._provider == "tensorrt"
                    else None
                ),
            ),
            build_config,
            self._label,
            self._host,
            time.monotonic_ns() - began_ns,
            room_bytes=self._config.storage_room_bytes,
        )

    def deserialize_engine(self, entry: EngineCacheEntry) -> OnnxHandle:
        data = read_engine(entry, runtime_label=self._label, host=self._host, read=self._read)
        failure: C7Error
        try:
            session = self._open(data)
            found = _described(session)
            if found == (entry.inputs, entry.outputs):
                return self._resident.admit(OnnxHandle(entry, session))
            failure = EngineDeserializeError(
                f"{entry.path}: expected inputs and outputs {entry.inputs} -> {entry.outputs}, found {found[0]} ->"
                f" {found[1]}; compile it again"
            )
        except self._errors as error:
            refused = EngineDeserializeError(f"{entry.path}: {type(error).__name__}: {str(error).strip()[:500]}")
            failure = error_of_resource(str(entry.path), error) or refused
            traceback.clear_frames(error.__traceback__)
        del data  # the failure's traceback keeps this frame
        raise failure

    def infer(self, handle: EngineHandle, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        engine = self._resident.require(handle)
        entry, session = engine.entry, engine.session
        if session is None:
            raise InferenceError(f"{entry.model}: the engine was released while it was to run")
        check_inputs(
            entry.model,
            entry.inputs,
            entry.build_config.optimization_profiles,
            inputs,
            dimension_names=engine.dimension_names,
            host_only=True,
        )
        failure: C7Error
        # An arena is shrunk at the end of a run that was begun with these options, and at no other time.
        options = self._after_out_of_memory if engine.ran_out_of_memory else self._run_options
        engine.ran_out_of_memory = False
        try:
            # ONNX Runtime copies what leaves a run: no output shares memory with an input, a weight or another output.
            outputs = session.run(engine.names, _feeds(inputs), options)
            return dict(zip(engine.names, outputs, strict=True))
        except self._errors as error:
            failure = error_of_run(entry.model, error)
            traceback.clear_frames(error.__traceback__)
        engine.ran_out_of_memory = isinstance(failure, OutOfMemoryError)
        raise failure

    def release_engine(self, handle: EngineHandle) -> None:
        engine = self._resident.dismiss(handle)
        if engine is not None:
            engine.session = None

    def thermal_state(self) -> ThermalState:
        return self._thermal.thermal_state()

    def current_runtime_label(self) -> str:
        return self._label

    def _refuse_precision(self, model_path: Path, precision: Precision) -> None:
        does = PRECISIONS[self._provider]
        if precision not in does:
            raise EngineBuildError(
                f"{model_path}: {self._label} does precision {' or '.join(does)}, got {precision}:"
                f" {_WHY_NOT[self._provider]}"
            )

    def _open(self, data: bytes) -> Session:
        return open_session(data, self._provider, threads=self._config.threads, device_index=self._config.device_index)

    def _built(self, model: str, source: bytes, build_config: BuildConfig) -> bytes:
        """The engine: what ONNX Runtime writes when it opens the source for this provider."""
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "engine.onnx"
            on_tensorrt = self._provider == "tensorrt"
            session = open_session(
                source,
                self._provider,
                threads=self._config.threads,
                device_index=self._config.device_index,
                build_options=(
                    tensorrt_options(build_config, written, self._config.timing_cache_dir) if on_tensorrt else None
                ),
                optimized_to=None if on_tensorrt else written,
            )
            del session
            data = written.read_bytes()
        if on_tensorrt:
            refuse_partial_engine(model, data)
        return data


def tensorrt_options(build_config: BuildConfig, written: Path, timing_cache_dir: Path | None = None) -> dict[str, str]:
    """Options of ONNX Runtime's TensorRT provider for precision `mixed`, with the engine embedded in one file.

    Timings of former builds are read from `timing_cache_dir`, and those of this build are added to them. Only ones that
    TensorRT itself finds fit this GPU: `trt_force_timing_cache` would take others too.
    """
    timing = {} if timing_cache_dir is None else {"trt_timing_cache_path": str(timing_cache_dir)}
    shapes: dict[str, list[str]] = {"min": [], "opt": [], "max": []}
    for name, *of_each in build_config.optimization_profiles:
        for kind, shape in zip(shapes, of_each, strict=True):
            shapes[kind].append(f"{name}:{'x'.join(map(str, shape))}")
    return {
        "trt_max_workspace_size": str(build_config.workspace_mb * 1024**2),
        "trt_fp16_enable": "1",
        "trt_dump_ep_context_model": "1",
        "trt_ep_context_file_path": str(written),
        "trt_ep_context_embed_mode": "1",
        "trt_timing_cache_enable": "1" if timing else "0",
        **timing,
        **{f"trt_profile_{kind}_shapes": ",".join(listed) for kind, listed in shapes.items() if listed},
    }


def timing_cache_sha256(directory: Path | None, sm: int) -> Sha256 | None:
    """The hash of the file with all timings that a build read or took; ONNX Runtime names it after the GPU.

    None where there is none: ONNX Runtime builds on where it cannot write it. Raises EngineBuildError.
    """
    if directory is None:
        return None
    path = directory / f"TensorrtExecutionProvider_cache_sm{sm}.timing"
    try:
        return sha256_of(read_regular_file(path, max_bytes=TIMING_MAX_BYTES))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EngineBuildError(f"{path}: the timing cache of the build cannot be read: {error.strerror}") from error


def _described(session: Session) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    return specs_of_nodes(session.get_inputs()), specs_of_nodes(session.get_outputs())


def _feeds(inputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor for name, tensor in inputs.items() if isinstance(tensor, np.ndarray)}
