"""Who holds which engine: the first one to ask has it loaded, the last one to let go has it stopped."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import msgspec
import numpy as np
import pykka
import pytest
from loguru import logger

from actors import RestartPolicy, supervise
from actors.engine_loader import EngineLoader
from actors.engine_orders import LoadEngine, ReleaseEngine, Reply
from actors.launch import EngineSpec
from actors.lightglue_runtime import LightGlueRuntime
from actors.stepped import SteppedWorld, stepped
from actors.supervised_runtime import SupervisedRuntime
from messages import (
    NS_PER_MS,
    CorruptEngineError,
    DeviceContextError,
    DeviceFaultError,
    EngineDeserializeError,
    InferenceError,
    OutOfMemoryError,
    RequestRejectedError,
    SelfTestError,
)
from runtimes import BuildConfig, EngineCacheEntry, EngineHandle, FakeRuntime, raises, returns
from runtimes.fake_runtime import FakeHandle
from runtimes.fake_steps import Step, fails_to_load, hangs_at_load, loads_after

IMAGE = {"image": np.ones(4, np.float32)}
FINE = returns({"y": np.ones(4, np.float32)})
WAIT_S = 20.0
LOAD_TIMEOUT_S = 3.0


@pytest.fixture
def fake() -> FakeRuntime:
    return FakeRuntime({"vpr": FINE, "other": FINE})


@pytest.fixture
def world(fake: FakeRuntime) -> Iterator[SteppedWorld]:
    with stepped(fake, engines={}) as world:
        yield world


@pytest.fixture
def runtime(world: SteppedWorld) -> SupervisedRuntime:
    return world.supervision.as_runtime()


def start(*steps: Step, **options: object) -> tuple[FakeRuntime, SteppedWorld, SupervisedRuntime]:
    fake = FakeRuntime({"vpr": steps, "other": FINE})
    world = stepped(fake, engines={}, load_timeout_s=LOAD_TIMEOUT_S, **options)  # type: ignore[arg-type]
    return fake, world, world.supervision.as_runtime()


# Shared


def test_an_engine_is_loaded_once_for_all_who_ask_and_stops_with_the_last_of_them(
    fake: FakeRuntime, world: SteppedWorld, runtime: SupervisedRuntime
) -> None:
    first = runtime.deserialize_engine(fake.entry("vpr"))
    lightglue = LightGlueRuntime(world.supervision.as_runtime(), fake.entry("vpr"))
    assert fake.loads("vpr") == 1
    runtime.release_engine(first)
    assert lightglue.match(IMAGE)
    with pytest.raises(InferenceError, match="was released"):
        runtime.infer(first, IMAGE)
    lightglue.release()
    assert fake.loaded == ()


def test_a_handle_that_is_released_twice_counts_once(fake: FakeRuntime, runtime: SupervisedRuntime) -> None:
    first, second = (runtime.deserialize_engine(fake.entry("vpr")) for _ in range(2))
    runtime.release_engine(first)
    runtime.release_engine(first)
    assert runtime.infer(second, IMAGE)


def test_another_engine_of_a_model_is_refused_until_the_first_one_is_let_go_of(tmp_path: Path) -> None:
    fake = FakeRuntime({"vpr": FINE})
    entries = []
    for number in (1, 2):
        source = tmp_path / str(number) / "vpr.onnx"
        source.parent.mkdir()
        source.write_bytes(bytes([number]))
        entries.append(fake.compile_engine(source, BuildConfig()))
    first, second = entries
    with stepped(fake, engines={}) as world:
        runtime = world.supervision.as_runtime()
        vpr = runtime.deserialize_engine(first)
        with pytest.raises(EngineDeserializeError) as caught:
            runtime.deserialize_engine(second)
        for entry in entries:
            assert f"{entry.path} (sha256 {entry.engine_sha256[:12]})" in str(caught.value)
        assert str(caught.value).endswith("release every handle of the one before loading the other")
        assert runtime.infer(vpr, IMAGE), "the one that flies is not touched"
        runtime.release_engine(vpr)
        assert runtime.infer(runtime.deserialize_engine(second), IMAGE)


def test_the_same_engine_in_another_folder_is_the_same_engine(fake: FakeRuntime, runtime: SupervisedRuntime) -> None:
    entry = fake.entry("vpr")
    runtime.deserialize_engine(entry)
    linked = msgspec.structs.replace(entry, path=Path("/in-memory/gen-000002/vpr.engine"))
    assert runtime.infer(runtime.deserialize_engine(linked), IMAGE)
    assert fake.loads("vpr") == 1


def test_an_engine_that_flies_under_another_name_is_not_loaded_a_second_time(fake: FakeRuntime) -> None:
    with stepped(fake, engines={"place recognition": fake.entry("vpr")}) as world:
        runtime = world.supervision.as_runtime()
        with pytest.raises(EngineDeserializeError, match="vpr: flies under the name place recognition"):
            runtime.deserialize_engine(fake.entry("vpr"))
        assert runtime.infer(runtime.deserialize_engine(fake.entry("other")), IMAGE)["y"].shape == (4,)


def test_an_engine_of_the_flight_is_not_waited_for_and_flies_on_when_it_is_let_go_of() -> None:
    may_load = threading.Event()
    fake = FakeRuntime({"vpr": [loads_after(may_load), FINE]})
    with stepped(fake, mode="recovery") as world:
        runtime = world.supervision.as_runtime()
        began_ns = world.clock.monotonic_ns()
        vpr = runtime.deserialize_engine(fake.entry("vpr"))
        assert world.clock.monotonic_ns() == began_ns
        runtime.release_engine(vpr)
        may_load.set()
        world.run_until_idle()
        assert fake.loaded == ("vpr",)
        assert runtime.infer(runtime.deserialize_engine(fake.entry("vpr")), IMAGE)


# Loads that fail


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (EngineDeserializeError("busy"), EngineDeserializeError),
        (CorruptEngineError("altered"), CorruptEngineError),
        (SelfTestError("other answers"), EngineDeserializeError),
        (OutOfMemoryError("2 GiB"), OutOfMemoryError),
        (DeviceContextError("lost"), DeviceContextError),
        (ValueError("a bug"), EngineDeserializeError),
        (SystemExit(3), EngineDeserializeError),
    ],
    ids=repr,
)
def test_a_load_that_fails_raises_what_a_runtime_raises_and_leaves_nothing(
    raised: BaseException, told: type[Exception]
) -> None:
    fake, world, runtime = start(fails_to_load(raised), FINE)
    with world:
        other = runtime.deserialize_engine(fake.entry("other"))
        with pytest.raises(told, match=str(raised)) as caught:
            runtime.deserialize_engine(fake.entry("vpr"))
        assert type(caught.value) is told
        assert fake.loaded == ("other",)
        assert runtime.infer(runtime.deserialize_engine(fake.entry("vpr")), IMAGE), "healed"
        world.advance_ms(1000)
        assert runtime.infer(other, IMAGE)


def test_a_load_that_finds_the_device_gone_is_said_to_have_and_nothing_loads_any_more() -> None:
    fake, world, runtime = start(fails_to_load(DeviceFaultError("gone")), FINE)
    with world:
        for model in ("vpr", "other"):
            with pytest.raises(DeviceFaultError, match="process restart needed: gone"):
                runtime.deserialize_engine(fake.entry(model))
        assert world.supervision.restart_needed == "gone"


def test_the_refusal_of_a_load_names_its_model_once() -> None:
    fake, world, runtime = start(fails_to_load(CorruptEngineError("altered")), FINE)
    with world, pytest.raises(CorruptEngineError, match=r"^vpr does not take off: altered$"):
        LightGlueRuntime(runtime, fake.entry("vpr"))


def test_a_load_that_hangs_is_told_at_its_timeout_and_may_be_asked_for_again_once_it_returned() -> None:
    fake, world, runtime = start(hangs_at_load(), FINE)
    with world:
        began_ns = world.clock.monotonic_ns()
        with pytest.raises(EngineDeserializeError, match="did not load within 3 s"):
            runtime.deserialize_engine(fake.entry("vpr"))
        assert world.clock.monotonic_ns() - began_ns == LOAD_TIMEOUT_S * 1e9
        assert runtime.infer(runtime.deserialize_engine(fake.entry("other")), IMAGE), "others load on"
        with pytest.raises(EngineDeserializeError, match="its last load has not returned"):
            runtime.deserialize_engine(fake.entry("vpr"))
        fake.release_hung()
        world.run_until_idle()
        assert fake.loaded == ("other",)
        assert runtime.infer(runtime.deserialize_engine(fake.entry("vpr")), IMAGE)


# Waits that end otherwise


class Deaf(pykka.ThreadingActor):
    """A supervisor that answers nothing, and dies of an order where it is told to."""

    def __init__(self, heard: list[object], *, dies: bool = False) -> None:
        super().__init__()
        self._heard = heard
        self._dies = dies

    def on_receive(self, message: object) -> None:
        self._heard.append(message)
        if self._dies:
            self.stop()


def loader_of(
    world: SteppedWorld, supervisor: pykka.ActorRef[Deaf], flight: dict[str, EngineCacheEntry]
) -> EngineLoader:
    def spec_of(entry: EngineCacheEntry) -> EngineSpec:
        return EngineSpec(model=entry.model, entry=entry)

    return EngineLoader(supervisor, flight, spec_of, LOAD_TIMEOUT_S, world._scheduling)


def test_whoever_gets_no_answer_to_a_load_gives_it_up_and_takes_the_order_back(
    fake: FakeRuntime, world: SteppedWorld
) -> None:
    heard: list[object] = []
    loader = loader_of(world, world.start(Deaf, heard), {})
    with pytest.raises(EngineDeserializeError, match="vpr: not loaded within 6 s"):
        loader.hold(fake.entry("vpr"))
    world.run_until_idle()
    load, release = heard
    assert isinstance(load, LoadEngine)
    assert isinstance(release, ReleaseEngine)
    assert release.model == "vpr"
    assert loader.models() == ()


def test_a_release_that_gets_no_answer_is_logged_and_left(fake: FakeRuntime, world: SteppedWorld) -> None:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{level} {message}")
    try:
        loader = loader_of(world, world.start(Deaf, []), {"vpr": fake.entry("vpr")})
        loader.let_go("vpr")
    finally:
        logger.remove(sink)
    assert lines == ["ERROR C7 engine not released within 6 s; backbone=vpr\n"]


@pytest.mark.parametrize("call", ["hold", "let_go"])
def test_a_supervisor_that_dies_of_an_order_leaves_nobody_waiting(
    fake: FakeRuntime, world: SteppedWorld, call: str
) -> None:
    began_ns = world.clock.monotonic_ns()
    loader = loader_of(world, world.start(Deaf, [], dies=True), {"other": fake.entry("other")})
    if call == "hold":
        with pytest.raises(EngineDeserializeError, match="expected a runtime that flies, found one that was stopped"):
            loader.hold(fake.entry("vpr"))
    else:
        loader.let_go("other")
    assert world.clock.monotonic_ns() - began_ns <= 200_000_000


@pytest.mark.parametrize("model", ["vpr", "other"])
def test_a_runtime_that_was_stopped_gives_no_handles_also_of_what_it_had_loaded(
    fake: FakeRuntime, world: SteppedWorld, runtime: SupervisedRuntime, model: str
) -> None:
    runtime.deserialize_engine(fake.entry("other"))
    world.supervision.stop()
    with pytest.raises(EngineDeserializeError, match=f"{model}: expected a runtime that flies, found one that was sto"):
        runtime.deserialize_engine(fake.entry(model))


def test_a_supervisor_that_ends_while_an_engine_loads_says_so_to_who_waits() -> None:
    fake = FakeRuntime({"vpr": [hangs_at_load(), FINE]})
    with supervise(fake, None) as c7:
        runtime = c7.as_runtime()
        errors: list[BaseException] = []

        def load() -> None:
            try:
                runtime.deserialize_engine(fake.entry("vpr"))
            except EngineDeserializeError as error:
                errors.append(error)

        loading = threading.Thread(target=load, daemon=True)
        loading.start()
        while not pykka.ActorRegistry.get_by_class_name("EngineActor"):
            threading.Event().wait(0.001)
        c7.stop()
        loading.join(WAIT_S)
        assert not loading.is_alive()
        fake.release_hung()
    [error] = errors
    assert "the supervisor ended: it was stopped" in str(error)


@pytest.fixture
def interrupted_once(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, str], None]:
    """The next call of this method is where a Ctrl-C arrives."""

    def arrange(kind: type, name: str) -> None:
        whole = getattr(kind, name)

        def interrupt(*_: object, **__: object) -> object:
            monkeypatch.setattr(kind, name, whole)
            raise KeyboardInterrupt

        monkeypatch.setattr(kind, name, interrupt)

    return arrange


def test_a_ctrl_c_while_an_engine_loads_leaves_nobody_who_holds_it(
    fake: FakeRuntime,
    world: SteppedWorld,
    runtime: SupervisedRuntime,
    interrupted_once: Callable[[type, str], None],
) -> None:
    interrupted_once(Reply, "wait")
    with pytest.raises(KeyboardInterrupt):
        runtime.deserialize_engine(fake.entry("vpr"))
    world.run_until_idle()
    assert fake.loaded == ()
    vpr = runtime.deserialize_engine(fake.entry("vpr"))
    assert runtime.infer(vpr, IMAGE)
    runtime.release_engine(vpr)
    assert fake.loaded == ()


def test_a_ctrl_c_while_an_engine_is_released_lets_it_go_all_the_same(
    fake: FakeRuntime,
    world: SteppedWorld,
    runtime: SupervisedRuntime,
    interrupted_once: Callable[[type, str], None],
) -> None:
    vpr = runtime.deserialize_engine(fake.entry("vpr"))
    interrupted_once(Reply, "wait")
    with pytest.raises(KeyboardInterrupt):
        runtime.release_engine(vpr)
    world.run_until_idle()
    assert fake.loaded == ()
    assert runtime.infer(runtime.deserialize_engine(fake.entry("vpr")), IMAGE)


def test_a_ctrl_c_while_a_release_waits_for_its_turn_leaves_it_to_who_has_the_turn_next(
    fake: FakeRuntime, world: SteppedWorld, runtime: SupervisedRuntime, interrupted_once: Callable[[type, str], None]
) -> None:
    vpr = runtime.deserialize_engine(fake.entry("vpr"))
    interrupted_once(type(world.supervision._loader._turn), "acquire")
    with pytest.raises(KeyboardInterrupt):
        runtime.release_engine(vpr)
    other = runtime.deserialize_engine(fake.entry("other"))
    assert fake.loaded == ("other",)
    assert runtime.infer(other, IMAGE)


# On threads


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_threads_that_load_run_and_release_the_same_and_other_engines_never_meet_one_that_is_gone() -> None:
    fake = FakeRuntime({"shared": FINE, **{f"own{number}": FINE for number in range(4)}})
    failures: list[BaseException] = []
    with supervise(fake, None) as c7:
        runtime = c7.as_runtime(within_ms=WAIT_S * 1000)
        begin = threading.Barrier(4, timeout=WAIT_S)

        def consume(number: int) -> None:
            try:
                begin.wait()
                for _ in range(25):
                    for model in ("shared", f"own{number}"):
                        handle = runtime.deserialize_engine(fake.entry(model))
                        runtime.infer(handle, IMAGE)
                        runtime.release_engine(handle)
            except BaseException as error:  # noqa: BLE001  # the test's own thread raises it
                failures.append(error)

        threads = [threading.Thread(target=consume, args=(number,), daemon=True) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(3 * WAIT_S)
            assert not thread.is_alive()
        assert failures == []
        assert fake.loaded == ()
        tallies = c7.tallies()
        assert sum(tally.completed for tally in tallies.values()) == 200
        assert sum(tally.open for tally in tallies.values()) == 0


def test_threads_that_share_engines_which_die_and_fail_to_load_get_one_outcome_each_and_leave_nothing() -> None:
    steps = [FINE, raises(InferenceError("716")), FINE, fails_to_load(EngineDeserializeError("busy")), FINE]
    steps += [
        raises(OutOfMemoryError("2 GiB")),
        raises(DeviceContextError("lost")),
        fails_to_load(OutOfMemoryError("x")),
    ]
    fake = FakeRuntime({model: [*steps * 20, FINE] for model in ("a", "b", "c")})
    odd: list[BaseException] = []
    policy = RestartPolicy(max_restarts=1000, first_delay_ns=NS_PER_MS, max_delay_ns=NS_PER_MS)
    with supervise(fake, None, policy=policy) as c7:
        runtime = c7.as_runtime(within_ms=WAIT_S * 1000)

        def consume(number: int) -> None:
            random = Random(number)
            for _ in range(60):
                try:
                    handle = runtime.deserialize_engine(fake.entry(random.choice("abc")))
                except (EngineDeserializeError, InferenceError, OutOfMemoryError):
                    continue
                for _ in range(3):
                    try:
                        runtime.infer(handle, IMAGE)
                    except (InferenceError, OutOfMemoryError):  # noqa: PERF203
                        threading.Event().wait(0.002 * random.random())
                runtime.release_engine(handle)

        def watched(number: int) -> None:
            try:
                consume(number)
            except BaseException as error:  # noqa: BLE001  # the test's own thread raises it
                odd.append(error)

        threads = [threading.Thread(target=watched, args=(number,), daemon=True) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(3 * WAIT_S)
            assert not thread.is_alive()
        assert odd == []
        assert fake.loaded == ()
        assert runtime._loader.models() == ()
        assert sum(tally.open for tally in c7.tallies().values()) == 0
        assert c7.is_alive()
        assert not c7.restart_needed


def test_what_was_released_is_kept_by_nobody() -> None:
    handles: list[weakref.ref[EngineHandle]] = []

    class Watched(FakeRuntime):
        def deserialize_engine(self, entry: EngineCacheEntry) -> FakeHandle:
            handle = super().deserialize_engine(entry)
            handles.append(weakref.ref(handle))
            return handle

    fake = Watched({"vpr": FINE})
    with supervise(fake, None) as c7:
        runtime = c7.as_runtime(within_ms=WAIT_S * 1000)
        vpr = runtime.deserialize_engine(fake.entry("vpr"))
        image = {"image": np.ones(4, np.float32)}
        runtime.infer(vpr, image)
        handles.append(weakref.ref(vpr))
        runtime.release_engine(vpr)
        del vpr
        for thread in threading.enumerate():
            if thread.name.startswith("EngineActor"):
                thread.join(WAIT_S)
        gc.collect()
        assert [handle() for handle in handles] == [None, None]


def test_five_hundred_loads_and_releases_leave_no_thread_no_actor_no_timer_and_no_descriptor() -> None:
    fake = FakeRuntime({"vpr": [FINE, raises(InferenceError("716"))] * 250 + [FINE]})
    with supervise(fake, None) as c7:
        runtime = c7.as_runtime(within_ms=WAIT_S * 1000)

        def left() -> tuple[int, int, int]:
            gc.collect()
            return threading.active_count(), len(pykka.ActorRegistry.get_all()), descriptors()

        before = left()
        for _ in range(500):
            vpr = runtime.deserialize_engine(fake.entry("vpr"))
            try:
                runtime.infer(vpr, IMAGE)
            except RequestRejectedError:
                raise
            except InferenceError:
                pass
            runtime.release_engine(vpr)
        assert fake.loaded == ()
        for thread in threading.enumerate():
            if thread.name.startswith("EngineActor"):
                thread.join(WAIT_S)
        assert left() == before
        assert c7._timers.waiting <= 1, "the tick, or none while it is posted"  # type: ignore[attr-defined]
