"""The simple baseline: a `torch.export` program in real fp16, on the CPU or on one CUDA device."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from messages import (
    C7Error,
    EngineBuildError,
    EngineDeserializeError,
    OutOfMemoryError,
    Tensor,
    TensorSpec,
    ThermalFeed,
    ThermalState,
)
from runtimes.config import C7InferenceConfig
from runtimes.cuda.device_tensor import check_devices, on_cuda
from runtimes.exported_model import ExportedModelError, audit_fp16, describe_exported, open_exported
from runtimes.host import detect_host
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry, EngineHandle
from runtimes.no_thermal_feed import NoThermalFeed
from runtimes.pytorch_device import import_torch, require_cuda
from runtimes.pytorch_errors import error_of_resource, error_of_run
from runtimes.pytorch_handle import PytorchHandle
from runtimes.resident_engines import ResidentEngines
from runtimes.source_model import read_source
from runtimes.store.engine_artifact import ReadEngine, read_engine, read_verified
from runtimes.store.engine_writer import BuiltEngine, write_engine
from runtimes.tensor_check import check_inputs, check_profile

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    Run = Callable[[list[torch.Tensor]], list[torch.Tensor]]

_RUN_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError, MemoryError)
"""What the operations of a program raise; CUDA's errors are RuntimeErrors."""


