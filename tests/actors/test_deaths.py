"""Deaths at awkward moments: while loading, while releasing, of the supervisor, of the timers."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pykka
import pytest

from actors import RestartPolicy, Supervision, supervise
from actors.readiness import Readiness
from actors.supervised import await_end
from actors.timers import TimerThread
from messages import (
    NS_PER_MS,
    NS_PER_S,
    AllEnginesLoaded,
    EngineDied,
    EngineLoaded,
    EngineQuarantined,
    Infer,
    InferCompleted,
    InferenceError,
    InferRejected,
    Message,
    MonotonicClock,
    Outcome,
    TakeoffRefusedError,
    VirtualClock,
)
from runtimes import EngineHandle, FakeRuntime, loads_after, raises, returns

WAIT_S = 20.0
LetLoadTimeOut = Callable[[Supervision, VirtualClock, float], None]
IMAGE = {"image": np.ones(4, np.float32)}
RESULT = {"descriptor": np.arange(3, dtype=np.float32)}
QUICK = RestartPolicy(max_restarts=3, first_delay_ns=NS_PER_MS)


class Log:
    """Keeps every message and lets a test wait for one, instead of sleeping."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.messages: list[Message] = []

    def __call__(self, message: Message) -> None:
        with self.changed:
            self.messages.append(message)
            self.changed.notify_all()

    def wait_for(self, kind: type, count: int = 1) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: sum(isinstance(m, kind) for m in self.messages) >= count, WAIT_S)


