"""The one place where a configuration becomes a runtime."""

from __future__ import annotations

from collections.abc import Callable

from messages.errors import ConfigError, RuntimeNotAvailableError
from messages.thermal import ThermalFeed
from runtimes.build_flags import read_build_flag
from runtimes.config import C7InferenceConfig, RuntimeName, TensorrtSection
from runtimes.inference_runtime import InferenceRuntime, Precision
from runtimes.store.engine_artifact import ReadEngine, read_verified

_RUNTIME_TO_BUILD_FLAG: dict[RuntimeName, str] = {
    "tensorrt": "BUILD_TENSORRT_RUNTIME",
    "onnx_trt_ep": "BUILD_ONNX_TRT_EP_RUNTIME",
    "pytorch_fp16": "BUILD_PYTORCH_FP16_RUNTIME",
}

SOURCE_SUFFIX: dict[RuntimeName, str] = {"tensorrt": ".onnx", "onnx_trt_ep": ".onnx", "pytorch_fp16": ".pt2"}
"""Which source models a runtime compiles."""


def is_calibrated(precision: Precision, runtime: RuntimeName) -> bool:
    """Whether a build of this precision uses a calibration dataset: TensorRT calibrates `mixed` too, if given one."""
    return precision == "int8" or (precision == "mixed" and runtime == "tensorrt")


def build_inference_runtime(
    config: C7InferenceConfig,
    thermal: ThermalFeed | None = None,
    read: ReadEngine = read_verified,
    progress: Callable[[str], None] | None = None,
) -> InferenceRuntime:
    """Build the runtime that is configured, and no other.

    `thermal` is where its `thermal_state()` reads from, `read` gives it the bytes of an engine. `progress` hears, from
    the library's threads, how far a compilation is, where the library tells; only TensorRT does. Raises
    RuntimeNotAvailableError where the runtime is built out (its BUILD_* flag is OFF) or its library, device or
    provider is not here, ConfigError for a configuration or flag that cannot be meant.
    """
    check_runtime_config(config)
    flag = _RUNTIME_TO_BUILD_FLAG[config.runtime]
    if not read_build_flag(flag):
        raise RuntimeNotAvailableError(
            f"runtime {config.runtime} is configured but built out: {flag}=OFF; set {flag}=ON or configure another"
            " runtime"
        )
    if config.runtime == "onnx_trt_ep":
        from runtimes.onnx_trt_ep_runtime import OnnxTrtEpRuntime

        return OnnxTrtEpRuntime(config, thermal, read)
    if config.runtime == "pytorch_fp16":
        from runtimes.pytorch_fp16_runtime import PytorchFp16Runtime

        return PytorchFp16Runtime(config, thermal, read)
    from runtimes.tensorrt_runtime import TensorrtRuntime

    return TensorrtRuntime(config, thermal, read, progress)


def check_runtime_config(config: C7InferenceConfig) -> None:
    """Raises ConfigError where `provider`, `tensorrt` and `runtime` do not belong together."""
    if config.runtime == "onnx_trt_ep" and config.provider is None:
        raise ConfigError("provider: runtime onnx_trt_ep has no default provider; expected tensorrt, cuda or cpu")
    if config.runtime != "onnx_trt_ep" and config.provider is not None:
        raise ConfigError(
            f"provider: expected none with runtime {config.runtime}, got {config.provider}; it belongs to onnx_trt_ep"
        )
    if config.runtime != "tensorrt" and config.tensorrt != TensorrtSection():
        raise ConfigError(
            f"tensorrt: expected no such table with runtime {config.runtime}; it belongs to the runtime tensorrt"
        )
    check_tensorrt_section(config.tensorrt)


def check_named_device(config: C7InferenceConfig) -> None:
    """For a `device` that somebody wrote, and that is no default.

    Raises ConfigError where runtime and provider run elsewhere: it would be passed over in silence.
    """
    expected = "cuda" if config.uses_gpu else "cpu"
    if config.device != expected:
        runs = config.runtime if config.provider is None else f"{config.runtime} with provider {config.provider}"
        raise ConfigError(f"device: expected {expected} or none, because {runs} runs nowhere else, got {config.device}")


def check_tensorrt_section(section: TensorrtSection) -> None:
    """Raises ConfigError for graphs together with activation memory that moves."""
    graphs = [model for model, listed in section.cuda_graphs.items() if listed]
    if section.share_activation_memory and graphs:
        raise ConfigError(
            f"tensorrt: expected cuda_graphs or share_activation_memory, found both ({', '.join(graphs)}): a graph"
            " keeps the address of its scratch memory, and the shared one moves when a larger engine is loaded"
        )