class PytorchFp16Runtime:
    """`InferenceRuntime` on PyTorch. Its sources are `.pt2` programs that were exported in fp16.

    The engine is the `.pt2` itself: compiling audits it, loading opens the verified bytes. NumPy in, NumPy out; on
    CUDA also device tensors in, device tensors out, never through the host. `config.threads` sets torch's thread
    count, which holds for the whole process. Raises RuntimeNotAvailableError where torch or the device is missing.
    """

    def __init__(
        self, config: C7InferenceConfig, thermal: ThermalFeed | None = None, read: ReadEngine = read_verified
    ) -> None:
        self._torch = import_torch()
        if config.device == "cuda":
            require_cuda(self._torch, config.device_index)
        self._device = "cpu" if config.device == "cpu" else f"cuda:{config.device_index}"
        self._label = f"pytorch_fp16[{self._device}]"
        self._engine_dir = config.engine_dir
        self._room_bytes = config.storage_room_bytes
        self._thermal = thermal if thermal is not None else NoThermalFeed()
        self._read = read
        self._host = detect_host(str(self._torch.__version__), device_index=config.device_index)
        self._resident: ResidentEngines[PytorchHandle] = ResidentEngines()
        self._torch.set_num_threads(config.threads)

    def compile_engine(self, model_path: Path, build_config: BuildConfig) -> EngineCacheEntry:
        """Audit a `.pt2` and keep it as the engine. `workspace_mb` has no meaning here."""
        self._resident.refuse_compile(model_path)
        if build_config.precision != "fp16":
            raise EngineBuildError(
                f"{model_path}: pytorch_fp16 does precision fp16 only, got {build_config.precision}; set precision ="
                ' "fp16" or configure another runtime'
            )
        source = read_source(model_path, suffix=".pt2")
        began_ns = time.monotonic_ns()
        try:
            program = open_exported(source.data)
            model = describe_exported(program)
            audit_fp16(program)
        except ExportedModelError as error:
            found = error_of_resource(str(model_path), error)
            raise (found or EngineBuildError(f"{model_path}: {error}")) from error
        check_profile(model_path.stem, model.inputs, build_config.optimization_profiles, limits=model.limits)
        return write_engine(
            self._engine_dir if self._engine_dir is not None else model_path.parent / "engines",
            model_path.stem,
            source,
            BuiltEngine(
                data=source.data,
                inputs=model.inputs,
                outputs=model.outputs,
                build_tool=f"torch {self._torch.__version__}",
            ),
            build_config,
            self._label,
            self._host,
            time.monotonic_ns() - began_ns,
            room_bytes=self._room_bytes,
        )

    def deserialize_engine(self, entry: EngineCacheEntry) -> PytorchHandle:
        where = str(entry.path)
        failure: C7Error
        try:
            return self._resident.admit(self._opened(entry))
        except (ExportedModelError, RuntimeError, MemoryError) as error:
            refused = EngineDeserializeError(f"{where}: {error}")
            failure = error_of_resource(where, error) or refused
            traceback.clear_frames(error.__traceback__)  # they hold the file and what was loaded of it
        if isinstance(failure, OutOfMemoryError):
            gc.collect()  # what was loaded holds itself; a load stalls other threads anyway
            self._give_back(where)
        raise failure

    def suspend_engine(self, handle: EngineHandle) -> None:
        """Keeps the program, on CUDA with its weights on the device; torch's cached activations are given back."""
        self._resident.suspend(handle).suspend()
        self._give_back(handle.entry.model)

    def resume_engine(self, handle: EngineHandle) -> PytorchHandle:
        return self._resident.resume(handle, PytorchHandle.resumed)

    def infer(self, handle: EngineHandle, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        engine = self._resident.require(handle)
        name = engine.entry.model
        on_host = self._device == "cpu" or not any(on_cuda(tensor) for tensor in inputs.values())
        check_inputs(
            name,
            engine.model.inputs,
            engine.profile,
            inputs,
            dimension_names=engine.model.dimension_names,
            host_only=on_host,
        )
        if not on_host:
            check_devices(name, inputs, self._device)
        failure: C7Error
        try:
            return self._run(engine, inputs, on_host=on_host)
        except _RUN_ERRORS as error:
            failure = error_of_run(name, error)
            traceback.clear_frames(error.__traceback__)  # they hold the tensors of the failed run
        if isinstance(failure, OutOfMemoryError):
            self._give_back(name)
        raise failure

    def release_engine(self, handle: EngineHandle) -> None:
        engine = self._resident.dismiss(handle)
        if engine is not None:
            engine.release()
            self._give_back(engine.entry.model)

    def thermal_state(self) -> ThermalState:
        return self._thermal.thermal_state()

    def current_runtime_label(self) -> str:
        return self._label

    def _give_back(self, subject: str) -> None:
        """Give what torch caches back to the device. Raises DeviceFaultError where CUDA answers no more."""
        if self._device == "cpu":
            return
        try:
            self._torch.cuda.empty_cache()
        except RuntimeError as error:
            raise error_of_run(subject, error) from error

    def _opened(self, entry: EngineCacheEntry) -> PytorchHandle:
        data = read_engine(entry, runtime_label=self._label, host=self._host, read=self._read)
        program = open_exported(data)
        model = describe_exported(program)
        if (model.inputs, model.outputs) != (entry.inputs, entry.outputs):
            raise EngineDeserializeError(
                f"{entry.path}: expected inputs and outputs as recorded ({_listed(entry.inputs)} -> "
                f"{_listed(entry.outputs)}), found {_listed(model.inputs)} -> {_listed(model.outputs)}"
            )
        given = entry.build_config.optimization_profiles
        named = {name for name, *_ in given}
        profile = given + tuple(limit for limit in model.limits if limit[0] not in named)
        return PytorchHandle(entry, model, profile, *self._runner(entry, program))

    def _runner(self, entry: EngineCacheEntry, program: ExportedProgram) -> tuple[Run, list[torch.Tensor]]:
        """The program on its device, and every tensor that it brought there."""
        from torch.utils import _pytree as pytree

        if self._device != "cpu":
            program = _moved(program, entry, self._device)
        module = program.module()
        structure = program.call_spec.in_spec
        stored = (*program.state_dict.values(), *program.constants.values(), *module.parameters(), *module.buffers())
        weights = {id(value): value for value in stored if isinstance(value, self._torch.Tensor)}

        def run(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
            arguments, keywords = pytree.tree_unflatten(tensors, structure)
            leaves: list[torch.Tensor] = pytree.tree_leaves(module(*arguments, **keywords))
            return leaves

        return run, list(weights.values())

    def _run(self, engine: PytorchHandle, inputs: Mapping[str, Tensor], *, on_host: bool) -> dict[str, Tensor]:
        given = [inputs[name] for name in engine.model.inputs]
        with engine.running() as run, self._torch.inference_mode():
            # Copies both ways: a program may write its inputs or return views of them or of its own weights.
            results = run([self._adopt(tensor) for tensor in given])
            copies: list[Tensor]
            if on_host:
                copies = [result.to("cpu", copy=True).contiguous().numpy() for result in results]
            else:
                copies = [result.clone(memory_format=self._torch.contiguous_format) for result in results]
                self._torch.cuda.current_stream(self._device).synchronize()
        return dict(zip(engine.model.outputs, copies, strict=True))

    def _adopt(self, tensor: Tensor) -> torch.Tensor:
        if isinstance(tensor, np.ndarray):
            host: torch.Tensor = self._torch.from_numpy(np.array(tensor, order="C", copy=True))
            return host.to(self._device)
        shared = tensor if isinstance(tensor, self._torch.Tensor) else self._torch.from_dlpack(tensor)
        copied: torch.Tensor = shared.clone(memory_format=self._torch.contiguous_format)
        return copied


def _moved(program: ExportedProgram, entry: EngineCacheEntry, device: str) -> ExportedProgram:
    try:
        from torch.export.passes import move_to_device_pass
    except ImportError as error:
        raise EngineDeserializeError(
            f"{entry.path}: this torch cannot move an exported program to {device} (2.7 and newer can)"
        ) from error
    moved: ExportedProgram = move_to_device_pass(program, device)
    return moved


def _listed(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(f"{name} {spec}" for name, spec in specs.items())
