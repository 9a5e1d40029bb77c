"""What is over is let go: no array, result or exception stays alive because an actor remembers it.

Reference counting alone must do it (the collector is off in these tests): a flight's arrays are megabytes.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace

import numpy as np
import pytest

from actors import RestartPolicy, Supervision, supervise
from actors.mailbox import Mailbox
from messages import (
    Infer,
    InferCompleted,
    InferenceError,
    InferRejected,
    InvalidInputError,
    OutOfMemoryError,
    Tensor,
)
from runtimes import FakeRuntime, computes

WAIT_S = 20.0
LONG_MS = WAIT_S * 1000
POLICY = RestartPolicy(max_restarts=1000, first_delay_ns=1, max_delay_ns=1)
Run = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]


@pytest.fixture(autouse=True)
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def image() -> dict[str, np.ndarray]:
    return {"image": np.ones(1000, np.float32)}


def watch(tensors: Mapping[str, Tensor]) -> weakref.ref[object]:
    [tensor] = tensors.values()
    return weakref.ref(tensor)


def eventually(true: Callable[[], bool]) -> bool:
    """A thread that has just given an outcome takes a moment to leave its frames, or to end."""
    for _ in range(2000):
        if true():
            return True
        threading.Event().wait(0.001)
    return False


def dead(*watched: weakref.ref[object]) -> bool:
    return eventually(lambda: all(each() is None for each in watched))


def fly(run: Run) -> Supervision:
    fake = FakeRuntime({"vpr": computes(run)})
    return supervise(fake, fake.entries(), policy=POLICY)


def test_inputs_and_outputs_live_no_longer_than_their_consumer_wants() -> None:
    with fly(lambda inputs: {"y": np.asarray(inputs["image"]) * 2}) as c7:
        inputs = image()
        outcome = c7.infer("vpr", inputs, within_ms=LONG_MS)
        assert isinstance(outcome, InferCompleted)
        asked, answered = watch(inputs), watch(outcome.outputs)
        del inputs, outcome
        assert dead(asked, answered)


def test_a_pending_that_its_consumer_keeps_holds_the_outcome_and_not_the_inputs() -> None:
    with fly(lambda _inputs: {"y": np.zeros(3)}) as c7:
        inputs = image()
        asked = watch(inputs)
        pending = c7.submit("vpr", inputs, within_ms=LONG_MS)
        del inputs
        assert isinstance(pending.result(), InferCompleted)
        assert dead(asked)


@pytest.mark.parametrize(
    "fault", [InvalidInputError("x"), OutOfMemoryError("x"), InferenceError("x"), ValueError("x"), SystemExit(3)]
)
def test_an_exception_that_somebody_keeps_holds_no_input(fault: BaseException) -> None:
    seen: list[weakref.ref[object]] = []

    def run(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        scratch = np.zeros(1000)
        seen.extend((watch(inputs), weakref.ref(scratch)))
        try:
            raise KeyError("the cause")
        except KeyError as cause:
            raise fault from cause

    with fly(run) as c7:
        assert isinstance(c7.infer("vpr", image(), within_ms=LONG_MS), InferRejected)
        assert dead(*seen), "the fault is still there, in the test's parameters"


def test_a_result_that_comes_too_late_is_freed_with_its_inputs() -> None:
    seen: list[weakref.ref[object]] = []
    started, go = threading.Event(), threading.Event()

    def run(inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        result = {"y": np.zeros(1000)}
        seen.extend((watch(inputs), watch(result)))
        started.set()
        assert go.wait(WAIT_S)
        return result

    with fly(run) as c7:
        pending = c7.submit("vpr", image(), within_ms=LONG_MS)
        assert started.wait(WAIT_S)
        pending.cancel()
        outcome = pending.result()
        assert isinstance(outcome, InferRejected)
        assert not outcome.inputs_released
        go.set()
        assert dead(*seen)


def test_what_was_shed_or_refused_is_freed_at_once() -> None:
    started, go = threading.Event(), threading.Event()

    def run(_inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        started.set()
        assert go.wait(WAIT_S)
        return {"y": np.zeros(3)}

    fake = FakeRuntime({"vpr": computes(run)})
    with supervise(fake, fake.entries()) as c7:
        kept = []
        watched = []
        for frame in range(8):
            inputs = image()
            watched.append(watch(inputs))
            kept.append(c7.submit("vpr", inputs, within_ms=LONG_MS, frame_id=frame))
            kept.append(c7.submit("no such model", inputs, within_ms=LONG_MS, frame_id=frame))
            del inputs
            assert started.wait(WAIT_S)  # the first frame is at work: it is the others that are shed
        assert dead(*watched[1:5])
        go.set()
        for pending in kept:
            pending.result()
        assert dead(*watched)


def test_the_supervisor_remembers_no_request_that_it_routed() -> None:
    with fly(lambda inputs: {"y": np.asarray(inputs["image"]) * 2}) as c7:
        inputs = image()
        asked = watch(inputs)
        pending = c7._supervisor.ask(Infer("vpr", inputs, "c3", 1, 2**62, 10**9), block=True, timeout=WAIT_S)
        outcome = pending.result()
        answered = watch(outcome.outputs)
        del inputs, pending, outcome
        assert dead(asked, answered)


def test_an_idle_mailbox_lets_its_actor_forget_the_last_letter_once() -> None:
    mailbox = Mailbox()
    got: list[object] = []

    def read() -> None:
        while (letter := mailbox.get().message) != "stop":
            got.append(letter)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    mailbox.put(SimpleNamespace(message="news", reply_to=None))
    assert eventually(lambda: len(got) == 2)
    mailbox.put(SimpleNamespace(message="stop", reply_to=None))
    reader.join(WAIT_S)
    assert got[0] == "news"
    assert len(got) == 2


def test_two_hundred_restarts_leave_no_thread_and_no_engine_behind() -> None:
    def run(_inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        raise InferenceError("716")

    fake = FakeRuntime({"vpr": computes(run)})
    with supervise(fake, fake.entries(), policy=POLICY) as c7:
        before = set(threading.enumerate())
        while fake.loads("vpr") < 200:
            c7.infer("vpr", image(), within_ms=LONG_MS)
        assert eventually(lambda: len(set(threading.enumerate()) - before) <= 1)
        assert len(fake.loaded) <= 1
