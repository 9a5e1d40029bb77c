"""The kit for tests of consumers: engines under supervision without threads, on virtual time."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from greenlet import greenlet
from loguru import logger

from actors import RestartPolicy
from actors.stepped import MESSAGES_KEPT, SteppedWorld, stepped
from messages import (
    NS_PER_MS,
    EngineDeserializeError,
    EngineHung,
    EngineLoaded,
    EngineQuarantined,
    EngineRestartScheduled,
    Infer,
    InferCompleted,
    InferenceError,
    InferRejected,
    InvalidInputError,
    Message,
    Outcome,
    OutOfMemoryError,
    ProcessRestartNeeded,
    TakeoffRefusedError,
    TransientInferenceError,
    VirtualClock,
)
from runtimes import (
    FakeRuntime,
    blocks_until,
    fails_to_load,
    hangs,
    hangs_at_load,
    loads,
    raises,
    returns,
    takes_ms,
)
from runtimes.fake_steps import Step

MATCHES = {"matches": np.ones(3, np.float32)}
FRAME = {"image": np.ones(3, np.float32)}
Scripts = dict[str, "Step | list[Step]"]


def now_ms(world: SteppedWorld) -> float:
    return world.clock.monotonic_ns() / NS_PER_MS


def ask(world: SteppedWorld, model: str = "vpr", within_ms: float = 200) -> Outcome:
    return world.client.infer(model, FRAME, within_ms=within_ms)


def reason(outcome: Outcome) -> str:
    return outcome.reason if isinstance(outcome, InferRejected) else "completed"


def kinds(world: SteppedWorld, *of: type[Message]) -> list[type[Message]]:
    return [type(message) for message in world.messages if isinstance(message, of)]


# Requests


def test_a_fault_and_a_restart_are_seen_by_a_consumer_without_any_waiting() -> None:
    fake = FakeRuntime({"vpr": [returns(MATCHES), raises(InferenceError("716")), returns(MATCHES)]})
    with stepped(fake, seed=7) as world:
        assert [reason(ask(world)) for _ in range(3)] == ["completed", "inference_error", "engine_unavailable"]
        world.advance_ms(500)
        assert reason(ask(world)) == "completed"
        assert (world.statistics()["vpr"].generation, fake.loaded) == (2, ("vpr",))
    assert fake.loaded == ()


def test_no_thread_is_started() -> None:
    before = threading.enumerate()
    fake = FakeRuntime({"vpr": [raises(InferenceError("716")), returns(MATCHES)], "match": hangs()})
    with stepped(fake) as world:
        ask(world)
        world.advance_ms(10_000)
        assert threading.enumerate() == before


def test_a_run_ends_when_its_time_is_over_and_others_go_on_meanwhile() -> None:
    fake = FakeRuntime({"vpr": takes_ms(30, returns(MATCHES)), "match": takes_ms(5, returns(MATCHES))})
    with stepped(fake, runs_at_once=2) as world:
        begin_ms = now_ms(world)
        slow, fast = (world.client.submit(model, FRAME, within_ms=200) for model in ("vpr", "match"))
        world.advance_ms(4)
        assert [slow.done, fast.done] == [False, False]
        assert isinstance(fast.result(), InferCompleted)
        assert now_ms(world) - begin_ms == 5
        outcome = slow.result()
        assert isinstance(outcome, InferCompleted)
        assert outcome.run_ns == 30 * NS_PER_MS
        assert now_ms(world) - begin_ms == 30


def test_while_one_engine_has_the_device_another_one_waits_for_it() -> None:
    fake = FakeRuntime({"vpr": takes_ms(30, returns(MATCHES)), "match": takes_ms(5, returns(MATCHES))})
    with stepped(fake) as world:
        first = world.client.submit("vpr", FRAME, within_ms=200)
        world.run_until_idle()
        outcome = ask(world, "match")
        assert isinstance(outcome, InferCompleted)
        assert (outcome.queued_ns, outcome.run_ns) == (30 * NS_PER_MS, 5 * NS_PER_MS)
        assert first.done
    assert fake.peak_concurrency() == 1


def test_a_request_expires_at_its_deadline_to_the_nanosecond() -> None:
    fake = FakeRuntime({"vpr": takes_ms(500, returns(MATCHES))})
    with stepped(fake) as world:
        begin_ns = world.clock.monotonic_ns()
        assert reason(ask(world, within_ms=200)) == "expired"
        assert world.clock.monotonic_ns() - begin_ns == 200 * NS_PER_MS
        world.advance_ms(1000)
        assert world.tallies()["vpr"].rejected == {"expired": 1}


def test_a_frame_of_runs_has_an_outcome_each() -> None:
    fake = FakeRuntime({"match": takes_ms(10, returns(MATCHES))})
    with stepped(fake) as world:
        outcomes = world.consumer("c3").infer_many("match", [FRAME] * 13, within_ms=100)
        assert [reason(outcome) for outcome in outcomes] == ["completed"] * 10 + ["expired"] * 3
        assert {message.consumer for message in world.messages if isinstance(message, Infer)} == {"c3"}


@pytest.mark.parametrize(
    ("error", "rejected", "generation"),
    [
        (InvalidInputError("image"), "invalid_input", 1),
        (TransientInferenceError("700"), "inference_error", 1),
        (OutOfMemoryError("full"), "out_of_memory", 1),
        (InferenceError("716"), "inference_error", 2),
        (ZeroDivisionError("a bug"), "inference_error", 2),
        (SystemExit(3), "inference_error", 2),
    ],
)
def test_every_fault_is_scripted_by_its_error(error: BaseException, rejected: str, generation: int) -> None:
    with stepped(FakeRuntime({"vpr": [raises(error), returns(MATCHES)]})) as world:
        assert reason(ask(world)) == rejected
        world.advance_ms(1000)
        assert reason(ask(world)) == "completed"
        assert world.statistics()["vpr"].generation == generation


def test_a_step_that_waits_for_an_event_goes_on_when_the_test_sets_it() -> None:
    go = threading.Event()
    with stepped(FakeRuntime({"vpr": blocks_until(go, returns(MATCHES))})) as world:
        pending = world.client.submit("vpr", FRAME, within_ms=2000)
        world.advance_ms(1000)
        assert not pending.done
        go.set()
        outcome = pending.result()
        assert isinstance(outcome, InferCompleted)
        assert outcome.run_ns == 1000 * NS_PER_MS


# Time


def test_the_clock_is_exactly_as_much_later_as_the_test_says() -> None:
    with stepped(FakeRuntime({"vpr": returns(MATCHES)})) as world:
        for duration_ms in (0, 0.000_001, 33.3, 100, 60_000):
            begin_ns = world.clock.monotonic_ns()
            world.advance_ms(duration_ms)
            assert world.clock.monotonic_ns() - begin_ns == round(duration_ms * NS_PER_MS)
        with pytest.raises(ValueError, match="duration_ms must be >= 0, got -1"):
            world.advance_ms(-1)


def test_what_can_happen_now_happens_without_any_time() -> None:
    with stepped(FakeRuntime({"vpr": returns(MATCHES)})) as world:
        begin_ms = now_ms(world)
        pending = world.client.submit("vpr", FRAME, within_ms=200)
        assert not pending.done
        world.run_until_idle()
        assert pending.done
        assert now_ms(world) == begin_ms


def test_an_engines_restart_comes_after_its_delay_and_not_before() -> None:
    fake = FakeRuntime({"vpr": [raises(InferenceError("716")), returns(MATCHES)]})
    with stepped(fake) as world:
        ask(world)
        world.run_until_idle()
        [scheduled] = [message for message in world.messages if isinstance(message, EngineRestartScheduled)]
        delay_ms = scheduled.delay_ns / NS_PER_MS
        world.advance_ms(delay_ms - 0.001)
        assert fake.loads("vpr") + fake.resumes("vpr") == 1
        world.advance_ms(0.001)
        assert fake.loads("vpr") + fake.resumes("vpr") == 2


def test_a_clock_can_be_given_that_something_else_was_made_with() -> None:
    clock = VirtualClock()
    with stepped(FakeRuntime({"vpr": returns(MATCHES)}), clock=clock) as world:
        world.advance_ms(5)
        assert world.clock is clock


# Takeoff and recovery


def test_a_takeoff_takes_as_long_as_its_loads_which_come_one_after_the_other() -> None:
    fake = FakeRuntime({name: [takes_ms(300, loads()), returns(MATCHES)] for name in ("vpr", "match")})
    with stepped(fake, priorities={"match": 1, "vpr": 2}) as world:
        assert world.clock.monotonic_ns() == VirtualClock().monotonic_ns() + 600 * NS_PER_MS
        loaded = [message for message in world.messages if isinstance(message, EngineLoaded)]
        assert [(message.model, message.load_ns) for message in loaded] == [
            ("match", 300 * NS_PER_MS),
            ("vpr", 300 * NS_PER_MS),
        ]


def test_a_takeoff_that_is_refused_leaves_nothing_behind() -> None:
    fake = FakeRuntime({"vpr": returns(MATCHES), "match": fails_to_load(EngineDeserializeError("no room"))})
    waits, threads = fake.stage.waits, threading.active_count()
    with pytest.raises(TakeoffRefusedError, match="match does not take off: no room"):
        stepped(fake)
    assert (fake.loaded, fake.stage.waits, threading.active_count()) == ((), waits, threads)


def test_a_load_that_hangs_refuses_the_takeoff_when_its_time_is_over() -> None:
    clock = VirtualClock()
    fake = FakeRuntime({"vpr": [hangs_at_load(), returns(MATCHES)]})
    with pytest.raises(TakeoffRefusedError, match="vpr: did not load within 30 s"):
        stepped(fake, load_timeout_s=30, clock=clock)
    assert fake.loaded == ()


def test_in_a_recovery_engines_answer_as_they_come_back() -> None:
    fake = FakeRuntime({name: [takes_ms(300, loads()), returns(MATCHES)] for name in ("vpr", "match")})
    with stepped(fake, mode="recovery", priorities={"vpr": 1, "match": 2}) as world:
        assert reason(ask(world, "vpr")) == "engine_unavailable"
        world.advance_ms(300)
        assert [reason(ask(world, model)) for model in ("vpr", "match")] == ["completed", "engine_unavailable"]
        world.advance_ms(300)
        assert reason(ask(world, "match")) == "completed"


def test_another_runtime_than_a_fake_says_which_engines_it_has() -> None:
    fake = FakeRuntime({"vpr": returns(MATCHES), "match": returns(MATCHES)})

    class Wrapped:
        """A user's own runtime around the fake."""

        compile_engine = fake.compile_engine
        deserialize_engine = fake.deserialize_engine
        infer = fake.infer
        release_engine = fake.release_engine
        thermal_state = fake.thermal_state
        current_runtime_label = fake.current_runtime_label

    with stepped(Wrapped(), engines={"vpr": fake.entry("vpr")}) as world:
        assert [reason(ask(world, model)) for model in ("vpr", "match")] == ["completed", "unknown_model"]
    with pytest.raises(ValueError, match="expected `engines` for a runtime that is no FakeRuntime"):
        stepped(Wrapped())


