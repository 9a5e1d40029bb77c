"""What consumers can rely on in any order of things: each behaviour on virtual time, most of them under many seeds."""

from __future__ import annotations

import numpy as np
import pykka
import pytest

from actors import Pending
from actors.stepped import SteppedWorld, stepped
from actors.supervisor import STOP_TIMEOUT_S, SWEEP_PERIOD_NS
from messages import (
    NS_PER_MS,
    EngineDied,
    EngineLoaded,
    InferCompleted,
    InferenceError,
    InferRejected,
    Outcome,
)
from runtimes import FakeRuntime, hangs, loads, raises, returns, takes_ms
from runtimes.fake_steps import Step

IMAGE = {"image": np.ones(4, np.float32)}
RESULT = {"y": np.ones(4, np.float32)}
SEEDS = range(8)
in_any_order = pytest.mark.parametrize("seed", SEEDS)


def run_of_ms(duration_ms: float) -> Step:
    return takes_ms(duration_ms, returns(RESULT))


def submit(world: SteppedWorld, model: str, consumer: str, within_ms: float = 1000, frame_id: int = 0) -> Pending:
    return world.consumer(consumer).submit(model, IMAGE, within_ms=within_ms, frame_id=frame_id)


def reason(outcome: Outcome) -> str:
    return outcome.reason if isinstance(outcome, InferRejected) else "completed"


def detail(outcome: Outcome) -> str:
    assert isinstance(outcome, InferRejected)
    return outcome.detail


def queued_ms(outcome: Outcome) -> float:
    assert isinstance(outcome, InferCompleted)
    return outcome.queued_ns / NS_PER_MS


# One device, one run


@in_any_order
def test_a_burst_of_unimportant_engines_delays_an_urgent_request_by_one_run_at_most(seed: int) -> None:
    unimportant = ("refiner", "extractor", "matcher")
    fake = FakeRuntime({"vpr": run_of_ms(5), **{model: run_of_ms(40) for model in unimportant}})
    with stepped(fake, seed=seed, priorities={"vpr": 1}) as world:
        burst = [submit(world, model, f"c{number}", 3000) for number in range(4) for model in unimportant]
        for _ in range(5):
            world.advance_ms(33)
            assert queued_ms(world.client.infer("vpr", IMAGE, within_ms=5000)) <= 40
        assert [reason(each.result()) for each in burst] == ["completed"] * 12
    assert fake.peak_concurrency() == 1


@in_any_order
def test_of_engines_of_one_priority_the_earlier_deadline_has_the_device_first(seed: int) -> None:
    fake = FakeRuntime({name: run_of_ms(10) for name in ("first", "late", "soon", "later")})
    with stepped(fake, seed=seed) as world:
        submit(world, "first", "c")
        world.run_until_idle()
        for model, within_ms in (("late", 500), ("soon", 100), ("later", 900)):
            submit(world, model, "c", within_ms)
        world.advance_ms(100)
        assert [call.model for call in fake.calls] == ["first", "soon", "late", "later"]


@in_any_order
def test_two_consumers_calls_to_one_engine_never_overlap(seed: int) -> None:
    fake = FakeRuntime({"vpr": run_of_ms(7)})
    with stepped(fake, seed=seed, runs_at_once=4) as world:
        for frame_id in range(5):
            for consumer in ("c2", "c3", "c4"):
                submit(world, "vpr", consumer, frame_id=frame_id)
            world.advance_ms(20)
        world.advance_ms(1000)
        assert world.tallies()["vpr"].open == 0
    assert fake.peak_concurrency("vpr") == 1


def test_as_many_engines_run_at_once_as_the_device_is_said_to_bear() -> None:
    fake = FakeRuntime({name: run_of_ms(10) for name in ("a", "b", "c")})
    with stepped(fake, runs_at_once=2) as world:
        pending = [submit(world, model, "c2") for model in ("a", "b", "c")]
        assert sorted(queued_ms(each.result()) for each in pending) == [0, 0, 10]
    assert fake.peak_concurrency() == 2


