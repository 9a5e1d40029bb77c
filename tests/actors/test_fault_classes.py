"""What each class of faults costs in flight: who is told what, who goes down, who flies on."""

from __future__ import annotations

import numpy as np
import pytest

from actors import RestartPolicy
from actors.stepped import SteppedWorld, stepped
from messages import (
    FAULT_CLASSES,
    C7Error,
    CorruptEngineError,
    DeviceContextError,
    DeviceFaultError,
    EngineDeserializeError,
    EngineDied,
    EngineHung,
    EngineLoaded,
    EngineLoadFailed,
    EngineQuarantined,
    FaultClass,
    InferCompleted,
    InferenceError,
    InferRejected,
    InvalidInputError,
    Outcome,
    OutOfMemoryError,
    ProcessRestartNeeded,
    SelfTestError,
    TransientInferenceError,
    classify_fault,
)
from runtimes import EngineCacheEntry, FakeRuntime, computes, fails_to_load, raises, returns, takes_ms
from runtimes.fake_runtime import FakeHandle
from runtimes.fake_steps import Step, loads

IMAGE = {"image": np.ones(4, np.float32)}
RESULT = {"y": np.ones(4, np.float32)}
FINE = returns(RESULT)


def crash(error: BaseException) -> Step:
    """As `raises`, for errors that are no error's child: a step that is computed may raise anything."""

    def compute(_inputs: object) -> dict[str, np.ndarray]:
        raise error

    return computes(compute)


def fly(*steps: Step, bystander: Step = FINE, **options: object) -> SteppedWorld:
    """One engine with a script, and one beside it that has nothing to do with it."""
    return stepped(FakeRuntime({"vpr": steps, "match": bystander}), **options)  # type: ignore[arg-type]


def ask(world: SteppedWorld, model: str = "vpr", within_ms: float = 300.0) -> Outcome:
    return world.client.infer(model, IMAGE, within_ms=within_ms, frame_id=1)


def reason(outcome: Outcome) -> str:
    return outcome.reason if isinstance(outcome, InferRejected) else "completed"


def generations(world: SteppedWorld) -> dict[str, int]:
    return {model: each.generation for model, each in world.statistics().items()}


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (InvalidInputError("x"), "bad_input"),
        (TransientInferenceError("x"), "transient_fault"),
        (OutOfMemoryError("x"), "out_of_memory"),
        (MemoryError("x"), "out_of_memory"),
        (InferenceError("x"), "engine_fault"),
        (SelfTestError("x"), "engine_fault"),
        (EngineDeserializeError("x"), "engine_fault"),
        (C7Error("x"), "engine_fault"),
        (DeviceContextError("x"), "context_fault"),
        (DeviceFaultError("x"), "device_fault"),
        (CorruptEngineError("x"), "corrupt_engine"),
        (ValueError("x"), "programming_error"),
        (SystemExit(3), "programming_error"),
        (KeyboardInterrupt(), "programming_error"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_error_has_one_class(error: BaseException, fault: FaultClass) -> None:
    assert classify_fault(error) == fault
    assert fault in FAULT_CLASSES


# A fault that stays with its request.


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InvalidInputError("a shape"), "invalid_input"),
        (TransientInferenceError("busy"), "inference_error"),
        (OutOfMemoryError("2 GiB"), "out_of_memory"),
        (MemoryError("2 GiB"), "out_of_memory"),
    ],
)
def test_a_fault_of_one_request_is_told_and_counted_and_the_engine_lives(error: BaseException, told: str) -> None:
    with fly(crash(error), FINE) as world:
        outcome = ask(world)
        assert reason(outcome) == told
        assert isinstance(outcome, InferRejected)
        assert str(error) in outcome.detail
        assert outcome.inputs_released
        assert reason(ask(world)) == "completed"
        assert generations(world) == {"vpr": 1, "match": 1}
        assert world.statistics()["vpr"].faults == {classify_fault(error): 1}


