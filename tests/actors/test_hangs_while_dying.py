"""Calls that do not return while engines are on their way down: nobody waits for them for ever, on virtual time."""

from __future__ import annotations

import numpy as np
import pytest

from actors import RestartPolicy
from actors.stepped import SteppedWorld, stepped
from messages import (
    NS_PER_MS,
    DeviceContextError,
    DeviceFaultError,
    EngineHung,
    EngineLoadFailed,
    EngineQuarantined,
    InferenceError,
    InferRejected,
    Outcome,
)
from runtimes import EngineCacheEntry, EngineHandle, FakeRuntime, fails_to_load, raises, returns, takes_ms
from runtimes.fake_runtime import FakeHandle
from runtimes.fake_steps import Step, hangs_at_load, loads

IMAGE = {"image": np.ones(4, np.float32)}
FINE = returns({"y": np.ones(4, np.float32)})
CRASH = raises(InferenceError("the engine failed"))
ABORT = raises(ValueError("nothing of this engine is kept"))
LOST = raises(DeviceContextError("the context is lost"))


class HangsInRelease(FakeRuntime):
    """The first release does not return before `release_hung`."""

    released = False

    def suspend_engine(self, handle: EngineHandle) -> None:
        raise InferenceError("this one cannot be suspended")

    def release_engine(self, handle: EngineHandle) -> None:
        if not self.released:
            self.released = True
            self.stage.hang()
        super().release_engine(handle)


def ask(world: SteppedWorld, model: str) -> Outcome:
    return world.client.infer(model, IMAGE, within_ms=300)


def reason(outcome: Outcome) -> str:
    return outcome.reason if isinstance(outcome, InferRejected) else "completed"


def test_engines_that_lost_their_context_do_not_wait_for_ever_for_one_that_hangs_in_its_load() -> None:
    fake = FakeRuntime({"vpr": [loads(), CRASH, hangs_at_load(), FINE], "match": [LOST, FINE]})
    with stepped(fake, load_timeout_s=2.0) as world:
        ask(world, "vpr")
        world.advance_ms(100)
        assert reason(ask(world, "match")) == "inference_error"
        assert reason(ask(world, "match")) == "engine_unavailable", "vpr still holds the context that is lost"
        world.advance_ms(2000)
        assert reason(ask(world, "match")) == "completed"
        assert reason(ask(world, "vpr")) == "engine_unavailable"
        assert [each.model for each in world.messages if isinstance(each, EngineQuarantined)] == ["vpr"]
        assert [each.fault for each in world.messages if isinstance(each, EngineLoadFailed)] == ["context_fault"], (
            "one end of one start"
        )


@pytest.mark.parametrize("fault", [CRASH, LOST], ids=["of its own fault", "of a lost context"])
def test_an_engine_that_never_lets_go_of_its_device_hangs_and_a_new_process_is_asked_for(fault: Step) -> None:
    fake = HangsInRelease({"vpr": [fault, FINE], "match": FINE})
    with stepped(fake, run_limit_ms=1000.0) as world:
        assert reason(ask(world, "vpr")) == "inference_error"
        world.advance_ms(1200)
        assert [each.model for each in world.messages if isinstance(each, EngineHung)] == ["vpr"]
        for model in ("vpr", "match"):
            outcome = ask(world, model)
            assert isinstance(outcome, InferRejected)
            assert "process restart needed: vpr has not returned for 1." in outcome.detail


class CountsRuns(FakeRuntime):
    """Notes how many runs had begun when a load found the device gone."""

    runs_before = -1

    def deserialize_engine(self, entry: EngineCacheEntry) -> FakeHandle:
        try:
            return super().deserialize_engine(entry)
        except DeviceFaultError:
            self.runs_before = len(self.calls)
            raise


@pytest.mark.parametrize("seed", range(20))
def test_no_engine_begins_a_run_on_a_device_that_a_load_has_found_gone(seed: int) -> None:
    gone = fails_to_load(DeviceFaultError("CUDA error 719"))
    fake = CountsRuns({"vpr": [loads(), ABORT, gone], "match": takes_ms(1.0, FINE)})
    with stepped(fake, seed=seed, policy=RestartPolicy(first_delay_ns=20 * NS_PER_MS, jitter_share=0.0)) as world:
        ask(world, "vpr")
        waiting = [world.client.submit("match", IMAGE, within_ms=300) for _ in range(40)]
        outcomes = [reason(each.result()) for each in waiting]
        assert "completed" in outcomes
        assert "engine_unavailable" in outcomes
    assert len(fake.calls) == fake.runs_before


def test_a_load_that_comes_back_too_late_and_then_never_lets_go_is_found() -> None:
    fake = HangsInRelease({"vpr": takes_ms(3000, loads()), "match": FINE})
    with stepped(fake, mode="recovery", load_timeout_s=2, priorities={"vpr": 0, "match": 1}) as world:
        world.advance_ms(2500)
        assert not world.supervision.restart_needed
        world.advance_ms(10_000)
        assert "vpr has not returned" in world.supervision.restart_needed
