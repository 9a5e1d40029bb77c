"""Engines that are taken into a flight under way: what loads when, and what becomes of a load that fails."""

from __future__ import annotations

import threading

import pytest

from messages import (
    AllEnginesLoaded,
    CorruptEngineError,
    DeviceContextError,
    DeviceFaultError,
    EngineDeserializeError,
    EngineLoaded,
    FaultClass,
    InferenceError,
    InferRejected,
    OutOfMemoryError,
)
from runtimes import FakeRuntime, raises, takes_ms
from runtimes.fake_steps import Step, fails_to_load, hangs_at_load, loads, loads_after
from tests.actors.ordered_flight import FINE, LOAD_TIMEOUT_S, Flight, fake_of, reason

DIES = raises(InferenceError("716"))


def test_a_flight_without_engines_takes_one_and_runs_it() -> None:
    with Flight(fake_of(vpr=FINE)) as flight:
        assert reason(flight.ask("vpr")) == "unknown_model"
        flight.loaded("vpr")
        assert reason(flight.ask("vpr")) == "completed"


def test_what_is_asked_of_an_engine_that_still_loads_is_refused_and_counted_in_its_row() -> None:
    with Flight(fake_of(vpr=[takes_ms(100, loads()), FINE])) as flight:
        flight.load("vpr")
        flight.world.advance_ms(50)
        outcome = flight.ask("vpr")
        assert isinstance(outcome, InferRejected)
        assert (outcome.reason, outcome.detail) == ("engine_unavailable", "loading")
        assert flight.world.tallies()["vpr"].rejected == {"engine_unavailable": 1}


def test_of_several_orders_the_most_urgent_loads_first_and_one_after_the_other() -> None:
    scripts: dict[str, Step | list[Step]] = {
        model: [takes_ms(100, loads()), FINE] for model in ("first", "late", "soon", "later")
    }
    with Flight(FakeRuntime(scripts)) as flight:
        flight.load("first", 50)
        flight.world.run_until_idle()
        for model, priority in (("late", 30), ("soon", 10), ("later", 90)):
            flight.load(model, priority)
        for count in range(1, 5):
            flight.world.advance_ms(100)
            assert flight.facts(EngineLoaded) == ["first", "soon", "late", "later"][:count]


def test_an_engine_of_the_flight_that_loads_again_goes_before_an_order_that_is_less_urgent() -> None:
    fake = fake_of(vpr=[raises(DeviceContextError("lost")), FINE], urgent=[takes_ms(300, FINE), FINE], late=FINE)
    with Flight(fake, "vpr", "urgent", priorities={"vpr": 2, "urgent": 1}, runs_at_once=2) as flight:
        flight.submit("urgent")
        flight.world.run_until_idle()
        flight.ask("vpr")
        late = flight.load("late")
        flight.answer(late, 1000)
        assert flight.facts(EngineLoaded) == ["urgent", "vpr", "urgent", "vpr", "late"]


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (EngineDeserializeError("busy"), "engine_fault"),
        (CorruptEngineError("altered"), "corrupt_engine"),
        (OutOfMemoryError("2 GiB"), "out_of_memory"),
        (DeviceContextError("lost"), "context_fault"),
        (ValueError("a bug"), "programming_error"),
        (SystemExit(3), "programming_error"),
        (MemoryError("host"), "out_of_memory"),
    ],
    ids=repr,
)
def test_a_first_load_that_fails_is_final_forgotten_and_may_be_ordered_again(
    error: BaseException, fault: FaultClass
) -> None:
    with Flight(fake_of(vpr=[fails_to_load(error), FINE], other=FINE), "other") as flight:
        assert flight.answer(flight.load("vpr")) == fault
        flight.world.advance_ms(120_000)
        assert flight.is_gone("vpr")
        assert flight.slots() == {"other": "serving"}
        assert flight.facts(EngineLoaded).count("vpr") == 0, "nobody tries again by himself"
        assert flight.timers == 1, "the tick"
        flight.loaded("vpr")
        assert reason(flight.ask("vpr")) == "completed"
        assert reason(flight.ask("other")) == "completed"


