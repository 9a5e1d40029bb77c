"""The ways to ask: awaited, for a whole frame, with the outcome as a message, and never by waiting inside an actor."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import pykka
import pytest
from loguru import logger

from actors import Supervision, supervise
from actors.client import CONSUMER_MAX_CHARS
from actors.stepped import stepped
from actors.supervised import SupervisedActor, await_end
from messages import (
    BlockingCallError,
    Infer,
    InferCompleted,
    InferenceError,
    InferRejected,
    Outcome,
    Tensor,
    WireFormatError,
    decode_msgpack,
    encode_msgpack,
)
from runtimes import FakeRuntime, computes, raises, returns

WAIT_S = 20.0
WAIT_MS = WAIT_S * 1000
IMAGE = {"image": np.ones(4, np.float32)}
RESULT = {"descriptor": np.arange(3, dtype=np.float32)}


def reason(outcome: Outcome) -> str:
    assert isinstance(outcome, InferRejected), outcome
    return outcome.reason


class Hold:
    """An engine that begins to run, says so, and returns when it is let go."""

    def __init__(self) -> None:
        self.running = threading.Event()
        self.go = threading.Event()

    def __call__(self, _inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        self.running.set()
        assert self.go.wait(WAIT_S)
        return RESULT


@pytest.fixture
def hold() -> Iterator[Hold]:
    held = Hold()
    yield held
    held.go.set()


def fly(hold: Hold) -> Supervision:
    fake = FakeRuntime({"vpr": returns(RESULT), "slow": computes(hold)})
    return supervise(fake, fake.entries())


# Awaited


def test_an_awaited_outcome_arrives_while_the_loop_runs_on(hold: Hold) -> None:
    async def consume(c7: Supervision) -> Outcome:
        asked = asyncio.create_task(c7.infer_async("slow", IMAGE, within_ms=WAIT_MS, frame_id=3))
        while not hold.running.is_set():  # the loop turns on its own thread while the engine is at work
            await asyncio.sleep(0)
        hold.go.set()
        return await asked

    with fly(hold) as c7:
        outcome = asyncio.run(consume(c7))
    assert isinstance(outcome, InferCompleted)
    assert (outcome.consumer, outcome.frame_id) == ("main", 3)


def test_many_awaited_requests_need_no_thread_of_their_own(hold: Hold) -> None:
    async def consume(c7: Supervision) -> tuple[list[Outcome], int]:
        asked = [asyncio.create_task(c7.infer_async("slow", IMAGE, within_ms=WAIT_MS)) for _ in range(13)]
        while not hold.running.is_set():
            await asyncio.sleep(0)
        threads = threading.active_count()
        hold.go.set()
        return list(await asyncio.gather(*asked)), threads

    with fly(hold) as c7:
        before = threading.active_count()
        outcomes, meanwhile = asyncio.run(consume(c7))
    assert all(isinstance(outcome, InferCompleted) for outcome in outcomes)
    assert meanwhile == before


def test_an_awaited_refusal_lets_the_loop_turn(hold: Hold) -> None:
    async def consume(c7: Supervision) -> tuple[Outcome, list[str]]:
        turns: list[str] = []
        asyncio.get_running_loop().call_soon(turns.append, "turned")
        return await c7.infer_async("nobody", IMAGE, within_ms=WAIT_MS), turns

    with fly(hold) as c7:
        outcome, turns = asyncio.run(consume(c7))
    assert reason(outcome) == "unknown_model"
    assert turns == ["turned"], "a loop that only asks what is refused would starve otherwise"


def test_an_awaited_request_expires_by_the_loops_own_timer(hold: Hold) -> None:
    with fly(hold) as c7:
        outcome = asyncio.run(c7.infer_async("slow", IMAGE, within_ms=1))
        assert reason(outcome) == "expired"
        hold.go.set()
        assert isinstance(c7.infer("slow", IMAGE, within_ms=WAIT_MS), InferCompleted)
        assert c7.tallies()["slow"].rejected == {"expired": 1}


def test_a_cancelled_task_cancels_its_request_and_the_late_result_is_dropped(hold: Hold) -> None:
    async def consume(c7: Supervision) -> None:
        asked = asyncio.create_task(c7.infer_async("slow", IMAGE, within_ms=WAIT_MS))
        while not hold.running.is_set():
            await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        hold.go.set()
        assert isinstance(await c7.infer_async("slow", IMAGE, within_ms=WAIT_MS), InferCompleted)

    with fly(hold) as c7:
        asyncio.run(consume(c7))
        tally = c7.tallies()["slow"]
    assert (tally.submitted, tally.completed, tally.rejected) == (2, 1, {"cancelled": 1})


def test_a_task_that_is_cancelled_with_its_outcome_on_the_way_disturbs_no_loop(hold: Hold) -> None:
    complaints: list[dict[str, Any]] = []

    async def consume(c7: Supervision) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        asked = asyncio.create_task(c7.infer_async("nobody", IMAGE, within_ms=WAIT_MS))
        await asyncio.sleep(0)  # refused: the outcome is queued on the loop behind this task's next step
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    with fly(hold) as c7:
        asyncio.run(consume(c7))
    assert complaints == []


def test_an_engine_survives_that_the_loop_was_closed_meanwhile(hold: Hold) -> None:
    with fly(hold) as c7:
        loop = asyncio.new_event_loop()
        asking = c7.infer_async("slow", IMAGE, within_ms=WAIT_MS)
        task = loop.create_task(asking)
        while not hold.running.is_set():
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        hold.go.set()
        outcome = c7.infer("slow", IMAGE, within_ms=WAIT_MS)
        assert isinstance(outcome, InferCompleted)
        assert outcome.generation == 1, "the engine did not die of it"
        tally = c7.tallies()["slow"]
        assert (tally.completed, tally.open) == (2, 0), "nobody saw the first outcome, and it counts"
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        asking.close()


# A whole frame


def test_a_frames_thirteen_outcomes_come_in_the_order_they_were_asked_for() -> None:
    fake = FakeRuntime({"match": computes(lambda inputs: inputs)})
    batch = [{"pair": np.full(2, index, np.float32)} for index in range(13)]
    with supervise(fake, fake.entries()) as c7:
        outcomes = c7.infer_many("match", batch, within_ms=WAIT_MS, frame_id=5)
    answered = [int(np.asarray(o.outputs["pair"])[0]) for o in outcomes if isinstance(o, InferCompleted)]
    assert answered == list(range(13))


def test_a_frames_runs_share_one_deadline(hold: Hold) -> None:
    seen: list[Any] = []
    fake = FakeRuntime({"slow": computes(hold)})
    with supervise(fake, fake.entries(), record=seen.append) as c7:
        outcomes = c7.infer_many("slow", [IMAGE] * 13, within_ms=5, frame_id=5)
        hold.go.set()
    assert {reason(outcome) for outcome in outcomes} == {"expired"}
    assert len({message.deadline_ns for message in seen if hasattr(message, "deadline_ns")}) == 1


# As a message


class Listening(pykka.ThreadingActor):
    """A consumer's own actor, which keeps what it is told."""

    use_daemon_thread = True

    def __init__(self, told: queue.SimpleQueue[Outcome]) -> None:
        super().__init__()
        self._told = told

    def on_receive(self, message: Outcome) -> None:
        self._told.put(message)


