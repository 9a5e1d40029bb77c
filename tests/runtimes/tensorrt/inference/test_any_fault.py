"""Whatever fails at whatever call: a run gives the model's result or a typed error, and in the end nothing is left."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messages import C7Error
from runtimes.cuda.cuda_bindings import open_cuda
from runtimes.tensorrt.inference.activation_memory import ActivationMemory
from runtimes.tensorrt.inference.engine import EngineLoader
from runtimes.tensorrt.inference.execution import Execution
from runtimes.tensorrt.log import TensorrtLog
from tests.runtimes.tensorrt import models
from tests.runtimes.tensorrt.engines import ROWS, SCALE, MakePlan, assert_same

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device
    from tests.doubles.tensorrt.core import Core

# Not cudaStreamSynchronize: a failure of it that is not "work" would leave work of which nobody ever knows its end.
OF_CUDA = (
    "cudaMalloc",
    "cudaHostAlloc",
    "cudaMemcpyAsync",
    "cudaStreamCreateWithFlags",
    "cudaStreamBeginCapture",
    "cudaStreamEndCapture",
    "cudaGraphInstantiateWithFlags",
    "cudaGraphLaunch",
    "cudaSetDevice",
    "work",
)
OF_TENSORRT = (
    "deserialize_cuda_engine",
    "create_execution_context",
    "set_input_shape",
    "get_tensor_shape",
    "set_tensor_address",
    "set_output_allocator",
    "set_device_memory",
    "execute_async_v3",
)


class Fault(NamedTuple):
    """One call of this name fails, after so many that do not."""

    call: str
    after: int
    code: int
    text: str

    def inject(self, device: Device, core: Core) -> None:
        if self.call in OF_CUDA:
            device.fail(self.call, self.code, after=self.after)
        else:
            core.fail(self.call, self.text, after=self.after)


FAULTS = st.builds(
    Fault,
    st.sampled_from(OF_CUDA + OF_TENSORRT),
    st.integers(0, 12),
    st.sampled_from([1, 2, 700, 701, 709]),
    st.sampled_from(["", "Error Code 9: Internal Error", "Error Code 2: OutOfMemory (Requested size was 8 bytes.)"]),
)


def of_dynamic(count: int) -> dict[str, np.ndarray]:
    return {"x": np.arange(count * 3, dtype=np.float32).reshape(count, 3) % 4, "scale": SCALE * count}


def of_nonzero(count: int) -> dict[str, np.ndarray]:
    return {"x": of_dynamic(count)["x"]}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(
    faults=st.lists(FAULTS, min_size=1, max_size=4),
    counts=st.lists(st.integers(0, 6), max_size=4),
    is_late=st.booleans(),
    graphs=st.sampled_from([[], [{"x": (2, 3)}]]),
)
def test_a_fault_anywhere_is_a_typed_error_and_leaves_nothing(
    trt: ModuleType,
    log: TensorrtLog,
    device: Device,
    core: Core,
    make_plan: MakePlan,
    faults: list[Fault],
    counts: list[int],
    is_late: bool,
    graphs: list[dict[str, tuple[int, ...]]],
) -> None:
    device.reset()
    core.reset()
    cuda = open_cuda(0)
    before = device.live()
    data, inputs = (models.where_nonzero(), of_nonzero) if is_late else (models.dynamic(), of_dynamic)
    plan = make_plan(data, ROWS)
    loader = EngineLoader(trt, log, cuda)
    for fault in faults:
        fault.inject(device, core)
    try:
        loaded = loader.load("m.engine", "m", plan)
        engine = Execution(trt, cuda, loaded, ActivationMemory(cuda), ROWS, graphs)
        for count in counts:
            fly(engine, data, inputs(count))
        engine.close()
    except C7Error:
        pass
    loaded = engine = None  # type: ignore[assignment]
    assert device.misuses() == []
    if device.answers:
        assert device.live() == before
        cuda.close()


def fly(engine: Execution, data: bytes, inputs: dict[str, np.ndarray]) -> None:
    try:
        found = engine.run(inputs)
    except C7Error:
        return
    assert_same(found, models.answers(data, inputs))