def test_a_first_load_that_loses_the_context_has_every_other_engine_loaded_again() -> None:
    fake = fake_of(vpr=[fails_to_load(DeviceContextError("lost")), FINE], other=FINE, third=FINE)
    with Flight(fake, "other") as flight:
        flight.loaded("third")
        assert flight.answer(flight.load("vpr")) == "context_fault"
        flight.world.advance_ms(1000)
        assert flight.facts(EngineLoaded) == ["other", "third", "other", "third"]
        assert flight.slots() == {"other": "serving", "third": "serving"}


def test_a_first_load_that_finds_the_device_gone_is_told_so_and_asks_for_a_new_process() -> None:
    asked_for: list[str] = []
    fake = fake_of(vpr=[fails_to_load(DeviceFaultError("gone")), FINE], other=FINE)
    with Flight(fake, "other", on_restart_needed=asked_for.append) as flight:
        assert flight.answer(flight.load("vpr")) == "device_fault"
        assert len(asked_for) == 1
        again = flight.load("vpr")
        assert flight.answer(again) == "device_fault"
        assert flight.detail(again).startswith("process restart needed: ")
        assert reason(flight.ask("other")) == "engine_unavailable"


def test_a_load_that_hangs_is_told_at_its_timeout_and_others_load_on() -> None:
    with Flight(fake_of(vpr=[hangs_at_load(), FINE], late=FINE)) as flight:
        vpr = flight.load("vpr", 1)
        late = flight.load("late", 2)
        flight.world.advance_ms(LOAD_TIMEOUT_S * 1000 - 1)
        assert not vpr._answered
        assert flight.answer(vpr, 1) == "hang"
        assert flight.detail(vpr) == "did not load within 3 s"
        assert flight.answer(late) is None
        assert reason(flight.ask("late")) == "completed"


def test_a_load_that_was_given_up_is_not_ordered_again_before_it_has_returned_and_then_it_is() -> None:
    with Flight(fake_of(vpr=[hangs_at_load(), FINE])) as flight:
        flight.answer(flight.load("vpr"), LOAD_TIMEOUT_S * 1000)
        again = flight.load("vpr")
        flight.answer(again)
        assert flight.detail(again) == "its last load has not returned"
        flight.fake.release_hung()
        flight.world.run_until_idle()
        assert flight.fake.loaded == ()
        assert flight.slots() == {}
        flight.loaded("vpr")
        assert reason(flight.ask("vpr")) == "completed"


def test_an_engine_that_is_part_of_the_flight_is_not_ordered_once_more() -> None:
    with Flight(fake_of(vpr=FINE), "vpr") as flight:
        again = flight.load("vpr")
        flight.answer(again)
        assert flight.detail(again) == "it is part of the flight already"
        assert flight.fake.loads("vpr") == 1


def test_an_engine_that_was_taken_into_the_flight_restarts_like_any_other() -> None:
    with Flight(fake_of(vpr=[DIES, fails_to_load(EngineDeserializeError("busy")), FINE])) as flight:
        flight.loaded("vpr")
        flight.ask("vpr")
        flight.world.advance_ms(1000)
        assert reason(flight.ask("vpr")) == "completed"


def test_a_first_load_under_way_when_the_context_is_lost_begins_again_and_is_told_once_it_is_done() -> None:
    fake = fake_of(vpr=[raises(DeviceContextError("lost")), FINE], new=[takes_ms(200, loads()), FINE])
    with Flight(fake, "vpr") as flight:
        new = flight.load("new")
        flight.world.advance_ms(50)
        flight.ask("vpr")
        flight.world.advance_ms(100)
        assert not new._answered
        assert flight.answer(new, 1000) is None
        assert fake.loads("new") == 2
        assert reason(flight.ask("new")) == "completed"


def test_a_first_load_that_hangs_when_the_context_is_lost_is_told_at_its_timeout_and_holds_nobody_up() -> None:
    fake = fake_of(vpr=[raises(DeviceContextError("lost")), FINE], new=[hangs_at_load(), FINE])
    with Flight(fake, "vpr") as flight:
        new = flight.load("new")
        flight.world.advance_ms(50)
        flight.ask("vpr")
        assert flight.answer(new, LOAD_TIMEOUT_S * 1000) == "hang"
        flight.world.advance_ms(1000)
        assert reason(flight.ask("vpr")) == "completed"


