"""What an engine holds is freed, and never used again, where no start of it follows: on virtual time."""

from __future__ import annotations

import numpy as np
import pytest

from actors import RestartPolicy
from actors.stepped import stepped
from messages import (
    NS_PER_MS,
    NS_PER_S,
    DeviceContextError,
    DeviceFaultError,
    InferCompleted,
    InferenceError,
    InferRejected,
)
from runtimes import EngineHandle, FakeRuntime, raises, returns, takes_ms
from runtimes.available_memory import AvailableMemory
from runtimes.fake_steps import hangs

IMAGE = {"image": np.ones(4, np.float32)}
FINE = returns({"y": np.ones(4, np.float32)})
CRASH = raises(InferenceError("the engine failed"))


@pytest.mark.parametrize("ends_after_ms", [0.0, 50.0, 99.0, 100.0, 101.0, 5000.0])
@pytest.mark.parametrize("seed", range(4))
def test_an_engine_that_crashes_around_the_end_of_the_flight_is_freed(ends_after_ms: float, seed: int) -> None:
    fake = FakeRuntime({"vpr": [takes_ms(100, CRASH), FINE], "match": FINE})
    with stepped(fake, seed=seed) as world:
        world.client.submit("vpr", IMAGE, within_ms=300)
        world.advance_ms(ends_after_ms)
    assert fake.loaded == ()


def test_an_engine_that_crashes_after_the_flight_has_ended_without_it_is_freed() -> None:
    fake = FakeRuntime({"vpr": [takes_ms(5000, CRASH), FINE]})
    with stepped(fake) as world:
        world.client.submit("vpr", IMAGE, within_ms=300)
        world.advance_ms(10)
        world.supervision.stop()
        assert "vpr" in fake.loaded, "it is still at its run"
        world.advance_ms(5000)
        assert fake.loaded == ()


def test_an_engine_that_hung_and_then_crashes_is_freed() -> None:
    fake = FakeRuntime({"vpr": hangs(CRASH)})
    with stepped(fake, run_limit_ms=1000.0) as world:
        world.client.submit("vpr", IMAGE, within_ms=300)
        world.advance_ms(1200)
        assert world.supervision.restart_needed
        fake.release_hung()
        world.run_until_idle()
        assert fake.loaded == ()


def test_an_engine_that_crashes_in_its_last_run_before_the_context_is_given_up_is_not_resumed_in_the_new_one() -> None:
    lost = takes_ms(20, raises(DeviceContextError("the context is lost")))
    fake = FakeRuntime({"vpr": [takes_ms(50, CRASH), FINE], "match": [lost, FINE]})
    with stepped(fake, runs_at_once=2) as world:
        world.client.submit("vpr", IMAGE, within_ms=300)
        world.client.submit("match", IMAGE, within_ms=300)
        world.advance_ms(500)
        assert isinstance(world.client.infer("vpr", IMAGE, within_ms=300), InferCompleted)
        assert (fake.loads("vpr"), fake.resumes("vpr")) == (2, 0)


class GoneAtRelease(FakeRuntime):
    """The device is gone when vpr is to be freed."""

    def release_engine(self, handle: EngineHandle) -> None:
        super().release_engine(handle)
        if "vpr" not in self.loaded:
            raise DeviceFaultError("CUDA error 719")


def test_a_device_that_is_found_gone_while_an_engine_lets_go_of_a_lost_context_asks_for_a_new_process() -> None:
    fake = GoneAtRelease({"vpr": FINE, "match": [raises(DeviceContextError("the context is lost")), FINE]})
    with stepped(fake) as world:
        world.client.infer("match", IMAGE, within_ms=300)
        world.advance_ms(500)
        assert world.supervision.restart_needed == "CUDA error 719"
        assert fake.loads("vpr") == 1, "nothing is loaded into a device that is gone"


class GoneAtSuspend(FakeRuntime):
    """The device is gone when an engine is to be kept; to free it says nothing of that."""

    def suspend_engine(self, handle: EngineHandle) -> None:
        raise DeviceFaultError("CUDA error 719")