# Hangs


def test_a_run_that_hangs_is_found_and_its_consumer_is_told_at_the_deadline() -> None:
    told: list[str] = []
    fake = FakeRuntime({"vpr": hangs(), "match": returns(MATCHES)})
    with stepped(fake, run_limit_ms=1000, on_restart_needed=told.append) as world:
        outcome = ask(world)
        assert isinstance(outcome, InferRejected)
        assert (outcome.reason, outcome.inputs_released) == ("expired", False)
        assert kinds(world, EngineHung) == []
        world.advance_ms(1500)
        assert kinds(world, EngineHung, ProcessRestartNeeded) == [EngineHung, ProcessRestartNeeded]
        assert reason(ask(world, "match")) == "engine_unavailable"
        assert told == [world.supervision.restart_needed]


def test_a_run_that_comes_back_too_late_changes_nothing() -> None:
    fake = FakeRuntime({"vpr": hangs(returns(MATCHES))})
    with stepped(fake) as world:
        assert reason(ask(world)) == "expired"
        fake.release_hung()
        world.advance_ms(100)
        assert world.tallies()["vpr"].completed == 0
        assert reason(ask(world)) == "completed"


def test_what_still_hangs_at_the_end_of_the_world_is_dropped_in_silence() -> None:
    lines: list[str] = []
    seen: list[Message] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    try:
        fake = FakeRuntime({"vpr": hangs(returns(MATCHES)), "match": takes_ms(3_600_000, returns(MATCHES))})
        with stepped(fake, record=seen.append, runs_at_once=2) as world:
            pending = [world.client.submit(model, FRAME, within_ms=200) for model in ("vpr", "match")]
            world.advance_ms(500)
        assert [reason(each.result()) for each in pending] == ["expired"] * 2
    finally:
        logger.remove(sink)
    assert not any(isinstance(message, InferCompleted) for message in seen)
    assert tuple(seen) == world.messages
    assert [line for line in lines if "did not stop" not in line] == []
    gc.collect()
    loops = [each for each in gc.get_objects() if issubclass(type(each), greenlet)]  # isinstance asks torch's warnings
    assert not [each for each in loops if each and each.parent is not None]


