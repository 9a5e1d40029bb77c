"""What a dead engine leaves for its next start, and the memory that it gives back before that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np
import pytest
from loguru import logger

from actors import RestartPolicy
from actors.stepped import SteppedWorld, stepped
from messages import (
    NS_PER_MS,
    NS_PER_S,
    DeviceFaultError,
    EngineLoadFailed,
    InferenceError,
    InferRejected,
    Outcome,
    OutOfMemoryError,
)
from runtimes import EngineHandle, FakeRuntime, raises, returns, takes_ms
from runtimes.available_memory import AvailableMemory
from runtimes.fake_steps import Step, loads
from runtimes.measurements import MemoryUse

IMAGE = {"image": np.ones(4, np.float32)}
RESULT = {"y": np.ones(4, np.float32)}
FINE = returns(RESULT)
FAULT = raises(InferenceError("716"))
POLICY = RestartPolicy(
    max_restarts=3,
    window_ns=60 * NS_PER_S,
    first_delay_ns=100 * NS_PER_MS,
    jitter_share=0.0,
    probation_after_ns=60 * NS_PER_S,
)


def fly(*steps: Step, policy: RestartPolicy = POLICY, **options: object) -> tuple[FakeRuntime, SteppedWorld]:
    fake = FakeRuntime({"vpr": steps, "match": FINE})
    return fake, stepped(fake, policy=policy, **options)  # type: ignore[arg-type]


class Measured(FakeRuntime):
    """Engines that provisioning has measured."""

    def __init__(self, scripts: Mapping[str, Step | Sequence[Step]], *, load_mb: int) -> None:
        super().__init__(scripts)
        use = MemoryUse(load_bytes=load_mb * 1024**2, run_bytes=0)
        self._in_memory = {
            model: msgspec.structs.replace(entry, memory=use) for model, entry in super().entries().items()
        }


def ask(
    world: SteppedWorld, model: str = "vpr", inputs: dict[str, np.ndarray] = IMAGE, consumer: str = "c2"
) -> Outcome:
    return world.consumer(consumer).infer(model, inputs, within_ms=300)


def reason(outcome: Outcome) -> str:
    return outcome.reason if isinstance(outcome, InferRejected) else "completed"


# What is kept, and what is proven first.


def test_the_first_restart_begins_from_what_was_verified_and_the_second_reads_it_again() -> None:
    fake, world = fly(FAULT, FAULT, FINE)
    with world:
        for _ in range(2):
            ask(world)
            world.advance_ms(1000)
        assert (fake.loads("vpr"), fake.resumes("vpr")) == (2, 1)
        assert reason(ask(world)) == "completed"
    assert fake.loaded == ()


def test_a_death_long_after_the_last_one_begins_from_what_was_verified_again() -> None:
    fake, world = fly(FAULT, FINE, FAULT, FINE)
    with world:
        ask(world)
        world.advance_ms(1000)
        assert reason(ask(world)) == "completed"
        world.advance_ms(3_600_000)
        ask(world)
        world.advance_ms(1000)
        assert reason(ask(world)) == "completed"
        assert (fake.loads("vpr"), fake.resumes("vpr")) == (1, 2)


@pytest.mark.parametrize("error", [OutOfMemoryError("2 GiB"), ValueError("a bug")], ids=repr)
def test_what_may_be_suspect_is_read_and_verified_again(error: BaseException) -> None:
    fake, world = fly(raises(error), raises(error), FINE)
    with world:
        for _ in range(2):
            ask(world)
        world.advance_ms(1000)
        assert fake.resumes("vpr") == 0


def test_a_module_that_was_kept_is_freed_where_the_flight_ends_before_its_restart() -> None:
    fake, world = fly(FAULT, FINE)
    with world:
        ask(world)
        world.run_until_idle()
        assert fake.loads("vpr") == 1
    assert fake.loaded == ()


def test_an_engine_that_restarts_is_not_asked_before_it_is_loaded() -> None:
    _, world = fly(FAULT, FAULT, takes_ms(500, loads()), FINE)
    with world:
        ask(world)
        world.advance_ms(1000)
        ask(world)
        world.advance_ms(400)
        outcome = ask(world)
        assert isinstance(outcome, InferRejected)
        assert outcome.reason == "engine_unavailable"
        world.advance_ms(500)
        assert reason(ask(world)) == "completed"


def memory(*figures_mb: int) -> Iterator[AvailableMemory]:
    """What is found at each look; the last figure for ever."""
    for figure in figures_mb:
        yield AvailableMemory(host_bytes=figure * 1024**2)
    while True:
        yield AvailableMemory(host_bytes=figures_mb[-1] * 1024**2)


def test_an_engine_is_not_loaded_again_before_its_memory_came_back() -> None:
    found = memory(1024, 1024, 0, 1024)  # around the release, then before each load
    fake, world = fly(FAULT, FAULT, FINE, available_memory=lambda: next(found))
    with world:
        ask(world)
        world.advance_ms(1000)
        ask(world)
        world.advance_ms(300)
        [failed] = [each for each in world.messages if isinstance(each, EngineLoadFailed)]
        assert failed.fault == "out_of_memory"
        assert failed.detail.startswith("vpr is not loaded again: memory")
        assert fake.loads("vpr") == 1, "nothing was tried"
        world.advance_ms(1000)
        assert reason(ask(world)) == "completed"


def test_takeoff_looks_at_memory_elsewhere_and_a_first_load_is_never_refused_here() -> None:
    found = memory(0)
    _, world = fly(FINE, available_memory=lambda: next(found))
    with world:
        assert reason(ask(world)) == "completed"


# What a release leaves behind.


@pytest.mark.parametrize(("found_mb", "said"), [((100, 300), False), ((100, 150), True)])
def test_memory_that_a_dead_engine_does_not_give_back_is_said(found_mb: tuple[int, int], said: bool) -> None:
    fake = Measured({"vpr": [raises(ValueError("a bug")), FINE]}, load_mb=200)
    found = memory(*found_mb, 4096)
    lines: list[str] = []
    handler = logger.add(lambda line: lines.append(str(line)), format="{message}", level="WARNING")
    try:
        with stepped(fake, policy=POLICY, available_memory=lambda: next(found)) as world:
            ask(world)
            world.advance_ms(1000)
            assert reason(ask(world)) == "completed"
    finally:
        logger.remove(handler)
    assert ("C7 memory did not come back; backbone=vpr; missing=150 MiB\n" in lines) == said


class GoneAtRelease(FakeRuntime):
    """The device is gone when the engine is to be freed."""

    def release_engine(self, handle: EngineHandle) -> None:
        super().release_engine(handle)
        raise DeviceFaultError("CUDA error 719")


def test_a_device_that_is_found_gone_while_a_dead_engine_is_freed_asks_for_a_new_process() -> None:
    fake = GoneAtRelease({"vpr": raises(ValueError("a bug")), "match": FINE})
    with stepped(fake, policy=POLICY) as world:
        assert reason(ask(world)) == "inference_error"
        world.run_until_idle()
        assert world.supervision.restart_needed
        assert reason(ask(world, "match")) == "engine_unavailable"
