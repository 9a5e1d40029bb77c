"""Engines that a flight lets go of, in every state that an engine can be in."""

from __future__ import annotations

import threading
from pathlib import Path

from messages import (
    DeviceContextError,
    EngineLoaded,
    InferenceError,
    OutOfMemoryError,
)
from runtimes import BuildConfig, EngineHandle, FakeRuntime, hangs, raises, takes_ms
from runtimes.fake_steps import hangs_at_load, loads, loads_after
from runtimes.measurements import MemoryUse
from runtimes.sign_off.self_test import record_known_answers
from runtimes.store.engine_writer import sign_off
from tests.actors.ordered_flight import FINE, IMAGE, LOAD_TIMEOUT_S, RUN_LIMIT_MS, Flight, fake_of, reason

DIES = raises(InferenceError("716"))


def test_a_release_is_answered_once_the_engine_is_free() -> None:
    with Flight(fake_of(vpr=FINE, other=FINE), "other") as flight:
        flight.loaded("vpr")
        assert flight.answer(flight.release("vpr")) is None
        assert flight.is_gone("vpr")
        assert reason(flight.ask("other")) == "completed"


def test_what_nobody_flies_is_released_at_once() -> None:
    with Flight(fake_of(vpr=FINE)) as flight:
        assert flight.answer(flight.release("vpr")) is None
        flight.loaded("vpr")
        flight.answer(flight.release("vpr"))
        assert flight.answer(flight.release("vpr")) is None


def test_a_release_lets_the_run_end_refuses_what_waits_and_answers_after_both() -> None:
    with Flight(fake_of(vpr=takes_ms(200, FINE))) as flight:
        flight.loaded("vpr")
        running = flight.submit("vpr")
        flight.world.run_until_idle()
        waiting = [flight.submit("vpr", frame_id=number) for number in (1, 1, 2)]
        released = flight.release("vpr")
        flight.world.advance_ms(100)
        assert not released._answered
        assert [(reason(each.result()), each.outcome.detail) for each in waiting] == [  # type: ignore[union-attr]
            ("engine_unavailable", "it was released")
        ] * 3
        assert flight.ask("vpr").detail == "it was released"  # type: ignore[union-attr]
        assert flight.answer(released, 100) is None
        assert reason(running.result()) == "completed"
        tally = flight.world.tallies()["vpr"]
        assert (tally.submitted, tally.completed, tally.open) == (5, 1, 0)


def test_an_engine_that_still_loads_is_forgotten_when_its_load_returns_and_never_serves() -> None:
    may_load = threading.Event()
    with Flight(fake_of(vpr=[loads_after(may_load), FINE])) as flight:
        ordered = flight.load("vpr")
        flight.world.advance_ms(50)
        released = flight.release("vpr")
        flight.world.run_until_idle()
        assert (flight.answer(ordered), flight.detail(ordered)) == ("engine_fault", "it was released")
        assert not released._answered
        may_load.set()
        assert flight.answer(released) is None
        assert flight.is_gone("vpr")
        assert flight.facts(EngineLoaded) == []


def test_an_engine_that_waits_for_its_turn_to_load_is_forgotten_at_once() -> None:
    with Flight(fake_of(first=[takes_ms(100, loads()), FINE], vpr=FINE)) as flight:
        flight.load("first")
        ordered = flight.load("vpr")
        flight.world.run_until_idle()
        assert flight.answer(flight.release("vpr")) is None
        assert flight.answer(ordered) == "engine_fault"
        flight.world.advance_ms(200)
        assert flight.facts(EngineLoaded) == ["first"]