def test_a_request_whose_time_passes_before_the_device_is_free_is_never_run() -> None:
    fake = FakeRuntime({"refiner": run_of_ms(400), "vpr": run_of_ms(5)})
    with stepped(fake) as world:
        submit(world, "refiner", "c3_5")
        world.run_until_idle()
        assert reason(world.client.infer("vpr", IMAGE, within_ms=200)) == "expired"
        world.advance_ms(1000)
        assert [call.model for call in fake.calls] == ["refiner"]


# The mailbox


@in_any_order
def test_a_consumers_newest_frames_stay_and_its_oldest_goes_while_others_keep_theirs(seed: int) -> None:
    with stepped(FakeRuntime({"match": run_of_ms(50)}), seed=seed) as world:
        running = submit(world, "match", "c9")
        world.run_until_idle()
        frames = {number: [submit(world, "match", "c3", 2000, number) for _ in range(13)] for number in (1, 2, 3)}
        other = submit(world, "match", "c2", 2000, 1)
        world.run_until_idle()
        assert {reason(each.result()) for each in frames[1]} == {"shed"}
        outcomes = [each.result() for each in (running, other, *frames[2], *frames[3])]
        assert [reason(each) for each in outcomes] == ["completed"] * 28


def test_a_request_that_cannot_be_answered_in_time_is_refused_at_once_and_costs_nobodys_place() -> None:
    with stepped(FakeRuntime({"vpr": run_of_ms(50)})) as world:
        world.client.infer("vpr", IMAGE, within_ms=200)
        waiting = [submit(world, "vpr", consumer, 1000) for consumer in ("a", "b", "c")]
        world.run_until_idle()
        begin_ns = world.clock.monotonic_ns()
        assert reason(world.client.infer("vpr", IMAGE, within_ms=120)) == "expired"
        assert world.clock.monotonic_ns() == begin_ns
        assert [reason(each.result()) for each in waiting] == ["completed"] * 3


@in_any_order
def test_what_is_overdue_and_nobody_waits_for_is_settled_within_a_tick(seed: int) -> None:
    with stepped(FakeRuntime({"vpr": hangs()}), seed=seed) as world:
        pending = [submit(world, "vpr", consumer, 150) for consumer in ("running", "a", "b")]
        world.advance_ms(150)
        world.advance_ms(SWEEP_PERIOD_NS / NS_PER_MS)
        outcomes = [each.result() for each in pending if each.done]
        assert [reason(each) for each in outcomes] == ["expired"] * 3
        assert sorted(each.inputs_released for each in outcomes if isinstance(each, InferRejected)) == [
            False,
            True,
            True,
        ]


@in_any_order
def test_a_request_that_is_given_up_is_not_run_and_one_that_runs_says_that_its_inputs_are_still_read(seed: int) -> None:
    fake = FakeRuntime({"vpr": run_of_ms(50)})
    with stepped(fake, seed=seed) as world:
        running, waiting = submit(world, "vpr", "c2"), submit(world, "vpr", "c3")
        world.run_until_idle()
        assert [running.cancel(), waiting.cancel(), waiting.cancel()] == [True, True, False]
        outcomes = [running.result(), waiting.result()]
        assert [reason(each) for each in outcomes] == ["cancelled"] * 2
        released = [each.inputs_released for each in outcomes if isinstance(each, InferRejected)]
        assert released in ([False, True], [True, False])
        world.advance_ms(500)
        assert len(fake.calls) == 1
        assert world.tallies()["vpr"].rejected == {"cancelled": 2}


# Deaths


@in_any_order
def test_what_waits_behind_a_death_has_its_outcome_and_the_next_generation_begins_empty(seed: int) -> None:
    fake = FakeRuntime({"vpr": [takes_ms(10, raises(InferenceError("716"))), run_of_ms(5)]})
    with stepped(fake, seed=seed) as world:
        pending = [submit(world, "vpr", f"c{number}") for number in range(6)]
        world.advance_ms(10)
        told = sorted(reason(each.result()) for each in pending)
        assert told == ["engine_unavailable"] * 5 + ["inference_error"]
        world.advance_ms(500)
        assert queued_ms(world.client.infer("vpr", IMAGE, within_ms=200)) == 0
        assert [each.generation for each in world.messages if isinstance(each, EngineLoaded)] == [1, 2]


