"""Engines of small models on the double of TensorRT, loaded and run by the product's own classes and its runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from messages import C7Error
from runtimes.config import C7InferenceConfig, TensorrtSection
from runtimes.cuda.port import Cuda
from runtimes.cuda.release import release_all
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.tensorrt.inference.activation_memory import ActivationMemory
from runtimes.tensorrt.inference.engine import EngineLoader, LoadedEngine
from runtimes.tensorrt.inference.execution import Execution
from runtimes.tensorrt.log import TensorrtLog, process_log
from runtimes.tensorrt_runtime import TensorrtRuntime
from tests.runtimes.tensorrt.engines import Load, MakePlan, Profile, Ready
from tests.runtimes.tensorrt.runtimes import FP16, MakeRuntime

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device


@pytest.fixture
def log(trt: ModuleType) -> TensorrtLog:
    return process_log(trt)


@pytest.fixture
def make_plan(trt: ModuleType) -> MakePlan:
    """`make_plan(onnx, profile, **fields)`: the bytes of an engine of this TensorRT."""

    def make(onnx: bytes, profile: Profile = (), **fields: Any) -> bytes:
        fields.setdefault("profiles", (profile,))
        made: bytes = trt.plan.encode(trt.plan.Plan(onnx=onnx, **fields), trt.CORE.version)
        return made

    return make


@pytest.fixture
def loader(trt: ModuleType, log: TensorrtLog, cuda: Cuda) -> EngineLoader:
    return EngineLoader(trt, log, cuda)


@pytest.fixture
def load(loader: EngineLoader, make_plan: MakePlan) -> Load:
    """`load(onnx, profile, **fields)`: an engine of `m.engine`, called m in its runs."""

    def load(onnx: bytes, profile: Profile = (), **fields: Any) -> LoadedEngine:
        return loader.load("m.engine", "m", make_plan(onnx, profile, **fields))

    return load


@pytest.fixture
def ready(trt: ModuleType, cuda: Cuda, device: Device, load: Load) -> Iterator[Ready]:
    """`ready(onnx, profile, graphs=...)`: an engine that was warmed up. All of them are closed at the end."""
    made: list[Execution] = []

    def make(
        onnx: bytes,
        profile: Profile = (),
        *,
        graphs: Sequence[Mapping[str, tuple[int, ...]]] = (),
        activations: ActivationMemory | None = None,
        **fields: Any,
    ) -> Execution:
        own = ActivationMemory(cuda) if activations is None else activations
        made.append(Execution(trt, cuda, load(onnx, profile, **fields), own, profile, graphs))
        return made[-1]

    yield make
    try:
        release_all(each.close for each in made)
    except C7Error:
        if device.answers:
            raise
    made.clear()


@pytest.fixture
def on_thread() -> Callable[[Callable[[], Any]], Any]:
    """Calls a function on a thread of its own, waits for it, and gives back or raises what it did."""

    def call(function: Callable[[], Any]) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(function).result(timeout=60)

    return call


@pytest.fixture
def make_runtime(trt: ModuleType, device: Device) -> Iterator[MakeRuntime]:
    """`make_runtime(**section)`: a runtime with this table of its own. At the end nothing is left on the device."""
    pytest.importorskip("onnxruntime")
    made: list[TensorrtRuntime] = []

    def make(**section: Any) -> TensorrtRuntime:
        table = TensorrtSection(**{"builder": "api", **section})
        made.append(TensorrtRuntime(C7InferenceConfig(runtime="tensorrt", tensorrt=table)))
        return made[-1]

    yield make
    if device.answers:
        release_all(runtime._cuda.close for runtime in made)
        assert device.live() == []


@pytest.fixture
def entry(make_runtime: MakeRuntime, descriptor_onnx: Path) -> EngineCacheEntry:
    return make_runtime().compile_engine(descriptor_onnx, FP16)