@pytest.fixture
def told() -> queue.SimpleQueue[Outcome]:
    return queue.SimpleQueue()


@pytest.fixture
def listening(told: queue.SimpleQueue[Outcome]) -> Iterator[pykka.ActorRef[Listening]]:
    ref = Listening.start(told)
    yield ref
    ref.stop(timeout=WAIT_S)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="WARNING", format="{message}")
    yield lines
    logger.remove(sink)


def test_an_outcome_arrives_as_a_message_that_carries_the_id_it_was_asked_by(
    hold: Hold, listening: pykka.ActorRef[Listening], told: queue.SimpleQueue[Outcome]
) -> None:
    with fly(hold) as c7:
        asked = [c7.send("vpr", IMAGE, within_ms=WAIT_MS, reply_to=listening, frame_id=frame) for frame in (1, 2)]
        outcomes = [told.get(timeout=WAIT_S) for _ in asked]
    assert [outcome.request_id for outcome in outcomes] == asked
    assert [outcome.frame_id for outcome in outcomes] == [1, 2]
    assert all(isinstance(outcome, InferCompleted) for outcome in outcomes)


def test_a_refusal_arrives_as_a_message_too(
    hold: Hold, listening: pykka.ActorRef[Listening], told: queue.SimpleQueue[Outcome]
) -> None:
    with fly(hold) as c7:
        c7.send("nobody", IMAGE, within_ms=WAIT_MS, reply_to=listening)
        assert reason(told.get(timeout=WAIT_S)) == "unknown_model"


