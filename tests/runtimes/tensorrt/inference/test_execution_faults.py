"""A run that fails: what it is called, and what is left of it on the device, in the engine and in the next run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from messages import (
    C7Error,
    DeviceContextError,
    DeviceFaultError,
    EngineDeserializeError,
    InferenceError,
    InvalidInputError,
    OutOfMemoryError,
    TransientInferenceError,
)
from runtimes.cuda.port import Cuda
from runtimes.tensorrt.inference.activation_memory import ActivationMemory
from runtimes.tensorrt.inference.execution import Execution
from tests.runtimes.tensorrt import models
from tests.runtimes.tensorrt.engines import ROWS, SCALE, Profile, Ready, assert_same, rows, to_device

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device
    from tests.doubles.tensorrt.core import Core

WORDS = "Error Code 9: Internal Error (it is the weather)"
INPUTS: dict[str, Any] = {"x": rows(3), "scale": SCALE}
OTHERS: Mapping[str, np.ndarray] = {"x": rows(5), "scale": SCALE}
LATE: Mapping[str, np.ndarray] = {"x": np.array([[1, 0, 2]] * 6, np.float32)}


def assert_works(engine: Execution, data: bytes, inputs: Mapping[str, np.ndarray]) -> None:
    assert_same(engine.run(inputs), models.answers(data, dict(inputs)))


# A run on a device that is short of memory.


def nth(function: Callable[[int], None]) -> int:
    """Calls it with 0, 1, ... until it fails no more; how often it did."""
    for count in range(200):
        try:
            function(count)
        except OutOfMemoryError:
            continue
        return count
    raise AssertionError("expected an end of what can be short of memory")


@pytest.mark.parametrize("call", ["cudaMalloc", "cudaHostAlloc"])
@pytest.mark.parametrize(
    ("data", "graphs"), [(models.dynamic(), ({"x": (3, 3)},)), (models.where_nonzero(), ())], ids=["graphs", "late"]
)
def test_an_engine_that_finds_no_memory_at_any_step_leaves_nothing_behind(
    ready: Ready, device: Device, call: str, data: bytes, graphs: Any
) -> None:
    before = device.live()

    def attempt(count: int) -> None:
        assert device.live() == before
        device.fail(call, 2, after=count)
        ready(data, ROWS, graphs=graphs)
        device._failures.clear()

    assert nth(attempt) >= 3


def test_an_output_for_which_there_is_no_memory_costs_the_run_alone(ready: Ready, device: Device) -> None:
    engine = ready(models.where_nonzero(), ROWS)
    device.fail("cudaMalloc", 2)
    with pytest.raises(OutOfMemoryError, match=r"^cuda:0: cudaMalloc: out of memory"):
        engine.run(LATE)
    assert_works(engine, models.where_nonzero(), LATE)


def test_a_device_output_for_which_there_is_no_memory_leaves_none_of_the_others(
    ready: Ready, cuda: Cuda, device: Device
) -> None:
    engine = ready(models.dynamic(), ROWS)
    given = {name: to_device(cuda, device, array) for name, array in INPUTS.items()}
    before = device.live()
    device.fail("cudaMalloc", 2, after=2)
    with pytest.raises(OutOfMemoryError):
        engine.run(given)
    assert device.live() == before
    assert_works(engine, models.dynamic(), INPUTS)


def test_memory_that_tensorrt_itself_finds_too_little_of_is_told_in_its_words(ready: Ready, core: Core) -> None:
    engine = ready(models.dynamic(), ROWS)
    core.fail("execute_async_v3", "Error Code 2: OutOfMemory (Requested size was 4194304 bytes.)")
    with pytest.raises(OutOfMemoryError, match=r"^m: Error Code 2: OutOfMemory \(Requested size was 4194304 bytes"):
        engine.run(INPUTS)
    assert_works(engine, models.dynamic(), INPUTS)


# A call of TensorRT that fails.


@pytest.mark.parametrize(
    ("call", "after"),
    [
        ("set_input_shape", 0),
        ("set_input_shape", 1),
        ("get_tensor_shape", 0),
        ("get_tensor_shape", 1),
        ("get_tensor_shape", 2),
        ("execute_async_v3", 0),
    ],
)
def test_a_call_that_fails_in_a_run_costs_that_run_alone(ready: Ready, core: Core, call: str, after: int) -> None:
    engine = ready(models.dynamic(), ROWS)
    assert_works(engine, models.dynamic(), OTHERS)
    core.fail(call, WORDS, after=after)
    with pytest.raises(InferenceError, match=rf"^m: {call}\b.* failed: Error Code 9: Internal Error \(it is the"):
        engine.run(INPUTS)
    assert_works(engine, models.dynamic(), {"x": -OTHERS["x"], "scale": SCALE})
    assert_works(engine, models.dynamic(), INPUTS)


CALLS = [
    ("create_execution_context", 0, EngineDeserializeError),
    ("set_input_shape", 0, InferenceError),
    ("get_tensor_shape", 3, InferenceError),  # the first three describe the engine
    ("set_tensor_address", 0, InferenceError),
    ("set_output_allocator", 0, InferenceError),
    ("set_device_memory", 0, InferenceError),
    ("execute_async_v3", 0, InferenceError),
]


@pytest.mark.parametrize(("call", "after", "kind"), CALLS)
@pytest.mark.parametrize(
    ("words", "expected"), [(WORDS, "it is the weather"), ("", "TensorRT says no reason|deviceMemory != nullptr")]
)
def test_a_call_that_fails_while_an_engine_is_made_ready_leaves_nothing_behind(
    ready: Ready, device: Device, core: Core, call: str, after: int, kind: type[C7Error], words: str, expected: str
) -> None:
    before = device.live()
    core.fail(call, words, after=after)
    with pytest.raises(kind, match=expected):
        ready(models.where_nonzero(), ROWS)
    assert device.live() == before


def test_what_is_said_in_the_log_of_a_context_that_was_not_made_is_heard(
    ready: Ready, trt: ModuleType, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_engine: Any, _strategy: Any) -> None:
        log.log(trt.ILogger.Severity.ERROR, "Error Code 2: OutOfMemory (no further information)")

    monkeypatch.setattr(trt.ICudaEngine, "create_execution_context", fails)
    with pytest.raises(OutOfMemoryError, match=r"^m: Error Code 2: OutOfMemory \(no further information\)"):
        ready(models.dynamic(), ROWS)


class Kept:
    """A tensor on the device that its producer keeps to itself."""

    dtype = np.dtype(np.float32)

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, *, stream: object = None) -> object:
        raise BufferError("it needs a gradient")


def test_an_input_that_is_not_given_away_is_refused_by_name_and_nothing_is_under_way(
    ready: Ready, cuda: Cuda, device: Device
) -> None:
    engine = ready(models.dynamic(), ROWS)
    before = device.live()
    for inputs in (INPUTS | {"x": Kept(3, 3)}, INPUTS | {"scale": Kept(3)}):
        with pytest.raises(InvalidInputError, match="its producer does not give it away: BufferError: it needs a gr"):
            engine.run(inputs)
        assert device.queued() == 0
        assert device.live() == before
    assert_works(engine, models.dynamic(), INPUTS)


def test_an_error_that_was_recorded_counts_though_every_call_said_that_it_succeeded(ready: Ready, core: Core) -> None:
    engine = ready(models.dynamic(), ROWS)
    core.fail("execute_async_v3", WORDS, goes_on=True)
    with pytest.raises(InferenceError, match="it is the weather"):
        engine.run(INPUTS)
    assert_works(engine, models.dynamic(), INPUTS)


def test_device_memory_that_tensorrt_did_not_take_is_given_again_in_the_next_run(
    ready: Ready, cuda: Cuda, core: Core
) -> None:
    shared = ActivationMemory(cuda)
    engine = ready(models.dynamic(), ROWS, activations=shared, activation_bytes=1024)
    larger = ready(models.static(), activations=shared, activation_bytes=4096)
    core.fail("set_device_memory", WORDS)
    with pytest.raises(InferenceError, match=r"^m: set_device_memory failed: Error Code 9"):
        engine.run(INPUTS)
    assert_works(engine, models.dynamic(), INPUTS)
    larger.close()


def test_work_that_could_not_be_waited_for_is_waited_for_before_its_memory_goes(
    ready: Ready, device: Device, core: Core
) -> None:
    engine = ready(models.dynamic(), ROWS)
    core.fail("set_input_shape", WORDS, after=1)
    device.fail("cudaStreamSynchronize", 1)
    with pytest.raises(InferenceError, match="it is the weather"):
        engine.run(INPUTS)
    assert device.queued() > 0
    engine.close()  # what is used after its free is a misuse, for which the device looks
    assert device.queued() == 0


# A device that answers no more.


@pytest.mark.parametrize(
    ("code", "kind", "after"),
    [
        (700, DeviceFaultError, DeviceFaultError),
        (719, DeviceFaultError, DeviceFaultError),
        (709, DeviceContextError, DeviceFaultError),
    ],
)
def test_an_error_of_the_device_belongs_to_the_run_that_met_it_and_to_all_after_it(
    ready: Ready, device: Device, code: int, kind: type[C7Error], after: type[C7Error]
) -> None:
    """The context that each run asks for cannot be made anew."""
    engine, other = ready(models.dynamic(), ROWS), ready(models.where_nonzero(), ROWS)
    device.fail("work", code, after=1)
    with pytest.raises(kind, match=rf"\({code}\): e"):
        engine.run(INPUTS)
    for each, inputs in ((engine, OTHERS), (other, LATE)):
        with pytest.raises(after):
            each.run(inputs)
    with pytest.raises(kind):
        engine.close()
    engine.close()


def test_an_error_that_passes_costs_its_run_alone(ready: Ready, device: Device) -> None:
    engine = ready(models.dynamic(), ROWS)
    device.fail("work", 701)
    with pytest.raises(InferenceError, match="too many resources requested for launch"):
        engine.run(INPUTS)
    assert_works(engine, models.dynamic(), OTHERS)


def test_what_tensorrt_says_of_the_device_is_believed(ready: Ready, core: Core) -> None:
    engine = ready(models.dynamic(), ROWS)
    core.fail("execute_async_v3", "Error Code 1: Cuda Runtime (an illegal memory access was encountered)")
    with pytest.raises(DeviceFaultError, match=r"^m: Error Code 1: Cuda Runtime"):
        engine.run(INPUTS)
    core.fail("execute_async_v3", "Error Code 1: Cuda Runtime (too many resources requested for launch)")
    with pytest.raises(TransientInferenceError):
        engine.run(INPUTS)


def test_a_device_that_is_lost_is_found_behind_other_words(ready: Ready, core: Core, device: Device) -> None:
    engine = ready(models.dynamic(), ROWS)
    core.fail("execute_async_v3", "Error Code 4: Internal Error")
    device.fail("cudaMemsetAsync", 700)  # which is how the device is asked whether it answers
    with pytest.raises(DeviceFaultError, match=r"it was found after: m: execute_async_v3 failed: Error Code 4"):
        engine.run(INPUTS)


# An engine that was put away.


def test_an_engine_that_was_put_away_runs_no_more_and_takes_nothing(ready: Ready, cuda: Cuda, device: Device) -> None:
    shared = ActivationMemory(cuda)
    engine, other = (ready(models.dynamic(), ROWS, activations=shared) for _ in range(2))
    engine.close()
    before = device.live()
    with pytest.raises(InferenceError, match=r"^m: expected an engine that is ready, found one that was put away"):
        engine.run({"x": rows(6), "scale": SCALE})
    assert device.live() == before
    assert_works(other, models.dynamic(), INPUTS)


def test_a_profile_whose_points_do_not_go_together_is_refused_by_the_point(ready: Ready) -> None:
    profile: Profile = (("a", (1, 3), (2, 3), (4, 3)), ("b", (1, 3), (3, 3), (4, 3)))
    with pytest.raises(EngineDeserializeError, match=r"its profile's opt shapes cannot be run: .*compile it again$"):
        ready(models.added(), profile)