def test_a_self_test_that_takes_its_time_is_no_hang_because_its_engine_was_released(tmp_path: Path) -> None:
    source = tmp_path / "vpr.onnx"
    source.write_bytes(b"weights")
    answering = fake_of(vpr=FINE)
    compiled = answering.compile_engine(source, BuildConfig())
    answers = record_known_answers(answering, answering.deserialize_engine(compiled), IMAGE)
    memory = MemoryUse(load_bytes=0, run_bytes=0)
    entry = sign_off(compiled, self_test=answers, power=None, memory=memory, accuracy=None)
    fake = fake_of(vpr=takes_ms(2 * RUN_LIMIT_MS, FINE), other=FINE)
    with Flight(fake, "other") as flight:
        ordered = flight.load("vpr", entry=entry)
        flight.world.advance_ms(50)
        assert len(fake.calls) == 1
        released = flight.release("vpr")
        flight.world.advance_ms(RUN_LIMIT_MS + 500)
        assert flight.detail(ordered) == "it was released"
        assert not flight.world.supervision.restart_needed
        assert flight.answer(released, RUN_LIMIT_MS) is None
        assert flight.is_gone("vpr")
        assert reason(flight.ask("other")) == "completed"


def test_an_engine_that_is_down_with_something_kept_is_freed_before_it_is_forgotten() -> None:
    with Flight(fake_of(vpr=[DIES, FINE])) as flight:
        flight.loaded("vpr")
        flight.ask("vpr")
        flight.world.run_until_idle()
        assert flight.slots() == {"vpr": "down"}
        assert flight.fake.loaded == ("vpr",), "suspended for its next start"
        assert flight.answer(flight.release("vpr")) is None
        assert not flight.fake.loaded
        assert flight.timers == 1, "the tick"
        flight.world.advance_ms(10_000)
        assert flight.slots() == {}
        assert flight.fake.loads("vpr") == 1


def test_an_engine_in_quarantine_is_forgotten_with_its_probation() -> None:
    with Flight(fake_of(vpr=[raises(ValueError("a bug")), raises(ValueError("a bug")), FINE])) as flight:
        flight.loaded("vpr")
        for _ in range(2):
            flight.ask("vpr")
            flight.world.advance_ms(200)
        assert flight.slots() == {"vpr": "quarantined"}
        assert flight.answer(flight.release("vpr")) is None
        assert flight.timers == 1, "the tick"
        flight.world.advance_ms(120_000)
        assert flight.is_gone("vpr")
        flight.loaded("vpr")
        assert reason(flight.ask("vpr")) == "completed"


def test_an_engine_whose_restart_was_too_late_and_has_returned_is_forgotten_when_it_is_released() -> None:
    fake = fake_of(vpr=[raises(OutOfMemoryError("2 GiB")), raises(OutOfMemoryError("2 GiB")), hangs_at_load(), FINE])
    with Flight(fake) as flight:
        flight.loaded("vpr")
        flight.ask("vpr")
        flight.ask("vpr")
        flight.world.advance_ms(LOAD_TIMEOUT_S * 1000 + 500)
        assert flight.slots() == {"vpr": "quarantined"}
        fake.release_hung()
        flight.world.run_until_idle()
        assert flight.answer(flight.release("vpr")) is None
        assert flight.slots() == {}
        flight.loaded("vpr")
        assert reason(flight.ask("vpr")) == "completed"


def test_an_engine_whose_restart_hangs_is_left_behind_and_forgotten_once_it_returns() -> None:
    fake = fake_of(vpr=[raises(OutOfMemoryError("2 GiB")), raises(OutOfMemoryError("2 GiB")), hangs_at_load(), FINE])
    with Flight(fake) as flight:
        flight.loaded("vpr")
        flight.ask("vpr")
        flight.ask("vpr")
        flight.world.advance_ms(LOAD_TIMEOUT_S * 1000 + 500)
        assert flight.answer(flight.release("vpr")) is None, "nobody knows when it returns"
        again = flight.load("vpr")
        flight.answer(again)
        assert flight.detail(again) == "its last load has not returned"
        fake.release_hung()
        flight.world.run_until_idle()
        flight.loaded("vpr")


def test_an_engine_whose_context_is_being_given_up_is_forgotten_and_the_others_load_again() -> None:
    fake = fake_of(vpr=[raises(DeviceContextError("lost")), FINE], slow=[takes_ms(300, FINE), FINE])
    with Flight(fake, "vpr", runs_at_once=2) as flight:
        flight.loaded("slow")
        flight.submit("slow")
        flight.world.run_until_idle()
        flight.ask("vpr")
        flight.world.run_until_idle()
        assert flight.slots()["slow"] == "stopping"
        released = flight.release("slow")
        flight.world.run_until_idle()
        assert not released._answered
        assert flight.answer(released, 400) is None
        assert flight.slots() == {"vpr": "serving"}
        assert flight.is_gone("slow")


