"""The interface on the actors: what a caller is told, what it can reach, and that a handle outlives its engine."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pykka
import pytest

from actors import RestartPolicy, supervise
from actors.lightglue_runtime import LightGlueRuntime
from actors.stepped import SteppedWorld, stepped
from actors.supervised_runtime import SupervisedRuntime, error_of
from messages import (
    NS_PER_MS,
    BlockingCallError,
    DeviceContextError,
    DeviceFaultError,
    EngineBuildError,
    EngineDied,
    InferCompleted,
    InferenceError,
    InferRejected,
    InvalidInputError,
    Message,
    OutOfMemoryError,
    RejectReason,
    RequestRejectedError,
    TransientInferenceError,
)
from runtimes import BuildConfig, EngineHandle, FakeRuntime, raises, returns, takes_ms
from runtimes.fake_steps import Step, blocks_until, loads_after
from telemetry import ThermalReading
from tests.actors.references import ways

IMAGE = {"image": np.ones(4, np.float32)}
RESULT = {"y": np.ones(4, np.float32)}
FINE = returns(RESULT)
DIES = raises(InferenceError("716"))
WAIT_S = 20.0
QUICK = RestartPolicy(max_restarts=1000, first_delay_ns=NS_PER_MS, max_delay_ns=NS_PER_MS)


class Cool:
    name = "cool"

    def read(self) -> ThermalReading:
        return ThermalReading(cpu_temp_c=60.0, gpu_temp_c=61.0, gpu_clock_mhz=1020)


@pytest.fixture
def world() -> Iterator[SteppedWorld]:
    with stepped(FakeRuntime({"vpr": takes_ms(40, FINE), "other": FINE}), engines={}) as world:
        yield world


def fly(*steps: Step, **options: object) -> tuple[SteppedWorld, SupervisedRuntime, EngineHandle]:
    fake = FakeRuntime({"vpr": steps})
    world = stepped(fake, engines={}, **options)  # type: ignore[arg-type]
    runtime = world.supervision.as_runtime()
    return world, runtime, runtime.deserialize_engine(fake.entry("vpr"))


# What a caller is told


def test_a_result_is_the_outputs_of_the_run() -> None:
    world, runtime, vpr = fly(FINE)
    with world:
        assert set(runtime.infer(vpr, IMAGE)) == {"y"}
        [completed] = [message for message in world.messages if isinstance(message, InferCompleted)]
        assert (completed.model, completed.generation) == ("vpr", 1)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (InvalidInputError("a shape"), InvalidInputError),
        (TransientInferenceError("busy"), InferenceError),
        (InferenceError("716"), InferenceError),
        (DeviceContextError("lost"), InferenceError),
        (DeviceFaultError("gone"), InferenceError),
        (OutOfMemoryError("2 GiB"), OutOfMemoryError),
        (ValueError("a bug"), InferenceError),
        (SystemExit(3), InferenceError),
    ],
    ids=repr,
)
def test_a_fault_of_the_run_is_raised_as_a_runtime_raises_it(raised: BaseException, told: type[Exception]) -> None:
    world, runtime, vpr = fly(raises(raised), FINE)
    with world, pytest.raises(told, match=str(raised)) as caught:
        runtime.infer(vpr, IMAGE)
    assert type(caught.value) is told


def test_every_reason_has_its_error() -> None:
    own: dict[RejectReason, type[Exception]] = {
        "invalid_input": InvalidInputError,
        "inference_error": InferenceError,
        "out_of_memory": OutOfMemoryError,
    }
    for reason in get_args(RejectReason):
        error = error_of(InferRejected("vpr", "c2", 7, 1, reason, "the detail", inputs_released=False))
        if reason in own:
            assert type(error) is own[reason]
            assert str(error) == "the detail"
        else:
            assert isinstance(error, RequestRejectedError)
            assert (error.reason, error.inputs_released) == (reason, False)
            assert str(error) == f"vpr gave no result, {reason}: the detail; consumer=c2 frame=7"


def test_a_rejection_without_a_detail_leaves_no_hole_in_the_text() -> None:
    error = error_of(InferRejected("vpr", "c2", 7, 1, "cancelled", "", inputs_released=True))
    assert str(error) == "vpr gave no result, cancelled; consumer=c2 frame=7"


def test_what_is_asked_of_an_engine_of_the_flight_that_still_loads_is_told_so() -> None:
    may_load = threading.Event()
    fake = FakeRuntime({"vpr": [loads_after(may_load), FINE]})
    with stepped(fake, mode="recovery") as world:
        runtime = world.supervision.as_runtime()
        vpr = runtime.deserialize_engine(fake.entry("vpr"))
        with pytest.raises(RequestRejectedError, match="engine_unavailable: loading"):
            runtime.infer(vpr, IMAGE)
        may_load.set()
        world.advance_ms(1)
        assert runtime.infer(vpr, IMAGE)


def sets(event: threading.Event, step: Step) -> Step:
    """The step, and the event once its run has begun."""

    def play(inputs: Any, stage: Any) -> Any:
        event.set()
        return step.play(inputs, stage)

    return Step(play, outputs=step.outputs)


def test_what_a_newer_frame_pushes_out_is_told_that_it_was_shed() -> None:
    begun, go_on = threading.Event(), threading.Event()
    fake = FakeRuntime({"vpr": [sets(begun, blocks_until(go_on, FINE)), FINE]})
    with supervise(fake, None) as c7:
        runtime = c7.as_runtime(within_ms=WAIT_S * 1000)
        vpr = runtime.deserialize_engine(fake.entry("vpr"))
        errors: list[Exception] = []

        def ask() -> None:
            try:
                runtime.infer(vpr, IMAGE)
            except RequestRejectedError as error:
                errors.append(error)

        client = c7.client("main")
        running = client.submit("vpr", IMAGE, within_ms=WAIT_S * 1000, frame_id=9)
        assert begun.wait(WAIT_S)  # what runs is pushed out by nobody
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        while c7.tallies()["vpr"].submitted < 2:
            threading.Event().wait(0.001)
        newer = [client.submit("vpr", IMAGE, within_ms=WAIT_S * 1000, frame_id=number) for number in (10, 11)]
        asking.join(WAIT_S)
        go_on.set()
        assert [type(each.result()) for each in (running, *newer)] == [InferCompleted] * 3
    [error] = errors
    assert isinstance(error, RequestRejectedError)
    assert error.reason == "shed"


def test_after_a_stop_every_call_is_told_so() -> None:
    world, runtime, vpr = fly(FINE)
    with world:
        world.supervision.stop()
        with pytest.raises(RequestRejectedError) as caught:
            runtime.infer(vpr, IMAGE)
        assert caught.value.reason == "shutting_down"
        runtime.release_engine(vpr)
        world.supervision.stop()


def test_a_ctrl_c_in_a_call_gives_the_request_up() -> None:
    world, runtime, vpr = fly(FINE)
    with world, pytest.MonkeyPatch.context() as patch:

        def interrupt(_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr("actors.pending.Pending.await_outcome", interrupt)
        with pytest.raises(KeyboardInterrupt):
            runtime.infer(vpr, IMAGE)
        patch.undo()
        assert world.tallies()["vpr"].rejected == {"cancelled": 1}


# A handle outlives its engine


def test_a_handle_raises_while_its_engine_restarts_and_then_works_again() -> None:
    world, runtime, vpr = fly(DIES, FINE)
    with world:
        with pytest.raises(InferenceError, match="716"):
            runtime.infer(vpr, IMAGE)
        with pytest.raises(RequestRejectedError, match="engine_unavailable"):
            runtime.infer(vpr, IMAGE)
        world.advance_ms(1000)
        assert runtime.infer(vpr, IMAGE)


def test_one_handle_serves_several_threads_across_the_restarts_of_its_engine() -> None:
    fake = FakeRuntime({"vpr": [FINE, FINE, DIES] * 20 + [FINE]})
    with supervise(fake, None, policy=QUICK) as c7:
        runtime = c7.as_runtime(within_ms=WAIT_S * 1000)
        vpr = runtime.deserialize_engine(fake.entry("vpr"))
        good = threading.Semaphore(0)
        odd: list[BaseException] = []
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                try:
                    runtime.infer(vpr, IMAGE)
                    good.release()
                except InferenceError:  # noqa: PERF203
                    done.wait(0.001)
                except BaseException as error:  # noqa: BLE001  # the test's own thread raises it
                    odd.append(error)
                    return

        threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(60):
            assert good.acquire(timeout=WAIT_S)
        while fake.resumes("vpr") + fake.loads("vpr") < 3 and good.acquire(timeout=WAIT_S):
            pass
        done.set()
        for thread in threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()
        assert odd == []
        tally = c7.tallies()["vpr"]
        assert tally.submitted == tally.completed + sum(tally.rejected.values())
    assert fake.loaded == ()
    assert fake.peak_concurrency() == 1


def test_a_handle_of_another_runtime_over_the_same_actors_is_a_stranger() -> None:
    world, runtime, vpr = fly(FINE)
    with world:
        other = world.supervision.as_runtime()
        with pytest.raises(InferenceError, match="belongs to another runtime"):
            other.infer(vpr, IMAGE)
        other.release_engine(vpr)
        assert runtime.infer(vpr, IMAGE), "nothing was released"


# Compiling


def test_nothing_is_compiled_while_an_engine_of_the_flight_restarts(tmp_path: Path) -> None:
    source = tmp_path / "vpr.onnx"
    source.write_bytes(b"weights")
    fake = FakeRuntime({"vpr": [raises(OutOfMemoryError("2 GiB")), raises(OutOfMemoryError("2 GiB")), FINE]})
    with stepped(fake) as world:
        runtime = world.supervision.as_runtime()
        for _ in range(2):
            world.client.infer("vpr", IMAGE, within_ms=100)
        world.run_until_idle()
        assert fake.loaded == ()
        with pytest.raises(EngineBuildError, match=r"nothing is compiled while engines are loaded \(vpr\)"):
            runtime.compile_engine(source, BuildConfig())


# Whoever may not wait


def waiting_calls(runtime: SupervisedRuntime, vpr: EngineHandle) -> dict[str, Callable[[], object]]:
    return {
        "infer()": lambda: runtime.infer(vpr, IMAGE),
        "deserialize_engine()": lambda: runtime.deserialize_engine(vpr.entry),
        "release_engine()": lambda: runtime.release_engine(vpr),
        "compile_engine()": lambda: runtime.compile_engine(Path("vpr.onnx"), BuildConfig()),
    }


@pytest.mark.parametrize("call", ["infer()", "deserialize_engine()", "release_engine()", "compile_engine()"])
@pytest.mark.parametrize("kind", [InferCompleted, EngineDied])
def test_no_call_waits_on_the_thread_of_one_of_our_own_actors(call: str, kind: type[Message]) -> None:
    """An outcome is recorded on the engine's thread, a death on the supervisor's."""
    refusals: list[BaseException] = []
    calls: dict[str, Callable[[], object]] = {}

    def record(message: Message) -> None:
        if isinstance(message, kind) and calls:
            try:
                calls[call]()
            except BaseException as error:  # noqa: BLE001
                refusals.append(error)

    world, runtime, vpr = fly(FINE, DIES, FINE, record=record)
    with world:
        calls.update(waiting_calls(runtime, vpr))
        runtime.infer(vpr, IMAGE)
        with pytest.raises(InferenceError):
            runtime.infer(vpr, IMAGE)
        world.run_until_idle()
        [refusal] = refusals
        assert isinstance(refusal, BlockingCallError)
        assert str(refusal).startswith(f"expected {call} on a consumer's thread, found it on the thread of ")
        calls.clear()
        world.advance_ms(1000)
        assert runtime.infer(vpr, IMAGE), "nothing was released, and nobody died of it"


def test_a_consumers_own_actor_may_load_run_and_release() -> None:
    fake = FakeRuntime({"vpr": takes_ms(40, FINE)})

    class Consumer(pykka.ThreadingActor):
        def on_receive(self, runtime: SupervisedRuntime) -> dict[str, object]:
            vpr = runtime.deserialize_engine(fake.entry("vpr"))
            outputs = runtime.infer(vpr, IMAGE)
            runtime.release_engine(vpr)
            return dict(outputs)

    with stepped(fake, engines={}) as world:
        consumer = world.start(Consumer)
        assert set(consumer.ask(world.supervision.as_runtime())) == {"y"}
        assert fake.loaded == ()


# What a holder of the runtime can reach


def test_the_ways_to_an_object_go_through_everything_that_refers_to_it() -> None:
    strategy = FakeRuntime({})

    class Slotted:
        __slots__ = ("_hidden",)

        def __init__(self, hidden: object) -> None:
            self._hidden = hidden

    assert ways(Slotted([{"a": strategy.infer}]), strategy) == ["Slotted > list > dict > method"]
    assert ways(lambda: strategy, strategy) == ["function > tuple > cell"]
    assert ways(partial(print, strategy), strategy) == ["partial > tuple"]
    assert ways(weakref.ref(strategy), strategy) == []


def test_nothing_that_a_component_holds_refers_to_the_strategy_by_any_way() -> None:
    """Underscores, closures and bound methods included, while actors, timers and a restart are at work."""
    strategy = FakeRuntime({"vpr": [FINE, DIES, FINE], "lightglue": FINE})
    with supervise(strategy, None, thermal=Cool(), policy=QUICK) as c7, c7.thermal_feed() as feed:
        runtime = c7.as_runtime()
        vpr = runtime.deserialize_engine(strategy.entry("vpr"))
        lightglue = LightGlueRuntime(runtime, strategy.entry("lightglue"))
        assert runtime.infer(vpr, IMAGE)
        with pytest.raises(InferenceError):
            runtime.infer(vpr, IMAGE)
        assert ways(c7, strategy), "who stops the actors leads there, and is given to no component"
        for holder in (runtime, vpr, lightglue, runtime.client("c2"), runtime.thermal_state(), feed):
            assert ways(holder, strategy) == [], type(holder).__name__
            assert ways(holder, c7) == [], type(holder).__name__


def test_a_runtime_whose_supervision_is_gone_compiles_nothing(tmp_path: Path) -> None:
    strategy = FakeRuntime({"vpr": FINE})
    (tmp_path / "vpr.onnx").write_bytes(b"a model")
    with supervise(strategy, None) as c7:
        runtime = c7.as_runtime()
        assert runtime.compile_engine(tmp_path / "vpr.onnx", BuildConfig()).model == "vpr"
    del c7
    gc.collect()
    with pytest.raises(EngineBuildError, match=r"vpr\.onnx: expected a runtime that flies, found one that was stopped"):
        runtime.compile_engine(tmp_path / "vpr.onnx", BuildConfig())


def test_the_handle_of_a_component_is_none_that_the_strategy_would_run() -> None:
    strategy = FakeRuntime({"vpr": FINE})
    with stepped(strategy, engines={}) as world:
        vpr = world.supervision.as_runtime().deserialize_engine(strategy.entry("vpr"))
        with pytest.raises(InferenceError, match="belongs to another runtime"):
            strategy.infer(vpr, IMAGE)
        strategy.release_engine(vpr)
        assert strategy.loaded == ("vpr",)
