"""A call that does not return: its requests have outcomes, its device is left to it, a new process is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from actors.stepped import SteppedWorld, stepped
from messages import (
    NS_PER_MS,
    NS_PER_S,
    EngineDied,
    EngineHung,
    EngineLoaded,
    EngineLoadFailed,
    EngineQuarantined,
    EngineRestartScheduled,
    InferCompleted,
    InferenceError,
    InferRejected,
    Outcome,
    ProcessRestartNeeded,
    TakeoffRefusedError,
)
from runtimes import FakeRuntime, fails_to_load, raises, returns, takes_ms
from runtimes.fake_steps import Step, hangs, hangs_at_load, loads

IMAGE = {"image": np.ones(4, np.float32)}
RESULT = {"y": np.ones(4, np.float32)}
FINE = returns(RESULT)
LIMIT_MS = 1000.0
TICK_MS = 100.0


def fly(*steps: Step, bystander: Step = FINE, **options: object) -> SteppedWorld:
    fake = FakeRuntime({"vpr": steps, "match": bystander})
    return stepped(fake, run_limit_ms=LIMIT_MS, **options)  # type: ignore[arg-type]


def reason(outcome: Outcome) -> str:
    return outcome.reason if isinstance(outcome, InferRejected) else "completed"


def ask(world: SteppedWorld, model: str, within_ms: float = 300.0) -> Outcome:
    return world.client.infer(model, IMAGE, within_ms=within_ms)


def test_whoever_waits_for_an_engine_that_hangs_learns_at_the_deadline_and_that_it_still_reads_the_inputs() -> None:
    with fly(hangs()) as world:
        outcome = ask(world, "vpr")
        assert isinstance(outcome, InferRejected)
        assert outcome.reason == "expired"
        assert not outcome.inputs_released
        assert not world.supervision.restart_needed, "its limit is not over yet"


def test_a_request_whose_deadline_is_later_than_the_limit_learns_that_the_run_failed() -> None:
    with fly(hangs()) as world:
        outcome = ask(world, "vpr", within_ms=10_000)
        assert isinstance(outcome, InferRejected)
        assert outcome.reason == "inference_error"
        assert outcome.detail.startswith("vpr has not returned for 1.")
        assert not outcome.inputs_released


def test_a_hang_is_found_within_a_tick_of_its_limit_and_once() -> None:
    with fly(hangs()) as world:
        world.client.submit("vpr", IMAGE, within_ms=10_000)
        world.advance_ms(LIMIT_MS - 1)
        assert not world.supervision.restart_needed
        world.advance_ms(TICK_MS + 2)
        [hung] = [each for each in world.messages if isinstance(each, EngineHung)]
        assert LIMIT_MS * NS_PER_MS < hung.running_ns <= (LIMIT_MS + TICK_MS) * NS_PER_MS
        world.advance_ms(10 * LIMIT_MS)
        assert len([each for each in world.messages if isinstance(each, EngineHung | ProcessRestartNeeded)]) == 2
        assert world.statistics()["vpr"].faults == {"hang": 1}


def test_a_run_that_is_only_slow_is_no_hang() -> None:
    with fly(takes_ms(LIMIT_MS - TICK_MS, FINE)) as world:
        assert reason(ask(world, "vpr", within_ms=5000)) == "completed"
        assert not world.supervision.restart_needed


def test_no_second_engine_touches_the_device_of_one_that_hangs() -> None:
    with fly(hangs()) as world:
        world.client.submit("vpr", IMAGE, within_ms=10_000)
        world.run_until_idle()
        waits = world.client.submit("match", IMAGE, within_ms=10_000)
        world.advance_ms(LIMIT_MS + TICK_MS)
        assert waits.done, "who waited for the device is sent away at once"
        assert reason(waits.result()) == "engine_unavailable"
        assert reason(ask(world, "match")) == "engine_unavailable"
        assert world.statistics()["match"].tally.completed == 0


def test_what_waits_behind_a_run_that_hangs_is_told_when_it_is_found() -> None:
    with fly(hangs()) as world:
        pending = [world.client.submit("vpr", IMAGE, within_ms=60_000, frame_id=1) for _ in range(4)]
        world.advance_ms(LIMIT_MS + TICK_MS)
        assert [each.done for each in pending] == [True] * 4
        assert [reason(each.result()) for each in pending] == ["inference_error"] + ["engine_unavailable"] * 3


def test_the_process_is_asked_for_once_and_told_which_engine_hangs() -> None:
    told: list[str] = []
    with fly(hangs(), on_restart_needed=told.append) as world:
        world.client.submit("vpr", IMAGE, within_ms=300)
        world.advance_ms(5 * LIMIT_MS)
        assert len(told) == 1
        assert told[0].startswith("vpr has not returned for 1.")
        assert world.supervision.restart_needed == told[0]
        [needed] = [each for each in world.messages if isinstance(each, ProcessRestartNeeded)]
        assert (needed.fault, needed.detail) == ("hang", told[0])


def test_what_an_engine_still_returns_after_it_was_fenced_is_told_to_nobody() -> None:
    with fly(takes_ms(3 * LIMIT_MS, FINE)) as world:
        late = world.client.submit("vpr", IMAGE, within_ms=10 * LIMIT_MS)
        world.advance_ms(5 * LIMIT_MS)
        assert reason(late.result()) == "inference_error"
        assert world.statistics()["vpr"].tally.completed == 0
        assert reason(ask(world, "vpr")) == "engine_unavailable", "and it serves no more"


def test_an_engine_that_crashes_after_it_was_fenced_is_not_started_again() -> None:
    with fly(takes_ms(3 * LIMIT_MS, raises(InferenceError("too late")))) as world:
        world.client.submit("vpr", IMAGE, within_ms=300)
        world.advance_ms(60_000)
        assert world.statistics()["vpr"].generation == 1
        assert not [each for each in world.messages if isinstance(each, EngineDied)]


def test_engines_that_run_beside_one_that_hangs_may_end_their_runs() -> None:
    slow = takes_ms(LIMIT_MS - TICK_MS, FINE)
    with fly(hangs(), bystander=slow, runs_at_once=2) as world:
        world.client.submit("vpr", IMAGE, within_ms=10_000)
        world.advance_ms(LIMIT_MS / 2)
        beside = world.client.submit("match", IMAGE, within_ms=10_000)
        world.advance_ms(2 * LIMIT_MS)
        assert reason(beside.result()) == "completed"


def test_an_engine_that_falls_after_the_process_was_given_up_is_promised_no_restart() -> None:
    load = takes_ms(3 * LIMIT_MS, fails_to_load(InferenceError("too late")))
    fake = FakeRuntime({"vpr": hangs(), "match": [raises(InferenceError("716")), load]})
    with stepped(fake, run_limit_ms=LIMIT_MS) as world:
        ask(world, "match")
        world.advance_ms(LIMIT_MS / 2)  # it is started again
        world.client.submit("vpr", IMAGE, within_ms=300)
        world.advance_ms(60_000)
        facts = list(map(type, world.messages))
        assert EngineLoadFailed in facts
        assert EngineRestartScheduled not in facts[facts.index(ProcessRestartNeeded) :]
        outcome = ask(world, "match")
        assert isinstance(outcome, InferRejected)
        assert outcome.detail.startswith("process restart needed: vpr has not returned for 1.")


def test_a_stop_does_not_wait_for_an_engine_that_is_known_to_hang() -> None:
    with fly(hangs()) as world:
        world.client.submit("vpr", IMAGE, within_ms=300)
        world.advance_ms(2 * LIMIT_MS)
        before_ns = world.clock.monotonic_ns()
        world.supervision.stop()
        assert world.clock.monotonic_ns() - before_ns < NS_PER_S


def test_a_stop_waits_a_second_for_an_engine_that_may_still_return_and_settles_what_it_holds() -> None:
    with fly(hangs()) as world:
        running = world.client.submit("vpr", IMAGE, within_ms=60_000)
        world.run_until_idle()
        before_ns = world.clock.monotonic_ns()
        world.supervision.stop()
        assert NS_PER_S <= world.clock.monotonic_ns() - before_ns < 3 * NS_PER_S
        assert reason(running.result()) == "shutting_down"


# Loads that do not return.


def test_a_takeoff_with_an_engine_that_never_loads_is_refused_by_name() -> None:
    with pytest.raises(TakeoffRefusedError, match="vpr: did not load within 2 s"):
        fly(hangs_at_load(), load_timeout_s=2)


def test_in_a_recovery_a_load_that_hangs_costs_its_own_engine_and_no_other() -> None:
    with fly(hangs_at_load(), mode="recovery", load_timeout_s=2, priorities={"vpr": 0, "match": 1}) as world:
        world.advance_ms(3000)
        assert reason(ask(world, "match")) == "completed"
        outcome = ask(world, "vpr")
        assert isinstance(outcome, InferRejected)
        assert outcome.detail == "quarantined: did not load within 2 s"
        [failed] = [each for each in world.messages if isinstance(each, EngineLoadFailed)]
        assert failed.fault == "hang"
        assert world.statistics()["vpr"].faults == {"hang": 1}
        assert not world.supervision.restart_needed


def test_a_load_that_was_given_up_is_released_when_it_comes_back_and_never_serves() -> None:
    fake = FakeRuntime({"vpr": [takes_ms(5000, loads()), FINE]})
    with stepped(fake, mode="recovery", load_timeout_s=2) as world:
        world.advance_ms(10_000)
        assert fake.loads("vpr") == 1
        assert fake.loaded == ()
        assert not [each for each in world.messages if isinstance(each, EngineLoaded)]
        assert reason(ask(world, "vpr")) == "engine_unavailable"


def test_a_restart_that_hangs_leaves_the_others_flying() -> None:
    fault = raises(InferenceError("716"))
    with fly(fault, hangs_at_load(), load_timeout_s=2) as world:
        ask(world, "vpr")
        world.advance_ms(5000)
        assert reason(ask(world, "match")) == "completed"
        assert [each.model for each in world.messages if isinstance(each, EngineQuarantined)] == ["vpr"]


def test_requests_for_an_engine_that_loads_are_told_so_and_do_not_wait() -> None:
    with fly(hangs_at_load(), mode="recovery", load_timeout_s=2) as world:
        outcome = ask(world, "vpr")
        assert isinstance(outcome, InferRejected)
        assert (outcome.reason, outcome.detail) == ("engine_unavailable", "loading")


def test_an_interval_of_time_without_any_request_is_no_hang() -> None:
    with fly(FINE) as world:
        assert isinstance(ask(world, "vpr"), InferCompleted)
        world.advance_ms(3_600_000)
        assert isinstance(ask(world, "vpr"), InferCompleted)


@pytest.mark.parametrize("seed", range(8))
def test_a_process_that_stood_still_as_a_whole_takes_no_run_for_one_that_hangs(seed: int) -> None:
    with fly(takes_ms(200, FINE), seed=seed) as world:
        running = world.client.submit("vpr", IMAGE, within_ms=60_000)
        world.run_until_idle()
        world.clock.advance_ms(30 * LIMIT_MS)  # stopped by a debugger, frozen with its group: nothing ran meanwhile
        world.advance_ms(500)
        assert reason(running.result()) == "completed"
        assert not world.supervision.restart_needed