def test_bad_inputs_in_any_number_never_cost_the_engine() -> None:
    with fly(*[raises(InvalidInputError("a shape"))] * 50, FINE) as world:
        assert {reason(ask(world)) for _ in range(50)} == {"invalid_input"}
        assert generations(world)["vpr"] == 1


def test_the_second_time_in_a_row_that_memory_runs_out_restarts_the_engine() -> None:
    with fly(*[raises(OutOfMemoryError("2 GiB"))] * 2, FINE) as world:
        assert [reason(ask(world)) for _ in range(3)] == ["out_of_memory", "out_of_memory", "engine_unavailable"]
        world.advance_ms(100)
        outcome = ask(world)
        assert isinstance(outcome, InferCompleted)
        assert outcome.generation == 2


def test_memory_that_runs_out_now_and_then_never_costs_the_engine() -> None:
    with fly(*[raises(OutOfMemoryError("2 GiB")), FINE] * 10) as world:
        assert [reason(ask(world)) for _ in range(20)] == ["out_of_memory", "completed"] * 10
        assert generations(world)["vpr"] == 1


def test_the_fourth_transient_fault_in_a_row_is_one_of_the_engine() -> None:
    with fly(*[raises(TransientInferenceError("busy"))] * 4, FINE) as world:
        assert {reason(ask(world)) for _ in range(4)} == {"inference_error"}
        world.advance_ms(100)
        assert generations(world)["vpr"] == 2
        assert reason(ask(world)) == "completed"


def test_faults_of_different_classes_are_not_in_a_row() -> None:
    steps = [raises(OutOfMemoryError("2 GiB")), raises(TransientInferenceError("busy"))]
    with fly(*steps, FINE) as world:
        assert [reason(ask(world)) for _ in range(3)] == ["out_of_memory", "inference_error", "completed"]
        assert generations(world)["vpr"] == 1


# A fault that takes its engine down.


@pytest.mark.parametrize(
    "error", [InferenceError("716"), C7Error("x"), ValueError("x"), SystemExit(3), KeyboardInterrupt()], ids=repr
)
def test_a_fault_of_the_engine_restarts_it_and_touches_nobody_else(error: BaseException) -> None:
    with fly(crash(error), FINE) as world:
        assert reason(ask(world)) == "inference_error"
        assert reason(ask(world)) == "engine_unavailable"
        assert reason(ask(world, "match")) == "completed"
        world.advance_ms(100)
        assert reason(ask(world)) == "completed"
        assert generations(world) == {"vpr": 2, "match": 1}


def test_the_death_says_which_engine_generation_and_class() -> None:
    with fly(raises(InferenceError("illegal address")), FINE) as world:
        ask(world)
        world.advance_ms(100)
        assert [each for each in world.messages if isinstance(each, EngineDied)] == [
            EngineDied("vpr", 1, "illegal address", "engine_fault")
        ]


def test_what_waited_behind_the_fault_is_told_that_the_engine_is_away_and_not_that_it_failed() -> None:
    with fly(raises(InferenceError("716")), FINE) as world:
        pending = [world.client.submit("vpr", IMAGE, within_ms=300, frame_id=1) for _ in range(5)]
        world.advance_ms(1)
        assert [reason(each.result()) for each in pending] == ["inference_error"] + ["engine_unavailable"] * 4


def test_a_programming_error_that_comes_again_is_quarantined_and_the_others_fly_on() -> None:
    with fly(*[raises(ValueError("a bug"))] * 2, FINE) as world:
        assert reason(ask(world)) == "inference_error"
        world.advance_ms(100)
        assert reason(ask(world)) == "inference_error"
        world.advance_ms(100)
        outcome = ask(world)
        assert isinstance(outcome, InferRejected)
        assert outcome.reason == "engine_unavailable"
        assert "quarantined: 2 times programming_error" in outcome.detail
        assert reason(ask(world, "match")) == "completed"


# A fault of the artefact.


