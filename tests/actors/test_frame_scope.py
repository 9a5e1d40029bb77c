"""For whom, for which frame and until when a call is that a component makes through the interface."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from loguru import logger

from actors.frame_scope import FrameScope, current_frame, frame_scope
from actors.routes import WITHIN_MS_MAX
from actors.stepped import SteppedWorld, stepped
from actors.supervised_runtime import CONSUMER, WITHIN_MS, SupervisedRuntime
from messages import (
    NS_PER_MS,
    NS_PER_S,
    Infer,
    InferRejected,
    OutOfMemoryError,
    RequestRejectedError,
    VirtualClock,
)
from runtimes import EngineHandle, FakeRuntime, hangs, raises, returns, takes_ms

IMAGE = {"image": np.ones(4, np.float32)}
RESULT = {"y": np.ones(4, np.float32)}


@pytest.fixture
def fake() -> FakeRuntime:
    return FakeRuntime({"vpr": takes_ms(40, returns(RESULT)), "stuck": hangs()})


@pytest.fixture
def world(fake: FakeRuntime) -> Iterator[SteppedWorld]:
    with stepped(fake) as world:
        yield world


@pytest.fixture
def runtime(world: SteppedWorld) -> SupervisedRuntime:
    return world.supervision.as_runtime()


@pytest.fixture
def vpr(fake: FakeRuntime, runtime: SupervisedRuntime) -> EngineHandle:
    return runtime.deserialize_engine(fake.entry("vpr"))


def requests(world: SteppedWorld) -> list[Infer[object]]:
    return [message for message in world.messages if isinstance(message, Infer)]


# What a call says of itself


def test_a_call_in_a_scope_is_that_consumers_for_that_frame(
    world: SteppedWorld, runtime: SupervisedRuntime, vpr: EngineHandle
) -> None:
    began_ns = world.clock.monotonic_ns()
    with frame_scope("c2_vpr", 7, 300, captured_ns=5, clock=world.clock):
        runtime.infer(vpr, IMAGE)
    [request] = requests(world)
    assert (request.model, request.consumer, request.frame_id, request.captured_ns) == ("vpr", "c2_vpr", 7, 5)
    assert request.deadline_ns - began_ns == 300 * NS_PER_MS


def test_a_call_outside_of_any_scope_is_nobodys_frame_and_bounded_all_the_same(
    world: SteppedWorld, runtime: SupervisedRuntime, vpr: EngineHandle
) -> None:
    began_ns = world.clock.monotonic_ns()
    runtime.infer(vpr, IMAGE)
    [request] = requests(world)
    assert (request.consumer, request.frame_id, request.captured_ns) == (CONSUMER, 0, 0)
    assert request.deadline_ns - began_ns == WITHIN_MS * NS_PER_MS


def test_what_bounds_a_call_outside_of_any_scope_is_said_when_the_runtime_is_made(
    fake: FakeRuntime, world: SteppedWorld
) -> None:
    runtime = world.supervision.as_runtime(within_ms=30)
    handle = runtime.deserialize_engine(fake.entry("vpr"))
    with pytest.raises(RequestRejectedError, match="vpr gave no result, expired") as caught:
        runtime.infer(handle, IMAGE)
    assert caught.value.reason == "expired"


@pytest.mark.parametrize("within_ms", [0, -1, float("nan"), float("inf"), WITHIN_MS_MAX + 1])
def test_a_runtime_is_not_made_with_a_bound_that_is_none(world: SteppedWorld, within_ms: float) -> None:
    with pytest.raises(ValueError, match="within_ms must be above 0"):
        world.supervision.as_runtime(within_ms=within_ms)


def test_an_error_says_consumer_and_frame(world: SteppedWorld, runtime: SupervisedRuntime, vpr: EngineHandle) -> None:
    with (
        frame_scope("c3_matcher", 12, 10, clock=world.clock),
        pytest.raises(RequestRejectedError, match=r"vpr gave no result, expired: .*; consumer=c3_matcher frame=12$"),
    ):
        runtime.infer(vpr, IMAGE)


def test_the_log_of_an_engine_names_the_frame_of_the_scope() -> None:
    lines: list[str] = []
    handler = logger.add(lambda line: lines.append(str(line).rstrip()), format="{message}", level="ERROR")
    fake = FakeRuntime({"ultravpr": [raises(OutOfMemoryError("2 GiB")), returns(RESULT)]})
    try:
        with stepped(fake) as world:
            runtime = world.supervision.as_runtime()
            ultravpr = runtime.deserialize_engine(fake.entry("ultravpr"))
            with (
                frame_scope("c2_vpr", 12345, 300, clock=world.clock),
                pytest.raises(OutOfMemoryError, match="2 GiB"),
            ):
                runtime.infer(ultravpr, IMAGE)
    finally:
        logger.remove(handler)
    assert lines == ["C7 OOM during infer; backbone=ultravpr; frame=12345"]


# One deadline


def test_all_calls_of_a_scope_have_its_one_deadline(
    world: SteppedWorld, runtime: SupervisedRuntime, vpr: EngineHandle, fake: FakeRuntime
) -> None:
    began_ns = world.clock.monotonic_ns()
    with frame_scope("c3", 1, 100, clock=world.clock):
        runtime.infer(vpr, IMAGE)
        runtime.infer(vpr, IMAGE)
        with pytest.raises(RequestRejectedError, match="expired"):  # 20 ms are left for a run of 40 ms
            runtime.infer(vpr, IMAGE)
    assert {request.deadline_ns - began_ns for request in requests(world)} == {100 * NS_PER_MS}
    assert world.clock.monotonic_ns() - began_ns <= 100 * NS_PER_MS
    assert world.tallies()["vpr"].completed == 2


def test_a_scope_whose_time_has_passed_never_runs_the_engine(
    world: SteppedWorld, runtime: SupervisedRuntime, vpr: EngineHandle, fake: FakeRuntime
) -> None:
    with frame_scope("c3", 1, 100, clock=world.clock):
        world.advance_ms(100)
        for _ in range(3):
            with pytest.raises(RequestRejectedError) as caught:
                runtime.infer(vpr, IMAGE)
            assert (caught.value.reason, caught.value.inputs_released) == ("expired", True)
    assert fake.calls == ()
    assert world.tallies()["vpr"].rejected == {"expired": 3}


def test_a_scope_within_another_one_never_has_a_later_deadline(world: SteppedWorld) -> None:
    with frame_scope("outer", 1, 100, clock=world.clock) as outer:
        world.advance_ms(30)
        with frame_scope("inner", 2, 500, clock=world.clock) as inner:
            assert inner == FrameScope("inner", 2, outer.deadline_ns, 0)
        with frame_scope("inner", 3, 10, clock=world.clock) as inner:
            assert inner.deadline_ns == world.clock.monotonic_ns() + 10 * NS_PER_MS
        assert current_frame() == outer
    assert current_frame() is None


def test_a_scope_on_another_clock_makes_no_wait_longer_than_ten_minutes(
    world: SteppedWorld, runtime: SupervisedRuntime, vpr: EngineHandle
) -> None:
    later = VirtualClock()
    later.advance_ns(10_000 * NS_PER_S)
    with frame_scope("c2", 1, 100, clock=later):
        runtime.infer(vpr, IMAGE)
    [request] = requests(world)
    assert request.deadline_ns <= world.clock.monotonic_ns() + WITHIN_MS_MAX * NS_PER_MS


def test_inputs_that_an_engine_still_reads_are_not_said_to_be_released(
    world: SteppedWorld, runtime: SupervisedRuntime, fake: FakeRuntime
) -> None:
    stuck = runtime.deserialize_engine(fake.entry("stuck"))
    with (
        frame_scope("c3", 1, 100, clock=world.clock),
        pytest.raises(RequestRejectedError) as caught,
    ):
        runtime.infer(stuck, IMAGE)
    assert (caught.value.reason, caught.value.inputs_released) == ("expired", False)
    [rejected] = [message for message in world.messages if isinstance(message, InferRejected)]
    assert not rejected.inputs_released


# Where it is in force


def test_a_scope_ends_also_where_its_block_raises() -> None:
    def fails() -> None:
        with frame_scope("c2", 1, 100):
            raise RuntimeError("the frame is no good")

    with pytest.raises(RuntimeError, match="no good"):
        fails()
    assert current_frame() is None


def test_a_thread_that_is_started_in_a_scope_is_not_in_it_and_has_its_own() -> None:
    found: list[FrameScope | None] = []

    def look() -> None:
        found.append(current_frame())
        with frame_scope("other", 9, 100):
            found.append(current_frame())

    with frame_scope("c2", 1, 100) as scope:
        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        thread.join(timeout=20)
        assert not thread.is_alive()
        assert current_frame() == scope
    outside, inside = found
    assert outside is None
    assert inside is not None
    assert (inside.consumer, inside.frame_id) == ("other", 9)


def test_a_thread_that_is_given_the_context_of_a_scope_calls_under_it() -> None:
    found: list[FrameScope | None] = []
    with frame_scope("c2", 1, 100) as scope:
        context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(lambda: found.append(current_frame()),), daemon=True)
    thread.start()
    thread.join(timeout=20)
    assert found == [scope]


def test_each_task_has_the_scope_that_it_was_started_in_and_keeps_its_own_to_itself() -> None:
    async def consume(name: str, frame_id: int) -> tuple[FrameScope | None, FrameScope | None]:
        started_in = current_frame()
        with frame_scope(name, frame_id, 100):
            await asyncio.sleep(0)
            return started_in, current_frame()

    async def both() -> tuple[tuple[FrameScope | None, FrameScope | None], ...]:
        with frame_scope("frame", 5, 50) as scope:
            found = await asyncio.gather(consume("a", 1), consume("b", 2))
            assert current_frame() == scope
        return found

    (around_a, a), (around_b, b) = asyncio.run(both())
    assert around_a is not None
    assert around_a is around_b
    assert a is not None
    assert b is not None
    assert (a.consumer, a.frame_id, b.consumer, b.frame_id) == ("a", 1, "b", 2)
    assert max(a.deadline_ns, b.deadline_ns) <= around_a.deadline_ns


@pytest.mark.parametrize(
    ("consumer", "frame_id", "within_ms", "what"),
    [
        ("", 0, 100, "consumer: expected a name of 1 to 128 characters, found ''"),
        ("x" * 129, 0, 100, "consumer: expected a name"),
        ("c2", -1, 100, r"frame_id: expected 0 or more, .* found -1"),
        ("c2", 2**63, 100, "frame_id: expected 0 or more, and at most 9223372036854775807, found 9223372036854775808"),
        ("c2", 0, 0, "within_ms must be above 0"),
        ("c2", 0, -5, "within_ms must be above 0"),
        ("c2", 0, float("nan"), "within_ms must be above 0"),
        ("c2", 0, WITHIN_MS_MAX * 2, "within_ms must be above 0"),
    ],
)
def test_a_scope_that_cannot_be_meant_is_refused_and_changes_nothing(
    consumer: str, frame_id: int, within_ms: float, what: str
) -> None:
    with (
        frame_scope("around", 3, 100) as around,
        pytest.raises(ValueError, match=what),
        frame_scope(consumer, frame_id, within_ms),
    ):
        pytest.fail("the block of a scope that was refused")
    assert current_frame() is None
    assert around.frame_id == 3


def test_a_frame_that_was_captured_before_the_boot_is_refused() -> None:
    with pytest.raises(ValueError, match="captured_ns: expected 0 or more"), frame_scope("c2", 0, 100, captured_ns=-1):
        pytest.fail("the block of a scope that was refused")


def test_a_number_of_numpy_is_a_number_that_every_recording_takes() -> None:
    frame_id: int = np.int64(7)
    with frame_scope("c2", frame_id, 100) as scope:
        assert type(scope.frame_id) is int
        assert scope.frame_id == 7


def test_a_part_of_a_frame_is_no_frame() -> None:
    half: int = 0.5  # type: ignore[assignment]
    with pytest.raises(TypeError), frame_scope("c2", half, 100):
        pytest.fail("the block of a scope that was refused")