class Watched(FakeRuntime):
    """Says when an engine was released, and may fail to do so."""

    def __init__(self, *args: object, release_fails_with: BaseException | None = None, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.released = threading.Semaphore(0)
        self._release_fails_with = release_fails_with

    def release_engine(self, handle: EngineHandle) -> None:
        super().release_engine(handle)
        self.released.release()
        if self._release_fails_with is not None:
            raise self._release_fails_with


def ask(c7: Supervision, model: str = "vpr") -> Outcome:
    return c7.infer(model, IMAGE, within_ms=WAIT_S * 1000, frame_id=1)


def reason(outcome: Outcome) -> str:
    assert isinstance(outcome, InferRejected), outcome
    return outcome.reason


@pytest.mark.parametrize("fault", [InferenceError("cudaFree"), SystemExit(3)], ids=lambda e: type(e).__name__)
def test_an_engine_that_cannot_be_released_still_reports_its_death_and_comes_back(fault: BaseException) -> None:
    log = Log()
    bug = raises(ValueError("after which an engine is released and not kept"))
    fake = Watched({"vpr": [bug, returns(RESULT)]}, release_fails_with=fault)
    with supervise(fake, fake.entries(), record=log, policy=QUICK) as c7:
        assert reason(ask(c7)) == "inference_error"
        assert fake.released.acquire(timeout=WAIT_S)
        log.wait_for(EngineLoaded, 2)
        assert isinstance(ask(c7), InferCompleted)
        assert c7.is_alive(), "a fault in one engine's end stops no other actor"


def test_a_load_that_returns_after_it_was_given_up_is_released_and_never_served(
    let_load_time_out: LetLoadTimeOut,
) -> None:
    log, late, clock = Log(), threading.Event(), VirtualClock()
    fake = Watched({"vpr": [loads_after(late), returns(RESULT)], "match": returns(RESULT)})
    with supervise(fake, fake.entries(), record=log, mode="recovery", load_timeout_s=0.05, clock=clock) as c7:
        let_load_time_out(c7, clock, 0.05)
        log.wait_for(EngineQuarantined)
        log.wait_for(EngineLoaded)  # match, whose turn came then
        late.set()
        assert fake.released.acquire(timeout=WAIT_S), "the engine that came too late frees its memory"
        assert reason(ask(c7)) == "engine_unavailable"
        assert isinstance(ask(c7, "match"), InferCompleted)
        assert fake.loaded == ("match",)


def test_a_load_that_fails_at_the_very_moment_of_giving_up_still_refuses_the_takeoff() -> None:
    readiness = Readiness(["vpr"])
    seen = readiness.not_loaded("overdue")
    readiness.failed_to_load("vpr", "missing")
    assert (seen, readiness.not_loaded("overdue")) == ({"vpr": "overdue"}, {"vpr": "missing"})


def test_a_supervisor_that_dies_while_engines_load_refuses_the_takeoff_at_once_and_says_so() -> None:
    def record(message: Message) -> None:
        if isinstance(message, EngineLoaded):
            raise OSError("the recorder broke its word")

    fake = FakeRuntime({"vpr": returns(RESULT), "match": returns(RESULT)})
    with pytest.raises(TakeoffRefusedError, match="the recorder broke its word"):
        supervise(fake, fake.entries(), record=record, load_timeout_s=600)
    assert fake.loaded == ()


def test_an_engine_that_dies_before_the_others_have_loaded_is_awaited_again() -> None:
    """Takeoff is refused unless every engine answers at once, not each at some time."""
    log, go = Log(), threading.Event()
    fake = FakeRuntime({"vpr": returns(RESULT), "match": [loads_after(go), returns(RESULT)]})
    flown: list[Supervision] = []
    others = pykka.ActorRegistry.get_by_class_name("EngineActor")
    starts = threading.Thread(
        target=lambda: flown.append(
            supervise(fake, fake.entries(), record=log, policy=QUICK, priorities={"vpr": 0, "match": 1})
        ),
        daemon=True,
    )
    starts.start()
    log.wait_for(EngineLoaded)
    vpr = next(ref for ref in pykka.ActorRegistry.get_by_class_name("EngineActor") if ref not in others)
    vpr.tell("no work at all")  # an engine has no other way to die before there is a client
    log.wait_for(EngineDied)
    go.set()
    starts.join(WAIT_S)
    with flown[0] as c7:
        assert isinstance(ask(c7), InferCompleted)
        assert isinstance(ask(c7, "match"), InferCompleted)
    kinds = [type(m) for m in log.messages if isinstance(m, EngineLoaded | EngineDied | AllEnginesLoaded)]
    assert kinds == [EngineLoaded, EngineDied, EngineLoaded, EngineLoaded, AllEnginesLoaded]


def fail() -> None:
    raise ValueError("a programming error")


def test_a_timer_that_raises_takes_no_other_timer_with_it() -> None:
    rang = threading.Event()
    timers = TimerThread(MonotonicClock())
    timers.after(0, fail)
    timers.after(0, rang.set)
    assert rang.wait(WAIT_S)
    timers.close()


def test_a_timer_that_is_cancelled_leaves_nothing_behind() -> None:
    timers = TimerThread(MonotonicClock())
    cancels = [timers.after(3600 * NS_PER_S, lambda: None) for _ in range(100)]
    for cancel in cancels:
        cancel()
        cancel()
    assert timers.waiting == 0
    timers.close()


def test_two_hundred_restarts_leave_no_timer_behind() -> None:
    log = Log()
    fake = FakeRuntime({"vpr": raises(InferenceError("716"))})
    policy = RestartPolicy(max_restarts=1000, first_delay_ns=1, max_delay_ns=1)
    with supervise(fake, fake.entries(), record=log, policy=policy) as c7:
        for generation in range(1, 201):
            log.wait_for(EngineLoaded, generation)
            ask(c7)
        log.wait_for(EngineLoaded, 201)
        assert c7._timers.waiting <= 1  # type: ignore[attr-defined]


def test_a_supervisor_that_dies_settles_every_route_and_releases_every_engine() -> None:
    fake = FakeRuntime({"vpr": returns(RESULT), "match": returns(RESULT)})
    with supervise(fake, fake.entries()) as c7:
        c7._supervisor.tell(EngineLoaded("nobody", 1, 1))  # what no engine of this flight reports
        assert await_end(c7._supervisor, WAIT_S)
        assert not c7.is_alive()
        assert [reason(ask(c7, model)) for model in ("vpr", "match")] == ["shutting_down"] * 2
        assert fake.loaded == ()


def test_a_message_that_meets_a_dying_supervisor_is_not_answered_with_nothing() -> None:
    def record(message: Message) -> None:
        if isinstance(message, Infer):
            raise OSError("broken")

    fake = FakeRuntime({"vpr": returns(RESULT)})
    with supervise(fake, fake.entries(), record=record) as c7, pytest.raises(pykka.ActorDeadError):
        c7._supervisor.ask(Infer("vpr", IMAGE, "c3", 1, 10**18, 1), timeout=WAIT_S)