def test_what_was_kept_and_became_stale_is_freed_before_its_engine_is_forgotten() -> None:
    fake = fake_of(vpr=[DIES, FINE], other=[raises(DeviceContextError("lost")), FINE])
    with Flight(fake, "other") as flight:
        flight.loaded("vpr")
        flight.ask("vpr")
        flight.ask("other")
        flight.world.run_until_idle()
        assert "vpr" in fake.loaded
        assert flight.answer(flight.release("vpr"), 1) is None
        assert "vpr" not in fake.loaded
        flight.world.advance_ms(1000)
        assert flight.slots() == {"other": "serving"}


def test_a_release_of_an_engine_that_hangs_is_answered_at_once() -> None:
    asked_for: list[str] = []
    with Flight(fake_of(vpr=hangs()), on_restart_needed=asked_for.append) as flight:
        flight.loaded("vpr")
        running = flight.submit("vpr")
        flight.world.advance_ms(RUN_LIMIT_MS + 100)
        assert len(asked_for) == 1
        assert flight.answer(flight.release("vpr")) is None
        assert reason(running.result()) == "inference_error"


def test_a_release_waits_for_the_hang_of_its_last_run_to_be_found() -> None:
    with Flight(fake_of(vpr=hangs())) as flight:
        flight.loaded("vpr")
        flight.submit("vpr")
        flight.world.run_until_idle()
        released = flight.release("vpr")
        flight.world.run_until_idle()
        assert not released._answered
        assert flight.answer(released, RUN_LIMIT_MS + 100) is None


def test_engines_are_released_also_where_only_a_new_process_flies_on() -> None:
    fake = fake_of(vpr=FINE, down=[DIES, FINE], other=hangs())
    with Flight(fake, "other") as flight:
        flight.loaded("vpr", "down")
        flight.ask("down")
        flight.submit("other")
        flight.world.advance_ms(RUN_LIMIT_MS + 100)
        assert flight.world.supervision.restart_needed
        for model in ("vpr", "down"):
            assert flight.answer(flight.release(model)) is None
        assert set(flight.slots()) == {"other"}


def test_an_engine_that_never_lets_go_is_found_and_its_release_answered() -> None:
    class Stuck(FakeRuntime):
        def release_engine(self, handle: EngineHandle) -> None:
            if handle.entry.model == "vpr":
                self.stage.hang()
            super().release_engine(handle)

    with Flight(Stuck({"vpr": FINE})) as flight:
        flight.loaded("vpr")
        released = flight.release("vpr")
        flight.world.run_until_idle()
        assert not released._answered
        assert flight.answer(released, RUN_LIMIT_MS + 200) is None
        assert flight.world.supervision.restart_needed


def test_a_kept_engine_that_is_never_freed_is_left_behind_at_the_load_timeout() -> None:
    class Stuck(FakeRuntime):
        def release_engine(self, handle: EngineHandle) -> None:
            self.stage.hang()
            super().release_engine(handle)

    with Flight(Stuck({"vpr": [DIES, FINE], "other": FINE})) as flight:
        flight.loaded("vpr")
        flight.ask("vpr")
        flight.world.run_until_idle()
        released = flight.release("vpr")
        other = flight.load("other")
        flight.world.run_until_idle()
        assert not released._answered
        assert flight.answer(released, LOAD_TIMEOUT_S * 1000) is None
        assert flight.answer(other) is None
        flight.fake.release_hung()
        flight.world.run_until_idle()
        assert flight.slots() == {"other": "serving"}


def test_two_releases_of_one_engine_are_both_answered() -> None:
    with Flight(fake_of(vpr=takes_ms(100, FINE))) as flight:
        flight.loaded("vpr")
        flight.submit("vpr")
        flight.world.run_until_idle()
        replies = [flight.release("vpr"), flight.release("vpr")]
        flight.world.advance_ms(100)
        assert [flight.answer(each) for each in replies] == [None, None]
