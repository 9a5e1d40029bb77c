"""From a death to the next start: the delay, what is kept, what is proven first, and who is given up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

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
    EngineDeserializeError,
    EngineDied,
    EngineLoaded,
    EngineLoadFailed,
    EngineQuarantined,
    EngineRestartScheduled,
    InferCompleted,
    InferenceError,
    InferRejected,
    Outcome,
    OutOfMemoryError,
)
from runtimes import EngineHandle, FakeRuntime, fails_to_load, raises, returns, takes_ms
from runtimes.available_memory import AvailableMemory
from runtimes.fake_steps import Step, loads
from runtimes.measurements import MemoryUse

IMAGE = {"image": np.ones(4, np.float32)}
OTHER = {"image": np.ones(5, np.float32)}
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


def delays_ms(world: SteppedWorld) -> list[float]:
    world.run_until_idle()
    return [each.delay_ns / NS_PER_MS for each in world.messages if isinstance(each, EngineRestartScheduled)]


# The delay.


def test_a_restart_waits_its_delay_and_not_a_moment_longer() -> None:
    _, world = fly(FAULT, FINE)
    with world:
        ask(world)
        world.advance_ms(99)
        assert reason(ask(world)) == "engine_unavailable"
        world.advance_ms(1)
        assert reason(ask(world)) == "completed"


def test_each_restart_within_the_window_waits_twice_as_long() -> None:
    _, world = fly(FAULT, FAULT, FAULT, FINE)
    with world:
        for _ in range(3):
            ask(world)
            world.advance_ms(1000)
        assert delays_ms(world) == [100, 200, 400]
        assert reason(ask(world)) == "completed"


def test_an_engine_that_flew_well_for_a_window_starts_from_the_first_delay_again() -> None:
    _, world = fly(FAULT, FAULT, FINE, FAULT, FINE)
    with world:
        for _ in range(2):
            ask(world)
            world.advance_ms(1000)
        assert reason(ask(world)) == "completed"
        world.advance_ms(120_000)
        ask(world)
        assert delays_ms(world) == [100, 200, 100]


def test_engines_that_fell_together_do_not_load_together() -> None:
    fake = FakeRuntime({name: [FAULT, FINE] for name in "abcd"})
    with stepped(fake, policy=RestartPolicy(first_delay_ns=100 * NS_PER_MS, jitter_share=0.25)) as world:
        for name in "abcd":
            ask(world, name)
        assert len(set(delays_ms(world))) == 4
        assert all(75 <= delay <= 100 for delay in delays_ms(world))


def test_the_same_seed_draws_the_same_delays() -> None:
    def drawn(seed: int) -> list[float]:
        _, world = fly(FAULT, FAULT, FINE, policy=RestartPolicy(), seed=seed)
        with world:
            for _ in range(2):
                ask(world)
                world.advance_ms(1000)
            return delays_ms(world)

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


# Intensity, quarantine, probation.


def test_one_death_more_than_the_limit_is_quarantined_and_the_others_fly_on() -> None:
    fake, world = fly(*[FAULT] * 4, FINE)
    with world:
        for _ in range(4):
            assert reason(ask(world)) == "inference_error"
            world.advance_ms(1000)
        outcome = ask(world)
        assert isinstance(outcome, InferRejected)
        assert outcome.detail == "quarantined: 4 failures within 60 s; 3 allowed; last: 716"
        assert reason(ask(world, "match")) == "completed"
        assert fake.loaded == ("match",), "what is given up frees its memory"
        assert [each.model for each in world.messages if isinstance(each, EngineQuarantined)] == ["vpr"]


def test_failing_loads_count_like_deaths_and_never_spin() -> None:
    _, world = fly(FAULT, FAULT, *[fails_to_load(EngineDeserializeError("busy"))] * 100, FINE)
    with world:
        for _ in range(2):
            ask(world)
            world.advance_ms(1000)
        world.advance_ms(30_000)
        assert len([each for each in world.messages if isinstance(each, EngineLoadFailed)]) == 2
        assert reason(ask(world, "match")) == "completed"


def test_a_quarantined_engine_is_tried_once_more_and_flies_on_where_it_is_well() -> None:
    _, world = fly(*[FAULT] * 4, FINE)
    with world:
        for _ in range(4):
            ask(world)
            world.advance_ms(1000)
        world.advance_ms(60_000)
        assert reason(ask(world)) == "completed"
        assert world.statistics()["vpr"].generation == 5


def test_an_engine_that_dies_on_probation_is_quarantined_at_once_and_for_twice_as_long() -> None:
    _, world = fly(*[FAULT] * 5, FINE)
    with world:
        for _ in range(4):
            ask(world)
            world.advance_ms(1000)
        world.advance_ms(60_000)
        ask(world)
        waits = [each.probation_in_ns // NS_PER_S for each in world.messages if isinstance(each, EngineQuarantined)]
        assert waits == [60, 120]
        world.advance_ms(119_000)
        assert reason(ask(world)) == "engine_unavailable"
        world.advance_ms(2_000)
        assert reason(ask(world)) == "completed"


def test_an_engine_that_outlived_its_probation_may_die_as_often_as_a_new_one() -> None:
    _, world = fly(*[FAULT] * 4, FINE, *[FAULT] * 3, FINE)
    with world:
        for _ in range(4):
            ask(world)
            world.advance_ms(1000)
        world.advance_ms(60_000)
        assert reason(ask(world)) == "completed"
        world.advance_ms(61_000)
        for _ in range(3):
            assert reason(ask(world)) == "inference_error"
            world.advance_ms(1000)
        assert reason(ask(world)) == "completed"


def test_a_policy_without_restarts_gives_an_engine_up_at_its_first_death() -> None:
    _, world = fly(FAULT, FINE, policy=RestartPolicy(max_restarts=0, probation_after_ns=0))
    with world:
        ask(world)
        world.advance_ms(3_600_000)
        assert reason(ask(world)) == "engine_unavailable"
        assert not delays_ms(world)


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


# The order of things.


def test_generations_count_up_and_outcomes_say_which_one_answered() -> None:
    _, world = fly(FINE, FAULT, FINE, FAULT, FINE)
    with world:
        seen = []
        for _ in range(5):
            outcome = ask(world)
            seen.append(outcome.generation if isinstance(outcome, InferCompleted) else None)
            world.advance_ms(1000)
        assert seen == [1, None, 2, None, 3]


def test_a_death_is_told_before_its_restart_and_its_restart_before_the_next_start() -> None:
    _, world = fly(FAULT, FINE)
    with world:
        ask(world)
        world.advance_ms(1000)
        facts = [type(each) for each in world.messages if getattr(each, "model", "") == "vpr"]
        order = [facts.index(kind) for kind in (EngineDied, EngineRestartScheduled)]
        order.append(len(facts) - 1 - facts[::-1].index(EngineLoaded))
        assert all(earlier < later for earlier, later in pairwise(order))


def test_another_engine_that_dies_while_one_restarts_comes_back_too() -> None:
    fake = FakeRuntime({"vpr": [FAULT, takes_ms(500, loads()), FINE], "match": [FAULT, FINE]})
    with stepped(fake, policy=RestartPolicy(max_restarts=3, first_delay_ns=NS_PER_MS)) as world:
        ask(world, "vpr")
        world.advance_ms(100)
        ask(world, "match")
        world.advance_ms(100)
        assert reason(ask(world, "match")) == "completed"
        world.advance_ms(1000)
        assert reason(ask(world, "vpr")) == "completed"


# Poison.


def test_inputs_that_kill_an_engine_twice_that_does_well_on_others_are_refused_and_it_flies_on() -> None:
    _, world = fly(FAULT, FINE, FAULT, FINE, policy=RestartPolicy(jitter_share=0))
    with world:
        assert reason(ask(world, inputs=OTHER)) == "inference_error"
        world.advance_ms(1000)
        assert reason(ask(world)) == "completed", "the engine proves itself"
        assert reason(ask(world, inputs=OTHER)) == "inference_error"
        world.advance_ms(1000)
        outcome = ask(world, inputs=OTHER)
        assert isinstance(outcome, InferRejected)
        assert outcome.reason == "engine_unavailable"
        assert outcome.detail == "quarantined as poison: this engine died 2 times on c2's inputs (image float32[5])"
        assert outcome.inputs_released
        assert reason(ask(world)) == "completed"
        assert reason(ask(world, inputs=OTHER, consumer="c3")) == "completed", "another consumer's are not suspect"
        assert world.statistics()["vpr"].generation == 3


def test_poison_is_tried_again_after_ten_seconds() -> None:
    _, world = fly(FAULT, FINE, FAULT, FINE)
    with world:
        ask(world, inputs=OTHER)
        world.advance_ms(1000)
        ask(world)
        ask(world, inputs=OTHER)
        world.advance_ms(10_001)
        assert reason(ask(world, inputs=OTHER)) == "completed"


def test_an_engine_that_dies_of_everything_blames_no_consumer() -> None:
    _, world = fly(*[FAULT] * 3, FINE)
    with world:
        for _ in range(3):
            assert reason(ask(world)) == "inference_error"
            world.advance_ms(1000)
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