@in_any_order
def test_one_engines_death_costs_another_ones_requests_nothing(seed: int) -> None:
    fake = FakeRuntime({"bad": [takes_ms(3, raises(InferenceError("716"))), *[run_of_ms(3)] * 5], "good": run_of_ms(5)})
    with stepped(fake, seed=seed) as world:
        for frame_id in range(20):
            submit(world, "bad", "c3", 30, frame_id)
            assert reason(world.client.infer("good", IMAGE, within_ms=30, frame_id=frame_id)) == "completed"
            world.advance_ms(28)
        assert sum(isinstance(each, EngineDied) for each in world.messages) == 1


def test_while_an_engine_is_away_its_requests_are_told_so_at_once_and_why() -> None:
    fake = FakeRuntime({"vpr": [raises(InferenceError("716")), takes_ms(900, loads()), returns(RESULT)]})
    with stepped(fake) as world:
        world.client.infer("vpr", IMAGE, within_ms=200)
        world.run_until_idle()
        begin_ns = world.clock.monotonic_ns()
        for _ in range(3):
            outcome = world.client.infer("vpr", IMAGE, within_ms=200)
            assert (reason(outcome), detail(outcome)) == ("engine_unavailable", "716")
        assert world.clock.monotonic_ns() == begin_ns
        world.advance_ms(1000)
        assert reason(world.client.infer("vpr", IMAGE, within_ms=200)) == "completed"


def test_a_supervisor_that_dies_settles_everything_and_asks_for_a_new_process() -> None:
    fake = FakeRuntime({"vpr": run_of_ms(50), "match": returns(RESULT)})
    with stepped(fake) as world:
        waiting = [submit(world, "vpr", consumer) for consumer in ("a", "b", "c")]
        world.run_until_idle()
        world.supervision.actor_ref.tell(EngineLoaded("nobody", 1, 1))
        world.advance_ms(100)
        assert sorted(reason(each.result()) for each in waiting) == ["completed", "shutting_down", "shutting_down"]
        assert reason(world.client.infer("match", IMAGE, within_ms=200)) == "shutting_down"
        assert "the supervisor died" in world.supervision.restart_needed
        assert fake.loaded == ()


# The end


@in_any_order
def test_a_stop_lets_the_running_request_end_and_tells_all_others(seed: int) -> None:
    fake = FakeRuntime({"vpr": run_of_ms(50)})
    with stepped(fake, seed=seed) as world:
        pending = [submit(world, "vpr", f"c{number}") for number in range(13)]
        world.run_until_idle()
        world.supervision.stop()
        assert sorted(reason(each.result()) for each in pending) == ["completed"] + ["shutting_down"] * 12
        assert reason(world.client.infer("vpr", IMAGE, within_ms=200)) == "shutting_down"
        world.supervision.stop()
    assert fake.loaded == ()


def test_a_stop_waits_no_longer_for_a_run_than_it_says() -> None:
    with stepped(FakeRuntime({"vpr": run_of_ms(60_000)})) as world:
        pending = submit(world, "vpr", "c2", 120_000)
        world.run_until_idle()
        begin_ns = world.clock.monotonic_ns()
        world.supervision.stop()
        outcome = pending.result()
        assert isinstance(outcome, InferRejected)
        assert (outcome.reason, outcome.inputs_released) == ("shutting_down", False)
        assert world.clock.monotonic_ns() - begin_ns == STOP_TIMEOUT_S * 1000 * NS_PER_MS


def test_an_outcome_that_its_actor_does_not_take_is_counted_and_the_engine_runs_on() -> None:
    with stepped(FakeRuntime({"vpr": run_of_ms(5)})) as world:
        gone = world.start(pykka.ThreadingActor)
        gone.stop()
        world.client.send("vpr", IMAGE, within_ms=200, reply_to=gone)
        world.advance_ms(5)
        assert world.statistics()["vpr"].undelivered == 1
        assert reason(world.client.infer("vpr", IMAGE, within_ms=200)) == "completed"