def test_an_engine_whose_files_are_not_what_was_signed_off_is_quarantined_for_good() -> None:
    steps = [raises(OutOfMemoryError("1")), raises(OutOfMemoryError("2")), fails_to_load(CorruptEngineError("altered"))]
    with fly(*steps, FINE) as world:
        ask(world), ask(world)
        world.advance_ms(3_600_000)
        [quarantined] = [each for each in world.messages if isinstance(each, EngineQuarantined)]
        assert quarantined.probation_in_ns == 0
        assert "altered" in quarantined.detail
        assert [each.fault for each in world.messages if isinstance(each, EngineLoadFailed)] == ["corrupt_engine"]
        assert reason(ask(world)) == "engine_unavailable"
        assert reason(ask(world, "match")) == "completed"


def test_a_restart_that_cannot_be_read_is_tried_again() -> None:
    """Bytes that cannot be read now may be readable later; bytes that are wrong stay wrong."""
    steps = [raises(OutOfMemoryError("1")), raises(OutOfMemoryError("2"))]
    failing = [fails_to_load(EngineDeserializeError("busy"))] * 2
    with fly(*steps, *failing, FINE) as world:
        ask(world), ask(world)
        world.advance_ms(1000)
        assert reason(ask(world)) == "completed"
        assert generations(world)["vpr"] == 4


# A fault of the device's context.


def test_a_lost_context_restarts_every_engine_of_the_device_in_the_order_of_priority() -> None:
    load = takes_ms(50, loads())
    lost = raises(DeviceContextError("lost"))
    fake = FakeRuntime({"a": [load, load, FINE], "b": [load, lost, load, FINE], "c": [load, load, FINE]})
    with stepped(fake, priorities={"c": 0, "b": 1, "a": 2}) as world:
        before = len(world.messages)
        assert reason(ask(world, "b")) == "inference_error"
        world.advance_ms(200)
        after = world.messages[before:]
        assert [each.model for each in after if isinstance(each, EngineLoaded)] == ["c", "b", "a"]
        died = {each.model: each.fault for each in after if isinstance(each, EngineDied)}
        assert died == dict.fromkeys("abc", "context_fault")
        assert [reason(ask(world, model)) for model in "abc"] == ["completed"] * 3