def test_an_order_during_the_restart_of_a_lost_context_waits_until_all_have_let_go() -> None:
    fake = fake_of(
        vpr=[raises(DeviceContextError("lost")), FINE],
        slow=[takes_ms(300, FINE), FINE],
        new=FINE,
    )
    with Flight(fake, "vpr", "slow", runs_at_once=2) as flight:
        flight.submit("slow")
        flight.world.run_until_idle()
        flight.ask("vpr")
        new = flight.load("new")
        flight.world.advance_ms(250)
        assert not new._answered
        assert "new" not in fake.loaded
        assert flight.answer(new, 500) is None
        assert reason(flight.ask("new")) == "completed"


@pytest.mark.parametrize("end", ["stop", "death"])
def test_whoever_waits_for_the_supervisor_is_answered_when_it_ends(end: str) -> None:
    may_load = threading.Event()
    fake = fake_of(vpr=takes_ms(300, FINE), late=[loads_after(may_load), FINE])
    with Flight(fake) as flight:
        flight.loaded("vpr")
        flight.submit("vpr")
        flight.world.run_until_idle()
        replies = [flight.load("late"), flight.release("vpr")]
        flight.world.run_until_idle()
        if end == "death":
            supervisor = flight.world.supervision.actor_ref._actor_weakref()
            assert supervisor is not None
            supervisor.fail(RuntimeError("a bug"))
        else:
            flight.world.supervision.actor_ref.stop(block=False)
        flight.world.advance_ms(5000)
        assert [each._answered for each in replies] == [True, True]
        assert flight.detail(replies[0]).startswith("the supervisor ended: ")
        may_load.set()


# Counted and forgotten


def test_a_row_goes_on_counting_when_its_engine_is_released_and_loaded_again() -> None:
    with Flight(fake_of(vpr=FINE)) as flight:
        for count in range(1, 4):
            flight.loaded("vpr")
            flight.ask("vpr")
            flight.answer(flight.release("vpr"))
            statistics = flight.world.statistics()["vpr"]
            assert (statistics.generation, statistics.tally.completed) == (count, count)
        assert flight.ask("vpr").detail == "this model is not part of the flight"  # type: ignore[union-attr]
        tally = flight.world.tallies()["vpr"]
        assert tally.submitted == tally.completed + sum(tally.rejected.values())


@pytest.mark.parametrize("lost", [InferenceError("716"), DeviceContextError("lost")], ids=repr)
def test_a_recovery_does_not_wait_for_an_engine_that_was_released_before_it_came_back(lost: BaseException) -> None:
    fake = fake_of(slow=[fails_to_load(EngineDeserializeError("busy")), FINE], vpr=[raises(lost), FINE])
    with Flight(fake, "slow", mode="recovery") as flight:
        flight.loaded("vpr")
        flight.ask("vpr")
        flight.world.run_until_idle()
        flight.answer(flight.release("vpr"))
        assert flight.facts(EngineLoaded) == ["vpr"]
        flight.world.advance_ms(1000)
        assert flight.facts(EngineLoaded) == ["vpr", "slow"]
        assert sum(isinstance(each, AllEnginesLoaded) for each in flight.world.messages) == 1
        assert not flight.world.supervision.readiness.undecided


def test_a_load_that_was_too_late_is_no_engine_of_the_flight_that_failed() -> None:
    with Flight(fake_of(vpr=[hangs_at_load(), FINE], other=FINE), "other") as flight:
        flight.answer(flight.load("vpr"), LOAD_TIMEOUT_S * 1000)
        flight.fake.release_hung()
        flight.world.run_until_idle()
        assert flight.world.supervision.readiness.failed == {}


def test_five_hundred_loads_and_releases_leave_nothing() -> None:
    with Flight(fake_of(vpr=FINE, other=FINE), "other") as flight:
        for _ in range(500):
            flight.loaded("vpr")
            flight.answer(flight.release("vpr"))
        assert flight.slots() == {"other": "serving"}
        assert flight.fake.loaded == ("other",)
        assert flight.timers == 1, "the tick"
        assert reason(flight.ask("other")) == "completed"
        assert sum(isinstance(each, AllEnginesLoaded) for each in flight.world.messages) == 1