def test_a_device_that_is_found_gone_while_an_engine_is_kept_asks_for_a_new_process() -> None:
    fake = GoneAtSuspend({"vpr": [CRASH, FINE], "match": FINE})
    with stepped(fake) as world:
        world.client.infer("vpr", IMAGE, within_ms=300)
        world.advance_ms(500)
        assert world.supervision.restart_needed
        assert fake.loads("vpr") == 1


class AwkwardToFree(FakeRuntime):
    """What was kept of vpr cannot be freed, or only by a call that does not return."""

    def __init__(self, *, hangs: bool) -> None:
        lost = raises(DeviceContextError("the context is lost"))
        super().__init__({"vpr": [CRASH, FINE], "match": [lost, FINE]})
        self.hangs = hangs
        self.kept = True

    def release_engine(self, handle: EngineHandle) -> None:
        awkward = handle.entry.model == "vpr" and self.kept
        if awkward and self.hangs:
            self.stage.hang()
        super().release_engine(handle)
        if awkward:
            self.kept = False
            raise InferenceError("cudaFree")


@pytest.mark.parametrize("hangs", [False, True])
def test_the_supervisor_never_frees_what_an_engine_kept_and_nobody_else_waits_for_it(hangs: bool) -> None:
    fake = AwkwardToFree(hangs=hangs)
    policy = RestartPolicy(first_delay_ns=100 * NS_PER_MS, jitter_share=0.0)
    with stepped(fake, policy=policy, load_timeout_s=2.0) as world:
        world.client.infer("vpr", IMAGE, within_ms=300)
        world.advance_ms(50)
        world.client.infer("match", IMAGE, within_ms=300)
        world.advance_ms(3000)
        assert world.supervision.is_alive()
        assert isinstance(world.client.infer("match", IMAGE, within_ms=300), InferCompleted)
        outcome = world.client.infer("vpr", IMAGE, within_ms=300)
        assert isinstance(outcome, InferRejected if hangs else InferCompleted)
        assert not world.supervision.restart_needed
        assert sorted(fake.loaded) == ["match", "vpr"], "what hangs is there still; otherwise it is the new one"


def test_what_was_kept_and_cannot_be_freed_at_the_end_keeps_nobody_elses_memory() -> None:
    class FailsToFree(FakeRuntime):
        def release_engine(self, handle: EngineHandle) -> None:
            super().release_engine(handle)
            raise InferenceError("cudaFree")

    fake = FailsToFree({"vpr": [CRASH, FINE], "match": [CRASH, FINE], "refiner": FINE})
    with stepped(fake, policy=RestartPolicy(first_delay_ns=3600 * NS_PER_S, max_delay_ns=3600 * NS_PER_S)) as world:
        for model in ("vpr", "match"):
            world.client.infer(model, IMAGE, within_ms=300)
        world.run_until_idle()
    assert fake.loaded == ()


class ExitsAtSuspend(FakeRuntime):
    """A library that wants to end the process where an engine is to be kept."""

    def suspend_engine(self, handle: EngineHandle) -> None:
        raise SystemExit(3)


def test_an_engine_whose_library_exits_where_it_was_to_be_kept_is_freed() -> None:
    fake = ExitsAtSuspend({"vpr": [CRASH, FINE]})
    with stepped(fake) as world:
        world.client.infer("vpr", IMAGE, within_ms=300)
        world.advance_ms(500)
        assert isinstance(world.client.infer("vpr", IMAGE, within_ms=300), InferCompleted)
    assert fake.loaded == ()


def unreadable_memory() -> AvailableMemory:
    raise OSError("too many open files")


def test_memory_that_cannot_be_read_costs_no_engine_its_release_or_its_restart() -> None:
    fake = FakeRuntime({"vpr": [raises(ValueError("a bug")), FINE]})
    with stepped(fake, available_memory=unreadable_memory) as world:
        world.client.infer("vpr", IMAGE, within_ms=300)
        world.advance_ms(500)
        assert isinstance(world.client.infer("vpr", IMAGE, within_ms=300), InferCompleted)
    assert fake.loaded == ()