class Watched(FakeRuntime):
    """Notes what is loaded whenever an engine is to be loaded."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.loaded_before: list[tuple[str, ...]] = []

    def deserialize_engine(self, entry: EngineCacheEntry) -> FakeHandle:
        self.loaded_before.append(self.loaded)
        return super().deserialize_engine(entry)


def test_no_engine_loads_before_every_old_one_has_let_go_of_the_lost_context() -> None:
    slow = takes_ms(80, FINE)
    fake = Watched({"a": [slow, FINE], "b": [raises(DeviceContextError("lost")), FINE]})
    with stepped(fake, priorities={"a": 0, "b": 1}, runs_at_once=2) as world:
        running = world.client.submit("a", IMAGE, within_ms=300)
        ask(world, "b")
        world.advance_ms(500)
        assert isinstance(running.result(), InferCompleted), "a run that was under way may end"
    assert fake.loaded_before == [(), ("a",), (), ("a",)]


def test_a_bystanders_restart_for_the_contexts_sake_does_not_count_against_it() -> None:
    lost = raises(DeviceContextError("lost"))
    policy = RestartPolicy(max_restarts=2)
    with fly(lost, lost, FINE, policy=policy) as world:
        for _ in range(2):
            ask(world)
            world.advance_ms(200)
        assert reason(ask(world, "match")) == "completed"
        assert not [each for each in world.messages if isinstance(each, EngineQuarantined)]
        assert generations(world) == {"vpr": 3, "match": 3}


# A fault of the device, and a call that does not return.


def test_a_device_that_is_gone_takes_every_engine_along_and_asks_for_a_new_process() -> None:
    told: list[str] = []
    with fly(raises(DeviceFaultError("CUDA error 719")), FINE, on_restart_needed=told.append) as world:
        assert reason(ask(world)) == "inference_error"
        assert world.supervision.restart_needed == "CUDA error 719"
        assert told == ["CUDA error 719"]
        for model in ("vpr", "match"):
            outcome = ask(world, model)
            assert isinstance(outcome, InferRejected)
            assert outcome.reason == "engine_unavailable"
            assert outcome.detail == "process restart needed: CUDA error 719"
        world.advance_ms(3_600_000)
        assert generations(world) == {"vpr": 1, "match": 1}, "nothing is loaded into a device that is gone"
        assert [each for each in world.messages if isinstance(each, ProcessRestartNeeded)] == [
            ProcessRestartNeeded("CUDA error 719", "device_fault")
        ]


def test_two_reasons_for_a_new_process_are_told_once() -> None:
    told: list[str] = []
    gone = raises(DeviceFaultError("gone"))
    with fly(gone, bystander=gone, on_restart_needed=told.append, runs_at_once=2) as world:
        for model in ("vpr", "match"):
            world.client.submit(model, IMAGE, within_ms=300)
        world.advance_ms(1000)
        assert told == ["gone"]
        assert not [each for each in world.messages if isinstance(each, EngineHung)]


@pytest.mark.parametrize("runs_at_once", [1, 2])
def test_an_engine_that_finds_the_device_gone_while_its_context_is_given_up_asks_for_a_new_process(
    runs_at_once: int,
) -> None:
    gone = takes_ms(80, raises(DeviceFaultError("CUDA error 719")))
    lost = takes_ms(10, raises(DeviceContextError("lost")))
    with fly(gone, FINE, bystander=lost, runs_at_once=runs_at_once) as world:
        world.client.submit("match", IMAGE, within_ms=300)
        world.run_until_idle()
        world.client.submit("vpr", IMAGE, within_ms=300)
        world.advance_ms(1000)
        assert world.supervision.restart_needed == "CUDA error 719"
        assert {reason(ask(world, model)) for model in ("vpr", "match")} == {"engine_unavailable"}
        assert not [each for each in world.messages if isinstance(each, EngineLoaded) and each.generation > 1]


def test_a_load_that_was_given_up_and_then_finds_the_device_gone_asks_for_a_new_process() -> None:
    gone = takes_ms(5000, fails_to_load(DeviceFaultError("CUDA error 719")))
    with fly(gone, mode="recovery", load_timeout_s=2, priorities={"vpr": 0, "match": 1}) as world:
        world.advance_ms(3000)
        assert reason(ask(world, "match")) == "completed"
        assert not world.supervision.restart_needed
        world.advance_ms(3000)
        assert "CUDA error 719" in world.supervision.restart_needed
        assert reason(ask(world, "match")) == "engine_unavailable"


@pytest.mark.parametrize("seed", range(8))
def test_no_run_begins_between_a_fault_of_the_device_and_its_report(seed: int) -> None:
    gone = takes_ms(10, raises(DeviceFaultError("CUDA error 719")))
    fake = FakeRuntime({"vpr": gone, "match": FINE})
    with stepped(fake, seed=seed) as world:
        world.client.submit("vpr", IMAGE, within_ms=300)
        world.run_until_idle()
        waits = world.client.submit("match", IMAGE, within_ms=300)
        world.advance_ms(100)
        assert waits.done
        assert reason(waits.result()) == "engine_unavailable"
        assert [call.model for call in fake.calls] == ["vpr"]


def test_a_load_that_fails_is_counted_by_its_class_and_once() -> None:
    memory = fails_to_load(OutOfMemoryError("2 GiB"))
    fake = FakeRuntime({"vpr": [raises(ValueError("a bug")), memory, memory, FINE], "match": FINE})
    with stepped(fake) as world:
        ask(world, "vpr")
        world.advance_ms(1000)
        assert reason(ask(world, "vpr")) == "completed"
        assert world.statistics()["vpr"].faults == {"programming_error": 1, "out_of_memory": 2}
        assert world.statistics()["match"].faults == {}