def test_what_an_engine_dies_of_arrives_as_a_message_too(
    listening: pykka.ActorRef[Listening], told: queue.SimpleQueue[Outcome]
) -> None:
    fake = FakeRuntime({"vpr": raises(InferenceError("716"))})
    with supervise(fake, fake.entries()) as c7:
        c7.send("vpr", IMAGE, within_ms=WAIT_MS, reply_to=listening)
        assert reason(told.get(timeout=WAIT_S)) == "inference_error"


def test_what_is_still_open_at_the_end_arrives_as_a_message_too(
    hold: Hold, listening: pykka.ActorRef[Listening], told: queue.SimpleQueue[Outcome]
) -> None:
    with fly(hold) as c7:
        running = c7.send("slow", IMAGE, within_ms=WAIT_MS, reply_to=listening, frame_id=0)
        assert hold.running.wait(WAIT_S)
        waiting = [c7.send("slow", IMAGE, within_ms=WAIT_MS, reply_to=listening, frame_id=frame) for frame in (1, 2)]
        threading.Thread(target=c7.stop, daemon=True).start()
        outcomes = [told.get(timeout=WAIT_S) for _ in waiting]
        assert [outcome.request_id for outcome in outcomes] == waiting
        assert [reason(outcome) for outcome in outcomes] == ["shutting_down"] * 2
        hold.go.set()
        assert told.get(timeout=WAIT_S).request_id == running


def test_a_dead_actor_disturbs_no_engine_and_its_outcomes_are_counted_and_said_once(
    hold: Hold, told: queue.SimpleQueue[Outcome], warnings: list[str]
) -> None:
    dead = Listening.start(told)
    dead.stop(timeout=WAIT_S)
    with fly(hold) as c7:
        for frame in range(2):
            c7.send("slow", IMAGE, within_ms=WAIT_MS, reply_to=dead, frame_id=frame)
        hold.go.set()
        outcome = c7.infer("slow", IMAGE, within_ms=WAIT_MS, frame_id=1)
        assert isinstance(outcome, InferCompleted)
        assert outcome.generation == 1
        statistics = c7.statistics()["slow"]
    assert (statistics.tally.completed, statistics.undelivered) == (3, 2)
    assert [line.split(";")[0] for line in warnings] == ["C7 outcome not delivered"]
    assert "consumer=main" in warnings[0]


def test_one_of_our_own_actors_may_send(hold: Hold, told: queue.SimpleQueue[Outcome]) -> None:
    listening = Listening.start(told)
    with fly(hold) as c7:
        asking = Asking.start()
        asking.tell(lambda: c7.send("vpr", IMAGE, within_ms=WAIT_MS, reply_to=listening))
        assert isinstance(told.get(timeout=WAIT_S), InferCompleted)
        asking.stop(timeout=WAIT_S)
    listening.stop(timeout=WAIT_S)


