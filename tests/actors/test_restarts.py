"""From a death to the next start: the delay, the order of things, and who is given up."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from actors import RestartPolicy
from actors.stepped import SteppedWorld, stepped
from messages import (
    NS_PER_MS,
    NS_PER_S,
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
)
from runtimes import FakeRuntime, fails_to_load, raises, returns, takes_ms
from runtimes.fake_steps import Step, loads

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
        assert outcome.detail == (
            "quarantined as poison: this engine died 2 times or more on c2's inputs (image float32[5])"
        )
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
