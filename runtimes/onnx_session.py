"""ONNX Runtime sessions on exactly the provider that was asked for.

ONNX Runtime takes its CPU provider, silently, for whatever a listed provider cannot do. What was tried against
1.31.1 without CUDA and TensorRT: no single switch prevents it, so three hold here together. Only the one provider is
listed, with `enable_fallback=0` (else it prints and retries on the CPU); `session.disable_cpu_ep_fallback` (else
missing CUDA libraries are one log line); and the session's own first provider is compared at the end.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol

import numpy as np

from messages import (
    C7Error,
    ConfigError,
    InferenceError,
    InvalidInputError,
    OutOfMemoryError,
    RuntimeNotAvailableError,
    TensorSpec,
)
from messages.errors import printable
from runtimes.config import Provider
from runtimes.cuda_errors import TEXT_MAX_CHARS, error_of_cuda
from runtimes.tensor_check import DimensionNames

PROVIDER_NAMES: dict[Provider, str] = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
_PROVIDER_LIBRARIES: dict[Provider, str] = {
    "tensorrt": "libonnxruntime_providers_tensorrt.so",
    "cuda": "libonnxruntime_providers_cuda.so",
}
DTYPE_OF_ORT = {
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint64)": "uint64",
    "tensor(uint32)": "uint32",
    "tensor(uint16)": "uint16",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}
"""What NumPy has a type for. bfloat16 and float8 tensors, sequences, maps and strings are refused."""

_SILENT = 4
"""Log level: fatal only. What ONNX Runtime logs as an error it also raises, and its log would land on stderr."""
_DEFAULT_SEVERITY = 2
_OUT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc", "bad allocation", "out of memory")

_PROBE = bytes.fromhex(
    "08083a390a0e0a01780a01781201792203416464120570726f62655a0f0a0178120a0a08080112040a020801620f0a0179120a0a080801"
    "12040a02080142040a00100e"
)
"""The ONNX model `y = x + x` on one float32: what a provider is asked to run before it is trusted."""


class NodeArg(Protocol):
    name: str
    type: str
    shape: Sequence[int | str | None]


class Session(Protocol):
    """The part of `onnxruntime.InferenceSession` that is used here."""

    def get_inputs(self) -> Sequence[NodeArg]: ...
    def get_outputs(self) -> Sequence[NodeArg]: ...
    def get_providers(self) -> Sequence[str]: ...
    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, np.ndarray], run_options: object = None
    ) -> list[np.ndarray]: ...


def import_onnxruntime() -> ModuleType:
    """Raises RuntimeNotAvailableError naming the extra to install."""
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeNotAvailableError(
            f"onnx_trt_ep needs ONNX Runtime, which cannot be imported ({error}); install it with"
            " c7-inference's extra `onnx`, on a Jetson the wheel that NVIDIA builds for JetPack"
        ) from error
    module: ModuleType = onnxruntime
    return module


def refuse_environment(provider: Provider, environment: Mapping[str, str] = os.environ) -> None:
    """Raises ConfigError naming the ORT_TENSORRT_* variables that would change what the TensorRT provider builds."""
    intruders = sorted(name for name in environment if name.startswith("ORT_TENSORRT_"))
    if provider == "tensorrt" and intruders:
        raise ConfigError(
            f"{', '.join(intruders)}: expected no ORT_TENSORRT_* variable in the environment, because they override"
            " the build configuration; unset them"
        )


def prove_provider(provider: Provider, device_index: int) -> None:
    """Run one addition on the provider. Raises RuntimeNotAvailableError saying what is missing and what to do."""
    ort = import_onnxruntime()
    name = PROVIDER_NAMES[provider]
    if name not in ort.get_available_providers():
        raise _unavailable(provider, "this build was made without it; install onnxruntime-gpu")
    ort.set_default_logger_severity(_SILENT)
    try:
        session = open_session(_PROBE, provider, threads=1, device_index=device_index)
        result = session.run(None, {"x": np.array([2.0], np.float32)}, silent_run_options())
    except ort_errors() as error:
        raise _unavailable(provider, _missing_library(provider) or str(error).strip()) from error
    finally:
        ort.set_default_logger_severity(_DEFAULT_SEVERITY)  # it cannot be read; this is ONNX Runtime's default
    if float(result[0][0]) != 4.0:
        raise _unavailable(provider, f"2 + 2 gave {result[0][0]}")


def open_session(
    model: bytes,
    provider: Provider,
    *,
    threads: int,
    device_index: int,
    build_options: Mapping[str, str] | None = None,
    optimized_to: Path | None = None,
) -> Session:
    """A session on this provider and no other, without a file of the model.

    An engine is run as it is. A source is optimised on the way: with `optimized_to` the optimised graph is written
    there, with `build_options` the provider builds an engine under these options. Raises RuntimeNotAvailableError
    where ONNX Runtime gave another provider, and what `ort_errors` lists.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads would otherwise burn the cores that the other engines and the flight loop run on.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if provider != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    level = ort.GraphOptimizationLevel
    is_engine = optimized_to is None and build_options is None
    options.graph_optimization_level = level.ORT_DISABLE_ALL if is_engine else level.ORT_ENABLE_ALL
    if optimized_to is not None:
        options.optimized_model_filepath = str(optimized_to)
    placed = {} if provider == "cpu" else {"device_id": str(device_index), **(build_options or {})}
    session = ort.InferenceSession(model, options, providers=[(PROVIDER_NAMES[provider], placed)], enable_fallback=0)
    session.disable_fallback()
    session._model_bytes = None  # noqa: SLF001 - it keeps the engine file in memory, for the fallback that is off
    found = session.get_providers()
    if not found or found[0] != PROVIDER_NAMES[provider]:
        raise _unavailable(provider, f"the session got {', '.join(found) or 'no provider'}")
    opened: Session = session
    return opened


