"""A consumer's own pykka actors in a stepped test."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pykka
import pytest

from actors import InferenceClient
from actors.stepped import SteppedWorld, stepped
from actors.stepped_scheduling import SteppedWorldError
from messages import (
    NS_PER_MS,
    BlockingCallError,
    Infer,
    InferCompleted,
    InferRejected,
    Outcome,
    Tensor,
)
from runtimes import (
    FakeRuntime,
    computes,
    hangs,
    returns,
    takes_ms,
)

MATCHES = {"matches": np.ones(3, np.float32)}
FRAME = {"image": np.ones(3, np.float32)}


def now_ms(world: SteppedWorld) -> float:
    return world.clock.monotonic_ns() / NS_PER_MS


def ask(world: SteppedWorld, model: str = "vpr", within_ms: float = 200) -> Outcome:
    return world.client.infer(model, FRAME, within_ms=within_ms)


def reason(outcome: object) -> str:
    return outcome.reason if isinstance(outcome, InferRejected) else "completed"


class Recogniser(pykka.ThreadingActor):
    """Asks without waiting; the outcome comes as a message."""

    def __init__(self, client: InferenceClient) -> None:
        super().__init__()
        self.client = client
        self.outcomes: list[Outcome] = []

    def on_receive(self, message: object) -> object:
        match message:
            case "frame":
                return self.client.send("vpr", FRAME, within_ms=200, reply_to=self.actor_ref)
            case "wait":
                return reason(self.client.infer("vpr", FRAME, within_ms=200))
            case "exit":
                raise SystemExit(3)
            case "bug":
                raise ZeroDivisionError("a bug")
            case "hang":
                self.actor_ref.ask("frame")  # its own answer, which it never gives
            case Callable():
                return message()
            case InferCompleted() | InferRejected():
                self.outcomes.append(message)
        return list(self.outcomes)


def test_a_consumers_actor_gets_outcomes_in_its_own_mailbox() -> None:
    with stepped(FakeRuntime({"vpr": takes_ms(30, returns(MATCHES))})) as world:
        ref = world.start(Recogniser, world.consumer("recogniser"))
        ref.tell("frame")
        world.advance_ms(29)
        assert ref.ask("look") == []
        world.advance_ms(1)
        assert [reason(outcome) for outcome in ref.ask("look")] == ["completed"]
    assert not ref.is_alive()


def test_a_consumers_actor_may_wait_for_its_outcome_and_others_go_on() -> None:
    with stepped(FakeRuntime({"vpr": takes_ms(30, returns(MATCHES))})) as world:
        refs = [world.start(Recogniser, client=world.consumer(name)) for name in ("a", "b")]
        answers = [ref.ask("wait", block=False) for ref in refs]
        assert pykka.get_all(answers) == ["completed"] * 2
        assert now_ms(world) == 1060


def test_an_ask_that_is_not_answered_in_time_times_out_in_virtual_time() -> None:
    with stepped(FakeRuntime({"vpr": hangs()})) as world:
        ref = world.start(Recogniser, world.client)
        begin_ms = now_ms(world)
        with pytest.raises(pykka.Timeout, match=r"0.05 seconds"):
            ref.ask("wait", timeout=0.05)
        assert now_ms(world) - begin_ms == 50


def test_an_actor_that_raises_tells_who_asked_and_lives() -> None:
    with stepped(FakeRuntime({"vpr": returns(MATCHES)})) as world:
        ref = world.start(Recogniser, world.client)
        with pytest.raises(ZeroDivisionError, match="a bug"):
            ref.ask("bug")
        assert ref.is_alive()


def test_an_actor_that_exits_ends_alone(caplog: pytest.LogCaptureFixture) -> None:
    with stepped(FakeRuntime({"vpr": returns(MATCHES)})) as world:
        ref, other = (world.start(Recogniser, world.client) for _ in range(2))
        ref.tell("exit")
        world.run_until_idle()
        assert (ref.is_alive(), other.is_alive()) == (False, True)
        assert reason(ask(world)) == "completed"
    assert "Recogniser ended: SystemExit: 3" in caplog.text


def test_an_actor_that_waits_for_itself_is_ended_with_the_world() -> None:
    with stepped(FakeRuntime({"vpr": returns(MATCHES)})) as world:
        ref = world.start(Recogniser, world.client)
        ref.tell("hang")
        world.advance_ms(1000)
        assert reason(ask(world)) == "completed"
    assert not ref.is_alive()


def test_an_actor_cannot_move_the_time() -> None:
    with stepped(FakeRuntime({"vpr": returns(MATCHES)})) as world:
        ref = world.start(Recogniser, world.client)
        with pytest.raises(SteppedWorldError, match="expected the test itself to move the time, found Recogniser-0"):
            ref.ask(lambda: world.advance_ms(1))


def test_our_own_actors_are_refused_to_wait_as_on_threads() -> None:
    caught: list[BlockingCallError] = []
    worlds: list[SteppedWorld] = []

    def waits(_inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        try:
            ask(worlds[0])
        except BlockingCallError as error:
            caught.append(error)
        return MATCHES

    with stepped(FakeRuntime({"vpr": computes(waits)})) as world:
        worlds.append(world)
        assert reason(ask(world)) == "completed"
        assert "found it on the thread of EngineActor" in str(caught[0])


def test_the_supervisor_can_be_sent_requests_too() -> None:
    with stepped(FakeRuntime({"vpr": returns(MATCHES)})) as world:
        deadline_ns = world.clock.monotonic_ns() + 200 * NS_PER_MS
        world.supervision.actor_ref.tell(Infer("vpr", dict(FRAME), "c3", 1, deadline_ns, 77))
        world.run_until_idle()
        assert world.tallies()["vpr"].completed == 1


def test_a_request_that_the_supervisor_is_sent_waits_ten_minutes_at_most_whatever_its_deadline() -> None:
    with stepped(FakeRuntime({"late": hangs()}), run_limit_ms=900_000) as world:
        world.supervision.actor_ref.tell(Infer("late", dict(FRAME), "c3", 1, 2**62, 77))
        world.advance_ms(599_900)
        assert world.tallies()["late"].open == 1
        world.advance_ms(200)
        assert world.tallies()["late"].rejected == {"expired": 1}


def test_requests_that_the_supervisor_is_sent_without_a_number_are_given_one_each() -> None:
    with stepped(FakeRuntime({"vpr": returns(MATCHES)})) as world:
        assert reason(ask(world)) == "completed"
        deadline_ns = world.clock.monotonic_ns() + 200 * NS_PER_MS
        for _ in range(2):
            world.supervision.actor_ref.tell(Infer("vpr", dict(FRAME), "c3", 1, deadline_ns, 0))
        world.run_until_idle()
        numbers = [message.request_id for message in world.messages if isinstance(message, InferCompleted)]
        assert sorted(numbers) == [1, 2, 3]