# Seeds


def story(seed: int) -> list[str]:
    """What is said in a flight in which much happens at the same moments."""
    scripts: Scripts = {
        "vpr": [returns(MATCHES), raises(InferenceError("716")), takes_ms(10, returns(MATCHES))],
        "match": [takes_ms(10, returns(MATCHES)), raises(OutOfMemoryError("full")), returns(MATCHES)],
        "refine": [takes_ms(20, returns(MATCHES)), takes_ms(10, raises(InferenceError("717"))), returns(MATCHES)],
    }
    with stepped(FakeRuntime(scripts), seed=seed, runs_at_once=3) as world:
        for _ in range(20):
            for model in scripts:
                world.client.submit(model, FRAME, within_ms=50)
            world.advance_ms(20)
        return [f"{type(message).__name__} {getattr(message, 'model', '')} {message}" for message in world.messages]


def test_one_seed_gives_one_order() -> None:
    assert story(3) == story(3)


def test_one_seed_gives_one_order_in_every_process() -> None:
    told = subprocess.run(  # our own interpreter, which hashes strings differently
        [sys.executable, "-c", "from tests.actors.test_stepped import story; print(*story(3), sep='\\n')"],
        cwd=Path(__file__).parents[2],
        env={"PYTHONHASHSEED": "1", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert told.stdout.splitlines() == story(3)


def test_another_seed_gives_another_order() -> None:
    assert len({tuple(story(seed)) for seed in range(5)}) == 5


def test_every_seed_gives_each_request_one_outcome() -> None:
    for seed in range(20):
        told = story(seed)
        assert sum(line.startswith("Infer ") for line in told) == 60
        assert sum(line.startswith(("InferCompleted ", "InferRejected ")) for line in told) == 60


# What is kept, and the end


def test_statistics_are_exact_in_virtual_time() -> None:
    with stepped(FakeRuntime({"vpr": takes_ms(30, returns(MATCHES))})) as world:
        world.client.infer_many("vpr", [FRAME] * 3, within_ms=500)
        statistics = world.statistics()["vpr"]
        assert (statistics.run.max_ns, statistics.queue.max_ns) == (30 * NS_PER_MS, 60 * NS_PER_MS)
        assert (statistics.tally.submitted, statistics.tally.completed) == (3, 3)


def test_the_newest_messages_are_kept_and_all_are_recorded() -> None:
    seen: list[Message] = []
    with stepped(FakeRuntime({"vpr": returns(MATCHES)}), record=seen.append) as world:
        for _ in range(MESSAGES_KEPT):
            ask(world)
        assert len(seen) > 2 * MESSAGES_KEPT
        assert len(world.messages) == MESSAGES_KEPT
        assert world.messages[-1] is seen[-1]


def raise_in(world: SteppedWorld) -> None:
    with world:
        world.client.submit("vpr", FRAME, within_ms=200)
        raise ZeroDivisionError("of the test")


def test_what_the_test_raises_ends_the_world_and_is_not_replaced() -> None:
    world = stepped(FakeRuntime({"vpr": hangs()}))
    with pytest.raises(ZeroDivisionError, match="of the test"):
        raise_in(world)
    assert not world.supervision.is_alive()
    assert world.tallies()["vpr"].open == 0


def test_one_fake_can_be_in_one_world_after_the_other_and_in_none() -> None:
    fake = FakeRuntime({"vpr": [takes_ms(1, returns(MATCHES)), returns({}), takes_ms(1, returns(MATCHES))]})
    for keys in (["matches"], []):
        with stepped(fake) as world:
            outcome = ask(world)
            assert isinstance(outcome, InferCompleted)
            assert list(outcome.outputs) == keys
        world.close()
    assert fake.infer(fake.deserialize_engine(fake.entry("vpr")), FRAME).keys() == {"matches"}


def test_an_engine_that_keeps_failing_is_quarantined_within_the_policy_that_was_given() -> None:
    policy = RestartPolicy(max_restarts=2)
    with stepped(FakeRuntime({"vpr": raises(InferenceError("716"))}), policy=policy) as world:
        for _ in range(10):
            ask(world)
            world.advance_ms(2000)
        assert kinds(world, EngineQuarantined)[:1] == [EngineQuarantined]
        assert "quarantined" in str(ask(world))


WITHOUT_GREENLET = """
import sys
sys.modules["greenlet"] = None
import actors, actors.__main__
try:
    import actors.stepped
except ImportError as error:
    print(error)
"""


def test_without_greenlet_everything_else_works_and_the_kit_says_what_to_install() -> None:
    result = subprocess.run(  # noqa: S603  # our own interpreter, our own program
        [sys.executable, "-c", WITHOUT_GREENLET],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "expected the library greenlet" in result.stdout
    assert "c7-inference[testing]" in result.stdout
