"""Consumers that await their outcomes, in a stepped test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from actors import InferenceClient
from actors.stepped import SteppedWorld, stepped
from messages import NS_PER_MS, InferCompleted, InferRejected, Outcome
from runtimes import FakeRuntime, hangs, returns, takes_ms

FRAME = {"image": np.ones(3, np.float32)}
MATCHES = {"matches": np.ones(3, np.float32)}


def reason(outcome: Outcome) -> str:
    return outcome.reason if isinstance(outcome, InferRejected) else "completed"


def now_ms(world: SteppedWorld) -> float:
    return world.clock.monotonic_ns() / NS_PER_MS


async def frame_of_13(client: InferenceClient) -> list[Outcome]:
    return await asyncio.gather(*(client.infer_async("vpr", FRAME, within_ms=200) for _ in range(13)))


def test_outcomes_are_awaited_in_virtual_time() -> None:
    with stepped(FakeRuntime({"vpr": takes_ms(10, returns(MATCHES))})) as world:
        begin_ms = now_ms(world)
        outcomes = world.run(frame_of_13(world.client))
        assert [reason(outcome) for outcome in outcomes] == ["completed"] * 13
        assert now_ms(world) - begin_ms == 130


def test_an_outcome_that_is_awaited_expires_at_its_deadline() -> None:
    with stepped(FakeRuntime({"vpr": hangs()})) as world:
        begin_ms = now_ms(world)
        assert reason(world.run(world.client.infer_async("vpr", FRAME, within_ms=200))) == "expired"
        assert now_ms(world) - begin_ms == pytest.approx(200, abs=0.001)


def test_a_sleep_of_a_minute_takes_no_time_of_ours() -> None:
    with stepped(FakeRuntime({"vpr": returns(MATCHES)})) as world:
        begin_ms = now_ms(world)
        world.run(asyncio.sleep(60))
        assert now_ms(world) - begin_ms == pytest.approx(60_000, abs=0.001)


def test_a_task_that_is_cancelled_cancels_its_request() -> None:
    async def gives_up(client: InferenceClient) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.infer_async("vpr", FRAME, within_ms=200), 0.05)

    with stepped(FakeRuntime({"vpr": takes_ms(100, returns(MATCHES))})) as world:
        world.run(gives_up(world.client))
        assert world.tallies()["vpr"].rejected == {"cancelled": 1}


def test_what_a_coroutine_raises_is_raised_and_what_it_leaves_behind_is_ended() -> None:
    seen: list[str] = []

    async def left_behind() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            seen.append("cancelled")

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            seen.append("closed")

    async def fails() -> None:
        task = asyncio.get_running_loop().create_task(left_behind())
        async for _ in numbers():
            await asyncio.sleep(0)
            raise ZeroDivisionError(f"a bug while {task.done()=}")

    with stepped(FakeRuntime({"vpr": returns(MATCHES)})) as world:
        begin_ms = now_ms(world)
        with pytest.raises(ZeroDivisionError, match="a bug"):
            world.run(fails())
        assert sorted(seen) == ["cancelled", "closed"]
        assert now_ms(world) == begin_ms
        outcome = world.run(world.client.infer_async("vpr", FRAME, within_ms=200))
        assert isinstance(outcome, InferCompleted)
