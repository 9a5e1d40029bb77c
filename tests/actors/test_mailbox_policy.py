"""What a mailbox takes, sheds, refuses and sweeps, also against a model of it."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from actors.ledger import Ledger
from actors.mailbox import Mailbox
from actors.pending import Pending
from messages import NS_PER_MS, Infer, InferRejected, Outcome, VirtualClock

RUN_MS = 30


class Bench:
    """A mailbox, its clock and its ledger; requests are asked as the routes ask them."""

    def __init__(self, *, run_ms: float | None = None) -> None:
        self.clock = VirtualClock()
        self.outcomes: list[Outcome] = []
        self.ledger = Ledger(["m"], lambda seen: None if isinstance(seen, Infer) else self.outcomes.append(seen))
        self.mailbox = Mailbox()
        if run_ms is not None:
            self.mailbox.ran(round(run_ms * NS_PER_MS))

    def ask(self, frame_id: int = 1, within_ms: float = 10_000, consumer: str = "c3") -> Pending:
        deadline_ns = self.clock.monotonic_ns() + round(within_ms * NS_PER_MS)
        asked = Infer("m", {}, consumer, frame_id, deadline_ns, 1)
        pending = Pending(asked, self.ledger, self.clock)
        self.ledger.count_submitted(pending, asked)
        refusal = self.mailbox.offer(pending)
        if refusal is not None:
            pending.reject(refusal.reason, refusal.detail)
        return pending

    def run(self, run_ms: float) -> None:
        """The next request is taken, and returns after this time."""
        assert self.mailbox.take() is not None
        self.mailbox.running_since_ns = self.clock.monotonic_ns()
        self.clock.advance_ms(run_ms)
        self.mailbox.ran(round(run_ms * NS_PER_MS))
        self.mailbox.finish()

    def sweep(self) -> None:
        self.mailbox.sweep(self.clock.monotonic_ns())


def why(pending: Pending) -> str:
    if not pending.done:
        return "open"
    outcome = pending.result()
    assert isinstance(outcome, InferRejected)
    return outcome.reason


def test_of_a_burst_as_many_are_taken_as_can_be_answered() -> None:
    bench = Bench(run_ms=RUN_MS)
    burst = [bench.ask(within_ms=100) for _ in range(13)]
    assert [why(each) for each in burst] == ["open"] * 3 + ["expired"] * 10
    outcome = burst[3].result()
    assert isinstance(outcome, InferRejected)
    assert "3 ahead" in outcome.detail
    assert "30.0 ms each" in outcome.detail
    assert "100.0 ms are left" in outcome.detail


def test_a_request_that_is_refused_takes_nobodys_place() -> None:
    bench = Bench(run_ms=RUN_MS)
    held = [bench.ask(frame) for frame in (1, 2)]
    assert why(bench.ask(3, within_ms=RUN_MS - 1)) == "expired"
    assert why(bench.ask(3, within_ms=0)) == "expired"
    assert [why(each) for each in held] == ["open", "open"]


def test_the_frame_that_will_go_is_not_counted_as_ahead() -> None:
    bench = Bench(run_ms=RUN_MS)
    old = [bench.ask(1) for _ in range(13)]
    bench.ask(2)
    assert why(bench.ask(3, within_ms=2 * RUN_MS)) == "open"
    assert {why(each) for each in old} == {"shed"}


def test_what_is_settled_or_overdue_is_not_counted_as_ahead() -> None:
    bench = Bench(run_ms=RUN_MS)
    given_up = [bench.ask(1) for _ in range(5)]
    overdue = [bench.ask(1, within_ms=1000) for _ in range(5)]
    for each in given_up:
        each.cancel()
    bench.clock.advance_ms(1000)
    assert why(bench.ask(1, within_ms=RUN_MS)) == "open"
    assert not any(each.done for each in overdue), "they are the sweep's"


def test_a_request_that_the_engine_has_taken_counts_until_it_has_returned() -> None:
    bench = Bench(run_ms=RUN_MS)
    bench.ask()
    taken = bench.mailbox.take()
    assert why(bench.ask(within_ms=2 * RUN_MS - 1)) == "expired"
    bench.mailbox.running_since_ns = bench.clock.monotonic_ns()
    bench.clock.advance_ms(10)
    assert taken is not None
    taken.cancel()
    assert why(bench.ask(within_ms=2 * RUN_MS - 11)) == "expired", "nobody waits for it, but the engine is at it"
    assert why(bench.ask(within_ms=2 * RUN_MS - 10)) == "open"


def test_an_engine_that_has_just_answered_is_idle() -> None:
    bench = Bench(run_ms=RUN_MS)
    answered = bench.ask()
    assert bench.mailbox.take() is answered
    answered.reject("inference_error")
    assert why(bench.ask(within_ms=1)) == "open", "its consumer may ask again before the actor has said `finish`"


def test_an_estimate_that_a_first_slow_run_inflated_recovers_though_the_refused_are_never_measured() -> None:
    bench = Bench(run_ms=3000)
    first_frame = [bench.ask(1, within_ms=500) for _ in range(13)]
    assert [why(each) for each in first_frame] == ["open"] + ["expired"] * 12
    bench.run(RUN_MS)
    assert [why(bench.ask(2, within_ms=500)) for _ in range(13)] == ["open"] * 13


def test_a_late_request_of_an_older_frame_is_shed_and_the_newer_frames_stay() -> None:
    bench = Bench()
    newer = [bench.ask(2), bench.ask(3)]
    assert why(bench.ask(1)) == "shed"
    assert [why(each) for each in newer] == ["open", "open"]


def test_a_frame_that_makes_room_because_it_is_over_has_expired() -> None:
    bench = Bench()
    live, over = bench.ask(1), bench.ask(2, within_ms=5)
    bench.clock.advance_ms(5)
    assert why(bench.ask(3)) == "open"
    assert (why(live), why(over)) == ("open", "expired")


def test_a_sweep_settles_what_is_overdue_and_leaves_the_rest_in_order() -> None:
    bench = Bench()
    kept, overdue, last = bench.ask(1), bench.ask(1, within_ms=5), bench.ask(2)
    bench.clock.advance_ms(4.999)
    bench.sweep()
    assert why(overdue) == "open"
    bench.clock.advance_ms(0.001)
    bench.sweep()
    assert [why(each) for each in (kept, overdue, last)] == ["open", "expired", "open"]
    assert [bench.mailbox.take(), bench.mailbox.take(), bench.mailbox.take()] == [kept, last, None]


def test_a_sweep_settles_the_running_request_and_says_that_its_inputs_are_still_read() -> None:
    bench = Bench()
    for runs in (True, False):
        pending = bench.ask(within_ms=5)
        assert bench.mailbox.take() is pending
        if runs:
            pending.begin_run()
        bench.mailbox.running_since_ns = bench.clock.monotonic_ns() if runs else None
        bench.clock.advance_ms(5)
        bench.sweep()
        assert not pending.done, "a result at the deadline itself is in time"
        bench.clock.advance_ns(1)
        bench.sweep()
        outcome = pending.result()
        assert isinstance(outcome, InferRejected)
        assert (outcome.reason, outcome.inputs_released) == ("expired", not runs)
        assert ("while it ran" in outcome.detail) is runs
        bench.mailbox.finish()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(["c2", "c3"]), st.integers(0, 5), st.sampled_from([0, 5, 50, 5000])),
        st.tuples(st.sampled_from(["take", "sweep", "cancel"]), st.just(""), st.just(0), st.just(0)),
        st.tuples(st.just("wait"), st.just(""), st.just(0), st.sampled_from([1, 5, 60])),
        st.tuples(st.just("abandon"), st.just(""), st.just(0), st.just(0)),
    ),
    max_size=80,
)


@given(STEPS)
def test_the_mailbox_does_what_a_simple_model_of_it_does(steps: list[tuple[str, str, int, int]]) -> None:
    """Order, whole frames, late frames, the sweep, and each request settled exactly once."""
    bench = Bench()
    asked: list[Pending] = []
    model: dict[tuple[str, int], list[Pending]] = {}
    closed = False

    def over(burst: list[Pending]) -> bool:
        return all(each.done or each.deadline_ns <= bench.clock.monotonic_ns() for each in burst)

    for step, consumer, frame_id, amount_ms in steps:
        if step == "ask":
            key = (consumer, frame_id)
            mine = [frame for frame in model if frame[0] == consumer]
            expected, victim = "open", None
            if closed:
                expected = "shutting_down"
            elif amount_ms == 0:
                expected = "expired"
            elif key not in model and len(mine) == 2:
                victim = next((frame for frame in mine if over(model[frame])), min(mine))
                if victim > key and not over(model[victim]):
                    expected, victim = "shed", None
            before = {} if victim is None else {each: why(each) for each in model[victim] if not each.done}
            was_over = victim is not None and over(model[victim])
            pending = bench.ask(frame_id, amount_ms, consumer)
            asked.append(pending)
            assert why(pending) == expected
            if victim is not None:
                assert {why(each) for each in before} <= {"expired" if was_over else "shed"}
                del model[victim]
            if expected == "open":
                model.setdefault(key, []).append(pending)
        elif step == "take":
            taken = bench.mailbox.take()
            if model:
                key = next(iter(model))
                assert taken is model[key].pop(0)
                if not model[key]:
                    del model[key]
                assert taken is not None
                taken.reject("inference_error")
            else:
                assert taken is None
            bench.mailbox.finish()
        elif step == "sweep":
            bench.sweep()
            now_ns = bench.clock.monotonic_ns()
            assert all(each.done for burst in model.values() for each in burst if each.deadline_ns <= now_ns)
            left = {key: [each for each in burst if not each.done] for key, burst in model.items()}
            model = {key: burst for key, burst in left.items() if burst}
        elif step == "cancel":
            for burst in list(model.values())[-1:]:
                burst[-1].cancel()
        elif step == "wait":
            bench.clock.advance_ms(amount_ms)
        else:
            bench.mailbox.abandon("shutting_down")
            model, closed = {}, True
        assert all(each.done for each in asked if not any(each in burst for burst in model.values()))
    bench.mailbox.abandon("shutting_down")
    assert all(each.done for each in asked)
    assert len(bench.outcomes) == len(asked), "each settled exactly once"
    assert bench.ledger.tallies()["m"].open == 0


def test_a_sweep_beside_a_taking_actor_loses_no_request() -> None:
    bench = Bench()
    asked: list[Pending] = []
    ended = threading.Event()

    def take() -> None:
        while not ended.is_set():
            taken = bench.mailbox.take()
            if taken is not None:
                taken.reject("inference_error")
            bench.mailbox.finish()

    actor = threading.Thread(target=take, daemon=True)
    actor.start()
    for frame in range(500):
        asked += [bench.ask(frame, within_ms=each) for each in (1, 1, 100)]
        bench.clock.advance_ms(1)
        bench.sweep()
    ended.set()
    actor.join(20)
    bench.mailbox.abandon("shutting_down")
    assert all(each.done for each in asked)
    assert len(bench.outcomes) == len(asked), "each settled exactly once"
