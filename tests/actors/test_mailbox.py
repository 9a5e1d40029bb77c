"""A mailbox that never blocks a sender, bounds work in whole frames, and closes."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pykka
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.ledger import Ledger
from actors.mailbox import WORK_AVAILABLE, Mailbox, Refusal
from actors.pending import Pending
from actors.shedding import FRAMES_TOTAL, REQUESTS_PER_FRAME
from messages import Infer, InferRejected, VirtualClock

CLOCK = VirtualClock()


def pending(frame_id: int, consumer: str = "c3", ledger: Ledger | None = None) -> Pending:
    asked = Infer("m", {}, consumer, frame_id, 10**12, 1)
    ledger = ledger or Ledger(["m"])
    made = Pending(asked, ledger, CLOCK)
    ledger.count_submitted(made, asked)
    return made


def letter(message: object) -> SimpleNamespace:
    return SimpleNamespace(message=message, reply_to=None)


def reason(work: Pending) -> str:
    assert work.done
    outcome = work.result()
    assert isinstance(outcome, InferRejected)
    return outcome.reason


def test_control_goes_ahead_of_work() -> None:
    mailbox = Mailbox()
    mailbox.offer(pending(1))
    mailbox.put(letter("stop"))
    assert mailbox.get().message == "stop"
    assert mailbox.get() is WORK_AVAILABLE


def test_work_is_taken_in_the_order_of_frames_and_stays_in_keeping_until_it_is_finished() -> None:
    mailbox = Mailbox()
    first, second = pending(1), pending(2)
    mailbox.offer(first)
    mailbox.offer(second)
    assert mailbox.take() is first
    mailbox.finish()
    assert mailbox.take() is second
    mailbox.abandon("engine_unavailable", "died")
    assert reason(second) == "engine_unavailable"
    assert not first.done


def test_a_newer_frame_sheds_the_oldest_frame_of_its_consumer_whole() -> None:
    mailbox = Mailbox(frames_per_consumer=2)
    oldest = [pending(1) for _ in range(13)]
    others = [pending(1, "c2"), pending(2)]
    for work in (*oldest, *others):
        assert mailbox.offer(work) is None
    assert mailbox.offer(pending(3)) is None
    assert [reason(work) for work in oldest] == ["shed"] * 13
    assert not any(work.done for work in others)


def test_a_flood_within_one_frame_is_refused() -> None:
    mailbox = Mailbox()
    for _ in range(REQUESTS_PER_FRAME):
        assert mailbox.offer(pending(1)) is None
    refusal = mailbox.offer(pending(1))
    assert refusal is not None
    assert refusal.reason == "shed"


def test_many_consumers_together_are_bounded() -> None:
    mailbox = Mailbox()
    refusals = [mailbox.offer(pending(1, f"c{index}")) for index in range(FRAMES_TOTAL + 1)]
    assert refusals[:-1] == [None] * FRAMES_TOTAL
    assert refusals[-1] is not None


def test_a_refusing_mailbox_settles_what_waits_and_lets_the_running_request_end() -> None:
    mailbox = Mailbox()
    running, waiting = pending(1), pending(2)
    mailbox.offer(running)
    mailbox.offer(waiting)
    mailbox.take()
    mailbox.refuse("shutting_down")
    assert reason(waiting) == "shutting_down"
    assert not running.done
    assert mailbox.offer(pending(3)) == Refusal("shutting_down")


def test_a_closed_mailbox_answers_late_letters_at_once() -> None:
    mailbox = Mailbox()
    early: pykka.ThreadingFuture[object] = pykka.ThreadingFuture()
    mailbox.put(SimpleNamespace(message="ask", reply_to=early))
    mailbox.close()
    late: pykka.ThreadingFuture[object] = pykka.ThreadingFuture()
    mailbox.put(SimpleNamespace(message="ask", reply_to=late))
    for reply in (early, late):
        with pytest.raises(pykka.ActorDeadError):
            reply.get(timeout=0)
    with pytest.raises(pykka.ActorDeadError):
        mailbox.put(letter("tell"))


def test_an_idle_reader_wakes_for_work() -> None:
    mailbox = Mailbox()
    got: list[object] = []
    reader = threading.Thread(target=lambda: got.append(mailbox.get()), daemon=True)
    reader.start()
    mailbox.offer(pending(1))
    reader.join(10)
    assert got == [WORK_AVAILABLE]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("offer"), st.sampled_from(["c2", "c3"]), st.integers(0, 6)),
            st.tuples(st.sampled_from(["take", "finish", "abandon"]), st.just(""), st.just(0)),
        ),
        max_size=60,
    )
)
def test_every_request_is_held_running_or_settled(steps: list[tuple[str, str, int]]) -> None:
    ledger = Ledger(["m"])
    mailbox = Mailbox()
    taken: list[Pending] = []
    offered = 0
    for step, consumer, frame_id in steps:
        if step == "offer":
            offered += 1
            work = pending(frame_id, consumer, ledger)
            refusal = mailbox.offer(work)
            if refusal is not None:
                work.reject(refusal.reason)
        elif step == "take":
            work_taken = mailbox.take()
            if work_taken is not None:
                taken.append(work_taken)
                work_taken.reject("cancelled")
        elif step == "finish":
            mailbox.finish()
        else:
            mailbox.abandon("shutting_down")
    mailbox.abandon("shutting_down")
    tally = ledger.tallies()["m"]
    assert tally.submitted == offered
    assert tally.open == 0
    assert tally.rejected.get("cancelled", 0) == len(taken)