# No wait inside our own actors


class Asking(SupervisedActor):
    """One of our own actors, which calls what it is told."""

    def handle(self, message: Callable[[], object]) -> None:
        self.said = ""
        try:
            message()
        except BlockingCallError as error:
            self.said = str(error)


@pytest.mark.parametrize(
    ("call", "ask"),
    [
        ("infer()", lambda c7: c7.infer("vpr", IMAGE, within_ms=WAIT_MS)),
        ("infer_many()", lambda c7: c7.infer_many("vpr", [IMAGE], within_ms=WAIT_MS)),
        ("Pending.result()", lambda c7: c7.submit("slow", IMAGE, within_ms=WAIT_MS).result()),
    ],
)
def test_one_of_our_own_actors_is_refused_a_wait_and_told_what_to_use(
    hold: Hold, call: str, ask: Callable[[Supervision], object]
) -> None:
    said: list[str] = []

    class Refused(Asking):
        def handle(self, message: Callable[[], object]) -> None:
            super().handle(message)
            said.append(self.said)

    with fly(hold) as c7:
        ref = Refused.start()
        ref.tell(lambda: ask(c7))
        ref.stop(block=False)
        assert await_end(ref, WAIT_S)
        assert c7.tallies()["vpr"].submitted == 0, "what is refused was never asked"
        hold.go.set()
    assert len(said) == 1
    assert f"expected {call} on a consumer's thread" in said[0]
    assert "Refused" in said[0]
    assert "send" in said[0]


def test_an_engine_that_asks_another_one_and_waits_is_refused() -> None:
    flown: list[Supervision] = []

    def asks_back(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        flown[0].infer("vpr", inputs, within_ms=WAIT_MS)
        return inputs

    fake = FakeRuntime({"vpr": returns(RESULT), "nested": computes(asks_back)})
    with supervise(fake, fake.entries()) as c7:
        flown.append(c7)
        outcome = c7.infer("nested", IMAGE, within_ms=WAIT_MS)
    assert reason(outcome) == "inference_error"
    assert isinstance(outcome, InferRejected)
    assert "EngineActor" in outcome.detail


def test_an_outcome_that_is_there_may_be_read_anywhere(hold: Hold) -> None:
    with fly(hold) as c7:
        done = c7.submit("nobody", IMAGE, within_ms=WAIT_MS)
        read: list[Outcome] = []
        ref = Asking.start()
        ref.tell(lambda: read.append(done.result()))
        ref.stop(block=False)
        assert await_end(ref, WAIT_S)
    assert [reason(outcome) for outcome in read] == ["unknown_model"]


class OwnActor(pykka.ThreadingActor):
    """A consumer's own actor."""

    use_daemon_thread = True

    def __init__(self, c7: Supervision) -> None:
        super().__init__()
        self._c7 = c7

    def on_receive(self, message: object) -> Outcome:
        return self._c7.infer("vpr", IMAGE, within_ms=WAIT_MS)


def test_a_consumers_own_actor_may_wait(hold: Hold) -> None:
    with fly(hold) as c7:
        ref = OwnActor.start(c7)
        assert isinstance(ref.ask("now", timeout=WAIT_S), InferCompleted)
        ref.stop(timeout=WAIT_S)


@pytest.mark.parametrize("name", ["", "c" * 129])
def test_a_consumer_whose_name_no_recording_takes_gets_no_client(name: str) -> None:
    longest: Infer = Infer("vpr", {}, "c" * CONSUMER_MAX_CHARS, 1, 1, 1)
    assert decode_msgpack(encode_msgpack(longest))
    with pytest.raises(WireFormatError):
        encode_msgpack(msgspec.structs.replace(longest, consumer=name))
    with (
        stepped(FakeRuntime({"vpr": returns({})})) as world,
        pytest.raises(ValueError, match="consumer: expected a name"),
    ):
        world.consumer(name)
