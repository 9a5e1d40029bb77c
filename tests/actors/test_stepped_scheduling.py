"""Loops that take turns: what waits, what wakes, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from actors.stepped_scheduling import SteppedScheduling, SteppedSignal, SteppedWorldError
from messages import NS_PER_MS, NS_PER_S, InferenceError, VirtualClock


class Bench:
    """A scheduling on a clock, and what its loops wrote down."""

    def __init__(self) -> None:
        self.clock = VirtualClock(start_ns=0)
        self.scheduling = SteppedScheduling(self.clock, seed=1)
        self.seen: list[object] = []

    def start(self, loop: Callable[[], None], name: str = "loop") -> None:
        def run() -> None:
            with suppress(InferenceError):  # of a step that was under way at the end
                loop()

        self.scheduling.start(run, name)

    def taken(self) -> SteppedSignal:
        signal = self.scheduling.signal()
        assert signal.acquire()
        return signal

    def sleep(self, duration_ms: float) -> None:
        self.scheduling.sleep_ns(round(duration_ms * NS_PER_MS))

    def now_ms(self) -> float:
        return self.clock.monotonic_ns() / NS_PER_MS


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.scheduling.end()


def test_a_signal_is_a_lock(bench: Bench) -> None:
    signal = bench.scheduling.signal()
    assert not signal.locked()
    assert signal.acquire()
    assert signal.locked()
    assert not signal.acquire(blocking=False)
    assert not signal.acquire(timeout=0)
    signal.release()
    assert not signal.locked()
    with pytest.raises(RuntimeError, match="expected a signal that is acquired"):
        signal.release()


def test_who_waits_goes_on_once_the_signal_is_released_and_holds_it_then(bench: Bench) -> None:
    signal = bench.taken()

    def loop() -> None:
        assert signal.acquire()
        bench.seen.append(bench.now_ms())

    bench.start(loop)
    bench.scheduling.run_until(30 * NS_PER_MS)
    assert bench.seen == []
    signal.release()
    bench.scheduling.run_until(30 * NS_PER_MS)
    assert (bench.seen, signal.locked()) == ([30], True)


def test_a_wait_ends_when_its_time_is_over(bench: Bench) -> None:
    signal = bench.taken()
    bench.start(lambda: bench.seen.append((signal.acquire(timeout=0.05), bench.now_ms())))
    bench.scheduling.run_until(NS_PER_S)
    assert bench.seen == [(False, 50)]
    assert signal.waiting == []


def test_whoever_comes_first_takes_the_signal_before_who_was_woken(bench: Bench) -> None:
    signal = bench.taken()
    bench.start(lambda: bench.seen.append(signal.acquire(timeout=0.05)))
    bench.scheduling.run_until(0)
    signal.release()
    assert signal.acquire()
    bench.scheduling.run_until(NS_PER_S)
    assert bench.seen == [False]


def test_each_release_wakes_one_of_those_who_wait(bench: Bench) -> None:
    signal = bench.taken()
    for number in range(3):
        bench.start(lambda number=number: bench.seen.append((number, signal.acquire())))  # type: ignore[misc]
    bench.scheduling.run_until(0)
    for count in (1, 2, 3):
        signal.release()
        bench.scheduling.run_until(0)
        assert len(bench.seen) == count


def test_time_stands_still_while_anybody_can_go_on_and_then_jumps_to_whoever_is_first(bench: Bench) -> None:
    def loop(duration_ms: int) -> None:
        bench.sleep(duration_ms)
        bench.seen.append((duration_ms, bench.now_ms()))

    for duration_ms in (30, 10, 20):
        bench.start(lambda duration_ms=duration_ms: loop(duration_ms))  # type: ignore[misc]
    bench.scheduling.run_until(25 * NS_PER_MS)
    assert bench.seen == [(10, 10), (20, 20)]
    assert bench.now_ms() == 25


def test_what_is_due_at_the_very_end_still_happens_with_all_that_follows_from_it(bench: Bench) -> None:
    signal = bench.taken()

    def first() -> None:
        bench.sleep(10)
        signal.release()

    def second() -> None:
        assert signal.acquire()
        bench.seen.append(bench.now_ms())

    bench.start(first)
    bench.start(second)
    bench.scheduling.run_until(10 * NS_PER_MS)
    assert bench.seen == [10]


def test_a_clock_that_the_test_has_moved_by_hand_makes_things_late_and_not_lost(bench: Bench) -> None:
    def loop() -> None:
        bench.sleep(10)
        bench.seen.append(bench.now_ms())

    bench.start(loop)
    bench.scheduling.run_until(0)
    bench.clock.advance_ms(40)
    bench.scheduling.run_until(0)
    assert bench.seen == [40]
    assert bench.now_ms() == 40


def test_an_event_that_the_test_sets_wakes_who_waits_for_it_and_nobody_else(bench: Bench) -> None:
    event = threading.Event()

    def waits() -> None:
        bench.scheduling.wait_for(event)
        bench.sleep(5)
        bench.seen.append(bench.now_ms())

    bench.start(waits)
    bench.scheduling.run_until(20 * NS_PER_MS)
    assert bench.seen == []
    event.set()
    bench.scheduling.run_until(40 * NS_PER_MS)
    assert bench.seen == [25]


def test_an_event_that_is_set_already_costs_no_turn(bench: Bench) -> None:
    event = threading.Event()
    event.set()
    bench.scheduling.wait_for(event)
    assert bench.now_ms() == 0


def test_every_loop_has_a_number_of_its_own(bench: Bench) -> None:
    def loop() -> None:
        bench.seen.append(bench.scheduling.current())
        bench.sleep(1)

    bench.start(loop)
    bench.start(loop)
    bench.scheduling.run_until(0)
    assert len({*bench.seen, bench.scheduling.current()}) == 3


def test_a_wait_that_nobody_will_end_says_who_waits_for_what(bench: Bench) -> None:
    signal = bench.taken()

    def waits_for_ever() -> None:
        signal.acquire()

    bench.start(waits_for_ever, "a consumer")
    with pytest.raises(SteppedWorldError, match="everybody waiting for somebody else") as caught:
        bench.taken().acquire()
    assert "the test in test_a_wait_that_nobody_will_end_says_who_waits_for_what, test_stepped" in str(caught.value)
    assert "a consumer in waits_for_ever, test_stepped_scheduling.py" in str(caught.value)


def test_a_wait_of_the_test_that_others_outlive_ends_in_an_error(bench: Bench) -> None:
    def ticks() -> None:
        while True:
            bench.sleep(60_000)

    bench.start(ticks, "a clockwork")
    with pytest.raises(SteppedWorldError, match=r"3600 s of virtual time .*: the test in .*, a clockwork in sleep"):
        bench.taken().acquire()


def test_loops_that_wake_each_other_for_ever_at_one_instant_are_an_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.stepped_scheduling.TURNS_MAX", 1000)

    def spins() -> None:
        while True:
            bench.sleep(0)

    bench.start(spins, "a spinner")
    with pytest.raises(SteppedWorldError, match="1000 turns at one instant: a spinner in sleep"):
        bench.scheduling.run_until(NS_PER_S)


def test_what_escapes_from_a_loop_reaches_the_test(bench: Bench) -> None:
    def fails() -> None:
        raise ZeroDivisionError("a bug")

    bench.start(fails)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        bench.scheduling.run_until(NS_PER_S)
    bench.scheduling.run_until(NS_PER_S)
    assert bench.now_ms() == 1000


def test_a_wait_on_another_thread_is_refused(bench: Bench) -> None:
    signal = bench.taken()
    refused: list[str] = []

    def waits() -> None:
        try:
            signal.acquire()
        except SteppedWorldError as error:
            refused.append(str(error))

    thread = threading.Thread(target=waits, name="a stray thread")
    thread.start()
    thread.join(timeout=20)
    assert "found a stray thread: a stepped test starts no threads" in refused[0]


def test_a_loop_cannot_move_the_time(bench: Bench) -> None:
    def moves() -> None:
        with pytest.raises(SteppedWorldError, match="expected the test itself to move the time, found a mover"):
            bench.scheduling.run_until(NS_PER_S)
        bench.seen.append("refused")

    bench.start(moves, "a mover")
    bench.scheduling.run_until(0)
    assert bench.seen == ["refused"]


def test_the_end_ends_every_wait_of_a_loop_and_lets_it_clean_up() -> None:
    bench = Bench()
    signal = bench.taken()

    def waits() -> None:
        try:
            signal.acquire()
        finally:
            bench.seen.append("signal")

    def sleeps() -> None:
        try:
            bench.sleep(10)
        except InferenceError as error:
            bench.seen.append(str(error))
            signal.acquire()

    def hangs() -> None:
        with pytest.raises(InferenceError, match="waited for its event"):
            bench.scheduling.wait_for(threading.Event())
        bench.seen.append("event")

    for loop in (waits, sleeps, hangs):
        bench.start(loop)
    bench.scheduling.run_until(0)
    bench.scheduling.end()
    assert set(bench.seen) == {"signal", "event", "the stepped world ended while this step took its time"}
    assert bench.now_ms() == 0


def test_what_escapes_from_a_loop_at_the_end_reaches_the_test_once_all_have_ended() -> None:
    bench = Bench()
    bench.scheduling.start(lambda: bench.sleep(1), "a careless loop")
    for _ in range(3):
        bench.start(lambda: bench.seen.append("a turn"))
    with pytest.raises(InferenceError, match="the stepped world ended"):
        bench.scheduling.end()
    assert bench.seen == ["a turn"] * 3


def test_a_loop_that_will_not_end_is_named_and_left_behind() -> None:
    bench = Bench()
    signal = bench.taken()

    def stays() -> None:
        while True:
            with suppress(BaseException):
                signal.acquire()

    bench.start(stays, "a stubborn loop")
    with pytest.raises(SteppedWorldError, match="expected every loop to end with the world, found a stubborn loop in"):
        bench.scheduling.end()


def test_after_the_end_there_is_nothing_to_wait_in() -> None:
    bench = Bench()
    signal = bench.taken()
    bench.scheduling.end()
    with pytest.raises(SteppedWorldError, match="found that it has ended"):
        signal.acquire()
    with pytest.raises(SteppedWorldError, match="found that it has ended"):
        bench.scheduling.run_until(NS_PER_S)