def silent_run_options(*, shrinks_cpu_arena: bool = False) -> object:
    """Options of a run; with `shrinks_cpu_arena` its end frees what the session's CPU arena keeps for later runs.

    The arenas of CUDA and TensorRT can be named there too. It is not done where it could not be tried: ONNX Runtime
    refuses a run that names an arena which the session has not.
    """
    options = import_onnxruntime().RunOptions()
    options.log_severity_level = _SILENT
    if shrinks_cpu_arena:
        options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def ort_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: classes of its own that share no root, and Python's through its bindings."""
    import_onnxruntime()
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, RuntimeError, ValueError, TypeError, MemoryError)


def specs_of_nodes(nodes: Sequence[NodeArg]) -> dict[str, TensorSpec]:
    """Raises ValueError for an input or output that is no tensor of a NumPy type."""
    for node in nodes:
        if node.type not in DTYPE_OF_ORT:
            raise ValueError(f"{node.name} is a {node.type}, expected one of {', '.join(DTYPE_OF_ORT)}")
    return {
        node.name: TensorSpec(
            tuple(extent if isinstance(extent, int) else -1 for extent in node.shape),
            DTYPE_OF_ORT[node.type],  # type: ignore[arg-type]
        )
        for node in nodes
    }


def dimension_names_of(nodes: Sequence[NodeArg]) -> DimensionNames:
    """Names of dynamic dimensions. The ONNX IR gives dimensions of one name one size."""
    return {node.name: tuple(extent if isinstance(extent, str) else "" for extent in node.shape) for node in nodes}


def error_of_resource(subject: str, error: Exception) -> C7Error | None:
    """What an error says of the memory or the device; None where it says nothing of either.

    `subject` is the model or file. A load that runs out of memory is a `Fail` with `std::bad_alloc` in its text.
    """
    text = str(error).strip()
    found = error_of_cuda(subject, text)
    if found is None and (isinstance(error, MemoryError) or any(mark in text for mark in _OUT_OF_MEMORY)):
        return OutOfMemoryError(f"{subject}: {printable(text, TEXT_MAX_CHARS) or 'out of memory'}")
    return found


def error_of_run(model: str, error: Exception) -> C7Error:
    """Which typed error a failed `run` is, by class and text.

    An InvalidArgument is raised before anything ran, unless the text names the node that was running.
    """
    found = error_of_resource(model, error)
    if found is not None:
        return found
    text = str(error).strip()
    shown = printable(text, TEXT_MAX_CHARS)
    if type(error).__name__ == "InvalidArgument" and "while running" not in text:
        return InvalidInputError(f"{model}: ONNX Runtime refused the inputs: {shown}")
    return InferenceError(f"{model}: {type(error).__name__}: {shown}")


def _unavailable(provider: Provider, reason: str) -> RuntimeNotAvailableError:
    version = import_onnxruntime().__version__
    return RuntimeNotAvailableError(
        f"onnx_trt_ep[{provider}]: ONNX Runtime {version} cannot run its {PROVIDER_NAMES[provider]} here: {reason}."
        " Put what is missing (CUDA, cuDNN, and for tensorrt TensorRT, in the versions that this build asks for) on"
        ' the library path, or configure another provider; provider = "cpu" runs anywhere'
    )


def _missing_library(provider: Provider) -> str:
    """What the loader says about the provider's library, "" where it loads: ONNX Runtime only logs it."""
    package = import_onnxruntime().__file__
    if package is None or provider not in _PROVIDER_LIBRARIES:
        return ""
    try:
        ctypes.CDLL(str(Path(package).parent / "capi" / _PROVIDER_LIBRARIES[provider]))
    except OSError as error:
        return str(error)
    return ""
