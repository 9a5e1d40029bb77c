"""One consumer raises, hangs or floods, on real actors: the others' frames are good, every one of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt
import pytest

from actors import Supervision, supervise
from actors.consumer import Consumer, Frame
from actors.flight.frame_loop import FrameLoop
from actors.supervised_runtime import SupervisedRuntime
from messages import ConsumerReported, InferRejected, MonotonicClock
from runtimes import EngineCacheEntry, FakeRuntime, returns

WAIT_S = 20.0
WITHIN_MS = 10_000.0
FRAMES = 30
FLOOD = 3_000
INPUTS = {"x": np.ones(3, np.float32)}
RESULT = {"y": np.ones(3, np.float32)}


class Bystander:
    """Asks the engine once a frame, as a component that is written against the runtime's interface."""

    def __init__(self, c7_inference: SupervisedRuntime, entry: EngineCacheEntry) -> None:
        self._c7_inference = c7_inference
        self._handle = c7_inference.deserialize_engine(entry)

    def on_frame(self, frame: Frame) -> str | None:
        return None if self._c7_inference.infer(self._handle, INPUTS) else "no outputs"


class Raising:
    def __init__(self, error: BaseException) -> None:
        self._error = error

    def on_frame(self, frame: Frame) -> str | None:
        raise self._error


class Hanging:
    def __init__(self) -> None:
        self.freed = threading.Event()

    def on_frame(self, frame: Frame) -> str | None:
        self.freed.wait(WAIT_S)
        return None


class Flooding:
    """Asks thousands of times for every frame, and waits for none of it."""

    def __init__(self, c7: Supervision) -> None:
        self._client = c7.client("troublemaker")
        self.asked = 0

    def on_frame(self, frame: Frame) -> str | None:
        for _ in range(FLOOD):
            self._client.submit("shared", INPUTS, within_ms=WITHIN_MS, frame_id=frame.frame_id)
            self.asked += 1
        return None


class GivenPictures:
    """Reads a picture each time the test gives one."""

    def __init__(self) -> None:
        self.given: SimpleQueue[None] = SimpleQueue()

    def read(self, frame_id: int) -> npt.NDArray[np.uint8]:
        self.given.get(timeout=WAIT_S)
        return np.zeros((1, 1, 3), np.uint8)


@contextmanager
def flying(c7: Supervision, fake: FakeRuntime, troublemaker: Consumer) -> Iterator[list[ConsumerReported]]:
    """Fly FRAMES frames, each when the bystander is done with the one before. What the bystander reported."""
    pictures = GivenPictures()
    reports: SimpleQueue[ConsumerReported] = SimpleQueue()

    def report(reported: ConsumerReported) -> None:
        if reported.consumer == "bystander":
            reports.put(reported)

    consumers: dict[str, Consumer] = {
        "troublemaker": troublemaker,
        "bystander": Bystander(c7.as_runtime(), fake.entry("shared")),
    }
    loop = FrameLoop(pictures, consumers, 1000, MonotonicClock(), report, within_ms={"bystander": WITHIN_MS})
    loop.start()
    told: list[ConsumerReported] = []
    try:
        for _ in range(FRAMES):
            pictures.given.put(None)
            told.append(reports.get(timeout=WAIT_S))
        yield told
    finally:
        pictures.given.put(None)
        hung = loop.stop(WAIT_S)
    assert hung == ()


@contextmanager
def supervised() -> Iterator[tuple[Supervision, FakeRuntime]]:
    fake = FakeRuntime({"shared": returns(RESULT)})
    with supervise(fake, fake.entries()) as c7:
        yield c7, fake


@pytest.mark.parametrize("error", [ValueError("no match"), SystemExit("bye"), MemoryError(), KeyboardInterrupt()])
def test_a_consumer_that_raises_at_every_frame_costs_no_frame_of_another(error: BaseException) -> None:
    with supervised() as (c7, fake), flying(c7, fake, Raising(error)) as told:
        assert [reported.detail for reported in told if not reported.good] == []


def test_a_consumer_that_hangs_for_ever_costs_no_frame_of_another() -> None:
    hanging = Hanging()
    with supervised() as (c7, fake), flying(c7, fake, hanging) as told:
        assert [reported.detail for reported in told if not reported.good] == []
        hanging.freed.set()


def test_a_consumer_that_floods_the_engine_they_share_costs_no_frame_of_another() -> None:
    outcomes: list[object] = []
    fake = FakeRuntime({"shared": returns(RESULT)})
    with supervise(fake, fake.entries(), record=outcomes.append) as c7:
        flooding = Flooding(c7)
        with flying(c7, fake, flooding) as told:
            assert [reported.detail for reported in told if not reported.good] == []
    shed = [each for each in outcomes if isinstance(each, InferRejected) and each.consumer == "troublemaker"]
    assert flooding.asked >= FLOOD
    assert len(shed) > FLOOD / 2, "its own requests are what there was no room for"
    tally = c7.tallies()["shared"]
    assert tally.submitted >= flooding.asked + FRAMES
    assert tally.submitted == tally.completed + sum(tally.rejected.values()), "one outcome each"
