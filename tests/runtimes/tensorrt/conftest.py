"""Engines of small models on the double of TensorRT, loaded and run by the product's own classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from messages import C7Error
from runtimes.cuda.port import Cuda
from runtimes.cuda.release import release_all
from runtimes.tensorrt.activation_memory import ActivationMemory
from runtimes.tensorrt.engine import EngineLoader, LoadedEngine
from runtimes.tensorrt.execution import Execution
from runtimes.tensorrt.log import TensorrtLog, process_log
from tests.runtimes.tensorrt.engines import Load, MakePlan, Profile, Ready

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