def test_two_worlds_have_each_their_own_time_and_engines() -> None:
    with (
        stepped(FakeRuntime({"vpr": run_of_ms(5)})) as one,
        stepped(FakeRuntime({"vpr": run_of_ms(50)})) as other,
    ):
        assert reason(one.client.infer("vpr", IMAGE, within_ms=200)) == "completed"
        assert reason(other.client.infer("vpr", IMAGE, within_ms=200)) == "completed"
        assert other.clock.monotonic_ns() - one.clock.monotonic_ns() == 45 * NS_PER_MS


@in_any_order
def test_a_result_that_comes_past_its_deadline_is_nobodys_and_its_run_is_counted(seed: int) -> None:
    with stepped(FakeRuntime({"vpr": run_of_ms(40)}), seed=seed) as world:
        alone, waited_for = submit(world, "vpr", "c2", 39), submit(world, "vpr", "c2", 79)
        world.advance_ms(41)
        assert alone.done, "before any tick, which would have said so too"
        assert detail(alone.result()) == "ran 40.0 ms, past its deadline"
        assert reason(waited_for.result()) == "expired"
        world.advance_ms(100)
        statistics = world.statistics()["vpr"]
        assert (statistics.tally.completed, statistics.tally.rejected) == (0, {"expired": 2})
        assert (statistics.run.count, statistics.run.max_ns) == (2, 40 * NS_PER_MS)


@in_any_order
def test_a_device_that_comes_free_at_the_deadline_itself_is_not_used(seed: int) -> None:
    fake = FakeRuntime({"refiner": run_of_ms(200), "vpr": run_of_ms(5)})
    with stepped(fake, seed=seed) as world:
        submit(world, "refiner", "c3")
        world.run_until_idle()
        pending = submit(world, "vpr", "c2", 200)
        world.advance_ms(1000)
        assert reason(pending.result()) == "expired"
        assert [call.model for call in fake.calls] == ["refiner"]


@in_any_order
def test_a_request_that_is_given_up_while_it_waits_for_the_device_is_not_run(seed: int) -> None:
    fake = FakeRuntime({"refiner": run_of_ms(50), "vpr": run_of_ms(5)})
    with stepped(fake, seed=seed) as world:
        submit(world, "refiner", "c3")
        world.run_until_idle()
        pending = submit(world, "vpr", "c2")
        world.run_until_idle()
        pending.cancel()
        world.advance_ms(1000)
        assert [call.model for call in fake.calls] == ["refiner"]


@in_any_order
def test_a_request_that_was_given_up_in_the_queue_never_asks_for_the_device(seed: int) -> None:
    """It would ask with its own deadline, and hold up the request behind it that is due before everybody else's."""
    fake = FakeRuntime({name: run_of_ms(10) for name in ("vpr", "matcher", "refiner")})
    with stepped(fake, seed=seed) as world:
        submit(world, "vpr", "c2")
        world.run_until_idle()
        for model, within_ms in (("matcher", 700), ("refiner", 800)):
            submit(world, model, "c3", within_ms)
        given_up = submit(world, "vpr", "c2", 900)
        submit(world, "vpr", "c2", 300)
        given_up.cancel()
        world.advance_ms(100)
        assert [call.model for call in fake.calls] == ["vpr", "matcher", "vpr", "refiner"]


def test_after_the_supervisors_death_an_engine_that_was_down_is_no_longer_said_to_come_back() -> None:
    with stepped(FakeRuntime({"vpr": [raises(InferenceError("716")), run_of_ms(5)]})) as world:
        world.client.infer("vpr", IMAGE, within_ms=100)
        world.run_until_idle()
        assert detail(world.client.infer("vpr", IMAGE, within_ms=100)) == "716"
        world.supervision.actor_ref.tell(EngineLoaded("nobody", 1, 1))
        world.run_until_idle()
        assert reason(world.client.infer("vpr", IMAGE, within_ms=100)) == "shutting_down"
