"""One request, one outcome."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from actors.ledger import UNKNOWN_MODEL, Ledger
from actors.pending import Pending
from messages import NS_PER_MS, Clock, Infer, InferCompleted, InferRejected, MonotonicClock, Outcome, VirtualClock
from messages.errors import DETAIL_MAX_CHARS


def request(clock: VirtualClock, *, model: str = "vpr", within_ms: float = 100, request_id: int = 1) -> Infer:
    return Infer(
        model=model,
        inputs={"image": np.zeros(1, np.float32)},
        consumer="c2_vpr",
        frame_id=7,
        deadline_ns=clock.monotonic_ns() + int(within_ms * NS_PER_MS),
        request_id=request_id,
    )


def completed(asked: Infer) -> InferCompleted:
    return InferCompleted(
        model=asked.model,
        consumer=asked.consumer,
        frame_id=asked.frame_id,
        request_id=asked.request_id,
        outputs={},
        generation=1,
        queued_ns=0,
        run_ns=0,
    )


def admitted(asked: Infer, ledger: Ledger, clock: Clock) -> Pending:
    pending = Pending(asked, ledger, clock)
    ledger.count_submitted(pending, asked)
    return pending


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(["vpr"])


def test_the_first_settle_wins_and_only_the_winner_counts(clock: VirtualClock, ledger: Ledger) -> None:
    asked = request(clock)
    pending = admitted(asked, ledger, clock)
    assert pending.settle(completed(asked))
    assert not pending.reject("expired")
    assert not pending.cancel()
    assert isinstance(pending.result(), InferCompleted)
    tally = ledger.tallies()["vpr"]
    assert (tally.submitted, tally.completed, tally.rejected, tally.open) == (1, 1, {}, 0)


def test_a_late_result_is_dropped(clock: VirtualClock, ledger: Ledger) -> None:
    asked = request(clock)
    pending = admitted(asked, ledger, clock)
    clock.advance_ms(200)
    outcome = pending.result()
    assert isinstance(outcome, InferRejected)
    assert outcome.reason == "expired"
    assert not pending.settle(completed(asked))
    assert pending.result() is outcome


def test_many_threads_settle_and_one_outcome_comes_out(ledger: Ledger) -> None:
    clock = MonotonicClock()
    asked = Infer("vpr", {}, "c2_vpr", 1, clock.monotonic_ns() + 10**10, 1)
    for _ in range(200):
        pending = admitted(asked, ledger, clock)
        start = threading.Barrier(4)
        wins: list[bool] = []

        def settle(pending: Pending = pending, start: threading.Barrier = start, wins: list[bool] = wins) -> None:
            start.wait(10)
            wins.append(pending.settle(completed(asked)) if len(wins) % 2 else pending.reject("shed"))

        threads = [threading.Thread(target=settle) for _ in range(3)]
        for thread in threads:
            thread.start()
        start.wait(10)
        pending.result()
        for thread in threads:
            thread.join(10)
        assert sum(wins) == 1
    assert ledger.tallies()["vpr"].open == 0


def test_a_rejection_says_when_an_engine_still_reads_the_inputs(clock: VirtualClock, ledger: Ledger) -> None:
    waiting, running, returned = (admitted(request(clock), ledger, clock) for _ in range(3))
    assert running.begin_run() is not None
    assert returned.begin_run() is not None
    returned.end_run()
    for pending in (waiting, running, returned):
        pending.reject("shutting_down")
    outcomes = [pending.result() for pending in (waiting, running, returned)]
    assert [o.inputs_released for o in outcomes if isinstance(o, InferRejected)] == [True, False, True]


def test_a_run_never_begins_for_a_request_that_nobody_waits_for(clock: VirtualClock, ledger: Ledger) -> None:
    pending = admitted(request(clock), ledger, clock)
    pending.cancel()
    assert pending.begin_run() is None


def test_the_inputs_are_let_go_with_the_outcome(clock: VirtualClock, ledger: Ledger) -> None:
    asked = request(clock)
    pending = admitted(asked, ledger, clock)
    pending.reject("shed")
    assert all(getattr(pending, slot, None) is not asked for slot in Pending.__slots__ if slot != "__weakref__")


def test_wrong_names_share_one_row_of_the_ledger(clock: VirtualClock, ledger: Ledger) -> None:
    for index in range(1000):
        admitted(request(clock, model=f"no_such_model_{index}"), ledger, clock).reject("unknown_model")
    assert set(ledger.tallies()) == {"vpr", UNKNOWN_MODEL}
    assert ledger.tallies()[UNKNOWN_MODEL].rejected == {"unknown_model": 1000}


def test_the_observer_sees_the_request_at_admission_and_the_outcome_at_settlement(clock: VirtualClock) -> None:
    seen: list[Infer | Outcome] = []
    asked = request(clock)
    pending = admitted(asked, Ledger(["vpr"], seen.append), clock)
    assert seen == [asked]
    pending.reject("cancelled")
    assert seen == [asked, pending.result()]


@pytest.mark.parametrize("settled_first", [True, False])
def test_a_listener_is_told_once_whenever_it_begins_to_listen(
    clock: VirtualClock, ledger: Ledger, settled_first: bool
) -> None:
    told: list[Outcome] = []
    pending = admitted(request(clock), ledger, clock)
    if settled_first:
        pending.reject("shed")
    pending.listen(told.append)
    pending.reject("shed")
    pending.reject("expired")
    pending.cancel()
    assert told == [pending.result()]


def test_a_second_listener_is_refused(clock: VirtualClock, ledger: Ledger) -> None:
    pending = admitted(request(clock), ledger, clock)
    pending.listen(lambda _outcome: None)
    with pytest.raises(RuntimeError, match="found a listener"):
        pending.listen(lambda _outcome: None)


def test_a_listener_finds_the_outcome_there_and_counted(clock: VirtualClock, ledger: Ledger) -> None:
    pending = admitted(request(clock), ledger, clock)
    found: list[tuple[bool, int]] = []
    pending.listen(lambda _outcome: found.append((pending.done, ledger.tallies()["vpr"].open)))
    pending.expire()
    assert found == [(True, 0)]


def test_many_threads_settle_and_the_listener_is_told_once(ledger: Ledger) -> None:
    clock = MonotonicClock()
    asked = Infer("vpr", {}, "c2_vpr", 1, clock.monotonic_ns() + 10**10, 1)
    for _ in range(200):
        pending = admitted(asked, ledger, clock)
        start = threading.Barrier(4)
        told: list[Outcome] = []

        def settle(pending: Pending = pending, start: threading.Barrier = start) -> None:
            start.wait(10)
            pending.reject("shed")

        threads = [threading.Thread(target=settle) for _ in range(3)]
        for thread in threads:
            thread.start()
        start.wait(10)
        pending.listen(told.append)
        for thread in threads:
            thread.join(10)
        assert told == [pending.result()]


def test_a_run_whose_result_came_too_late_is_a_run_all_the_same(clock: VirtualClock, ledger: Ledger) -> None:
    asked = request(clock)
    given_up, overran = admitted(asked, ledger, clock), admitted(asked, ledger, clock)
    given_up.cancel()
    late = InferCompleted("vpr", "c2_vpr", 7, 1, {}, 1, 5, 30 * NS_PER_MS)
    assert not given_up.settle(late)
    overran.count_late_run(5, 40 * NS_PER_MS)
    overran.expire()
    vpr = ledger.statistics()["vpr"]
    assert (vpr.tally.completed, vpr.tally.rejected) == (0, {"cancelled": 1, "expired": 1})
    assert (vpr.run.count, vpr.run.max_ns, vpr.queue.count) == (2, 40 * NS_PER_MS, 2)


def test_everybody_who_waits_learns_the_outcome(ledger: Ledger) -> None:
    clock = MonotonicClock()
    asked = Infer("vpr", {}, "c2_vpr", 1, clock.monotonic_ns() + 10**10, 1)
    for _ in range(100):
        pending = admitted(asked, ledger, clock)
        seen: list[Outcome] = []
        threads = [threading.Thread(target=lambda: seen.append(pending.result())) for _ in range(3)]  # noqa: B023
        for thread in threads:
            thread.start()
        pending.settle(completed(asked))
        for thread in threads:
            thread.join(5)
        assert seen == [pending.result()] * 3


def test_an_observer_that_fails_keeps_the_outcome_from_nobody(clock: VirtualClock) -> None:
    def fail(_message: Infer | Outcome) -> None:
        raise KeyboardInterrupt

    ledger = Ledger(["vpr"])
    told: list[Outcome] = []
    pending = admitted(request(clock), ledger, clock)
    pending.listen(told.append)
    ledger.observe = fail
    with pytest.raises(KeyboardInterrupt):
        pending.cancel()
    assert told == [pending.result()]


def test_a_listener_that_comes_while_the_outcome_is_announced_is_told_once(clock: VirtualClock, ledger: Ledger) -> None:
    told: list[Outcome] = []
    pending = admitted(request(clock), ledger, clock)
    ledger.observe = lambda _outcome: pending.listen(told.append)
    pending.cancel()
    assert told == [pending.result()]


def test_what_is_told_of_a_rejection_is_bounded(clock: VirtualClock, ledger: Ledger) -> None:
    pending = admitted(request(clock), ledger, clock)
    pending.reject("engine_unavailable", "why " * 1000)
    outcome = pending.result()
    assert isinstance(outcome, InferRejected)
    assert len(outcome.detail) == DETAIL_MAX_CHARS
