"""Many engines, engines that never come back, and callbacks that break their word."""

from __future__ import annotations

import numpy as np
import pytest

from actors import RestartPolicy
from actors.stepped import SteppedWorld, stepped
from messages import (
    NS_PER_MS,
    AllEnginesLoaded,
    DeviceFaultError,
    EngineDeserializeError,
    EngineLoaded,
    InferenceError,
    InferRejected,
    Outcome,
    TakeoffRefusedError,
)
from runtimes import FakeRuntime, fails_to_load, raises, returns, takes_ms
from runtimes.fake_steps import Step, loads

IMAGE = {"image": np.ones(4, np.float32)}
FINE = returns({"y": np.ones(4, np.float32)})
FAULT = raises(InferenceError("716"))
UNREADABLE = fails_to_load(EngineDeserializeError("busy"))
NO_LIMIT = RestartPolicy(max_restarts=1_000_000, first_delay_ns=NS_PER_MS, max_delay_ns=100 * NS_PER_MS)


def ask(world: SteppedWorld, model: str) -> Outcome:
    return world.client.infer(model, IMAGE, within_ms=300)


def reason(outcome: Outcome) -> str:
    return outcome.reason if isinstance(outcome, InferRejected) else "completed"


def test_sixty_four_engines_load_in_order_fall_together_and_all_come_back() -> None:
    names = [f"m{number:02d}" for number in range(64)]
    fake = FakeRuntime({name: [FAULT, FINE] for name in names})
    with stepped(fake, priorities={name: rank for rank, name in enumerate(reversed(names))}) as world:
        loaded = [each.model for each in world.messages if isinstance(each, EngineLoaded)]
        assert loaded == names[::-1]
        assert {reason(ask(world, name)) for name in names} == {"inference_error"}
        world.advance_ms(1000)
        assert {reason(ask(world, name)) for name in names} == {"completed"}
        assert fake.peak_concurrency() == 1
    assert fake.loaded == ()


def failing_for_ever(fake_steps: list[Step]) -> SteppedWorld:
    fake = FakeRuntime({"vpr": [FAULT, FINE, FAULT, *fake_steps], "match": FINE})
    world = stepped(fake, policy=NO_LIMIT)
    for _ in range(3):
        ask(world, "vpr")
        world.advance_ms(10)
    return world


def test_while_the_loads_of_one_engine_fail_again_and_again_everybody_else_is_answered() -> None:
    with failing_for_ever([UNREADABLE] * 10_000) as world:
        for _ in range(50):
            assert reason(ask(world, "match")) == "completed"
            assert reason(ask(world, "vpr")) == "engine_unavailable"
            world.advance_ms(100)
        statistics = world.statistics()
        assert statistics["match"].tally.completed == 50
        assert statistics["vpr"].generation == 2


@pytest.mark.parametrize("advance_ms", [0, 1, 50, 100, 101])
def test_a_stop_in_the_midst_of_failing_loads_ends_everything(advance_ms: float) -> None:
    world = failing_for_ever([takes_ms(50, UNREADABLE)] * 10_000)
    world.advance_ms(advance_ms)
    world.supervision.stop()
    assert reason(ask(world, "vpr")) == "shutting_down"
    world.advance_ms(60_000)
    assert not world.supervision.is_alive()
    world.close()


def test_an_engine_that_falls_while_its_neighbour_loads_again_does_not_wait_for_it() -> None:
    fake = FakeRuntime({"slow": [FAULT, FAULT, takes_ms(5000, loads()), FINE], "quick": [FAULT, FINE]})
    with stepped(fake, policy=NO_LIMIT) as world:
        for _ in range(2):
            ask(world, "slow")
            world.advance_ms(100)
        ask(world, "quick")
        world.advance_ms(100)
        assert reason(ask(world, "quick")) == "completed"
        assert reason(ask(world, "slow")) == "engine_unavailable"
        world.advance_ms(6000)
        assert reason(ask(world, "slow")) == "completed"


def test_all_loaded_is_said_once_however_often_engines_come_back() -> None:
    fake = FakeRuntime({"vpr": [FAULT, FINE] * 20, "match": FINE})
    with stepped(fake, policy=NO_LIMIT) as world:
        for _ in range(40):
            ask(world, "vpr")
            world.advance_ms(100)
        assert len([each for each in world.messages if isinstance(each, AllEnginesLoaded)]) == 1


def test_a_takeoff_names_every_engine_that_fails_and_leaves_nothing_loaded() -> None:
    fake = FakeRuntime({"a": FINE, "b": UNREADABLE, "c": FINE, "d": fails_to_load(SystemExit(3))})
    with pytest.raises(TakeoffRefusedError, match=r"2 engine\(s\) not loaded: b: .*busy; d: SystemExit: 3"):
        stepped(fake)
    assert fake.loaded == ()


def test_a_takeoff_whose_device_is_gone_is_refused_with_that_reason_for_every_engine() -> None:
    fake = FakeRuntime({"a": FINE, "b": fails_to_load(DeviceFaultError("CUDA error 719")), "c": FINE})
    with pytest.raises(TakeoffRefusedError, match="b: process restart needed: CUDA error 719; c: process restart"):
        stepped(fake, priorities={"a": 0, "b": 1, "c": 2})
    assert fake.loaded == ()
    assert fake.loads("c") == 0


def break_word(_reason: str) -> None:
    raise OSError("the callback broke its word")


def test_a_callback_that_raises_ends_the_supervisor_and_leaves_no_request_unanswered() -> None:
    fake = FakeRuntime({"vpr": raises(DeviceFaultError("gone")), "match": takes_ms(50, FINE)})
    with stepped(fake, on_restart_needed=break_word) as world:
        pending = [world.client.submit(model, IMAGE, within_ms=300) for model in ("match", "vpr", "match", "vpr")]
        world.advance_ms(1000)
        assert all(each.done for each in pending)
        assert not world.supervision.is_alive()
        assert world.supervision.restart_needed == "gone"
        assert sum(tally.open for tally in world.tallies().values()) == 0


def break_word_of_an_outcome(_outcome: Outcome) -> None:
    raise OSError("the listener broke its word")


def test_a_listener_that_raises_costs_no_engine_no_supervisor_and_nobody_elses_outcome() -> None:
    fake = FakeRuntime({"vpr": [FINE, takes_ms(500, FINE), FINE]})
    with stepped(fake) as world:
        world.client.submit("vpr", IMAGE, within_ms=300).listen(break_word_of_an_outcome)  # an engine tells it
        world.advance_ms(10)
        pending = [world.client.submit("vpr", IMAGE, within_ms=300) for _ in range(3)]
        for each in pending[:2]:
            each.listen(break_word_of_an_outcome)  # the supervisor tells it
        world.advance_ms(1000)
        assert all(each.done for each in pending)
        assert world.supervision.is_alive()
        assert reason(ask(world, "vpr")) == "completed"
        assert world.statistics()["vpr"].generation == 1


def test_a_wrong_message_to_the_supervisor_costs_nobody_anything() -> None:
    fake = FakeRuntime({"vpr": FINE})
    with stepped(fake) as world:
        for nonsense in ("nonsense", None, 5):
            world.supervision.actor_ref.tell(nonsense)
        world.advance_ms(1000)
        assert world.supervision.is_alive()
        assert reason(ask(world, "vpr")) == "completed"
