"""The self-test after every load: at takeoff and after a restart, through the gate, before anything is served."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pykka
import pytest

from actors import RestartPolicy, Supervision, supervise
from actors.device_gate import DeviceGate
from actors.engine import EngineActor
from actors.launch import EngineEnded, EngineSpec, EngineSurroundings, Launch
from actors.mailbox import Mailbox
from actors.poison import PoisonWatch
from actors.stepped import stepped
from actors.supervised import await_end
from messages import (
    NS_PER_MS,
    NS_PER_S,
    EngineDied,
    EngineLoaded,
    EngineLoadFailed,
    EngineQuarantined,
    InferCompleted,
    InferenceError,
    InferRejected,
    Message,
    MonotonicClock,
    OutOfMemoryError,
    ProcessRestartNeeded,
    TakeoffRefusedError,
    Tensor,
    VirtualClock,
)
from runtimes import BuildConfig, EngineCacheEntry, FakeRuntime, blocks_until, raises, returns, takes_ms
from runtimes.fake_steps import loads
from runtimes.measurements import MemoryUse
from runtimes.sign_off.self_test import record_known_answers
from runtimes.store.engine_artifact import self_test_path
from runtimes.store.engine_writer import sign_off

WAIT_S = 20.0
INPUTS: dict[str, Tensor] = {"image": np.ones(4, np.float32)}
RIGHT = {"y": np.array([1.0, 2.0], np.float32)}
NEARLY = {"y": np.array([1.0, 2.002], np.float32)}
WRONG = {"y": np.array([1.0, 3.0], np.float32)}
QUICK = RestartPolicy(max_restarts=2, first_delay_ns=NS_PER_MS)
LetLoadTimeOut = Callable[[Supervision, VirtualClock, float], None]
MEMORY = MemoryUse(load_bytes=0, run_bytes=0)


class Log:
    """Keeps every message and lets a test wait for one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.messages: list[Message] = []

    def __call__(self, message: Message) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def wait_for(self, kind: type, count: int = 1) -> list[Message]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.of(kind)) >= count, WAIT_S)
            return self.of(kind)

    def of(self, kind: type) -> list[Message]:
        return [message for message in self.messages if isinstance(message, kind)]


@pytest.fixture
def entry(tmp_path: Path) -> EngineCacheEntry:
    """An engine of `vpr` that gives RIGHT, signed off with it."""
    source = tmp_path / "vpr.onnx"
    source.write_bytes(b"weights")
    fake = FakeRuntime({"vpr": returns(RIGHT)})
    compiled = fake.compile_engine(source, BuildConfig())
    handle = fake.deserialize_engine(compiled)
    answers = record_known_answers(fake, handle, {"image": np.ones(4, np.float32)})
    return sign_off(compiled, self_test=answers, power=None, memory=MEMORY, accuracy=None)


def fly(fake: FakeRuntime, entry: EngineCacheEntry, log: Log, **options: object) -> Supervision:
    return supervise(fake, {"vpr": entry}, record=log, policy=QUICK, **options)  # type: ignore[arg-type]


def ask(c7: Supervision, model: str = "vpr") -> InferCompleted | InferRejected:
    return c7.infer(model, INPUTS, within_ms=WAIT_S * 1000)


def engine_threads() -> list[pykka.ActorRef[Any]]:
    return pykka.ActorRegistry.get_by_class_name("EngineActor")


def test_an_engine_that_gives_its_known_answers_takes_off_after_one_run(entry: EngineCacheEntry) -> None:
    log, fake = Log(), FakeRuntime({"vpr": returns(RIGHT)})
    with fly(fake, entry, log) as c7:
        assert len(fake.calls) == 1, "one run is what it costs"
        assert fake.calls[0].inputs["image"].shape == (4,)
        assert isinstance(ask(c7), InferCompleted)
    assert len(log.of(EngineLoaded)) == 1


def test_an_engine_that_gives_other_answers_refuses_the_takeoff_with_output_expected_and_found(
    entry: EngineCacheEntry,
) -> None:
    log, fake = Log(), FakeRuntime({"vpr": returns(WRONG)})
    with pytest.raises(TakeoffRefusedError) as refusal:
        fly(fake, entry, log)
    text = str(refusal.value)
    assert "vpr: self-test failed: output y: expected a relative error of at most 0.001, found 0.447" in text
    assert fake.loaded == ()
    assert log.of(EngineLoaded) == []
    (failed,) = log.of(EngineLoadFailed)
    assert isinstance(failed, EngineLoadFailed)
    assert "self-test failed" in failed.detail


def test_each_model_has_the_tolerance_that_its_plan_gives_it(entry: EngineCacheEntry) -> None:
    with fly(FakeRuntime({"vpr": returns(NEARLY)}), entry, Log(), self_test_tolerances={"vpr": 0.01}):
        pass
    with pytest.raises(TakeoffRefusedError, match=r"at most 0\.0001, found 0\.000894"):
        fly(FakeRuntime({"vpr": returns(NEARLY)}), entry, Log(), self_test_tolerances={"vpr": 1e-4})


@pytest.mark.parametrize("error", [InferenceError("CUDA error 716"), OutOfMemoryError("no room"), ValueError("bug")])
def test_a_self_test_that_does_not_run_refuses_the_takeoff(entry: EngineCacheEntry, error: Exception) -> None:
    with pytest.raises(TakeoffRefusedError, match=str(error)):
        fly(FakeRuntime({"vpr": raises(error)}), entry, Log())


def test_known_answers_that_were_altered_refuse_the_takeoff(entry: EngineCacheEntry) -> None:
    path = self_test_path(entry.path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(TakeoffRefusedError, match=r"\.selftest\.npz: content altered"):
        fly(FakeRuntime({"vpr": returns(RIGHT)}), entry, Log())


def test_an_engine_that_was_never_provisioned_has_no_self_test(entry: EngineCacheEntry) -> None:
    fake = FakeRuntime({"vpr": returns(WRONG)})
    with fly(fake, fake.entry("vpr"), Log()):
        assert fake.calls == ()


def test_a_restarted_engine_serves_again_once_it_gave_its_known_answers(entry: EngineCacheEntry) -> None:
    log = Log()
    fake = FakeRuntime({"vpr": [returns(RIGHT), raises(InferenceError("716")), returns(RIGHT)]})
    with fly(fake, entry, log) as c7:
        assert isinstance(ask(c7), InferRejected)
        log.wait_for(EngineLoaded, 2)
        assert len(fake.calls) == 3, "test, fault, test"
        assert isinstance(ask(c7), InferCompleted)


def test_an_engine_that_fails_its_test_after_each_restart_is_quarantined_and_never_serves(
    entry: EngineCacheEntry,
) -> None:
    log = Log()
    fake = FakeRuntime({"vpr": [returns(RIGHT), raises(InferenceError("716")), returns(WRONG)]})
    with fly(fake, entry, log) as c7:
        assert isinstance(ask(c7), InferRejected)
        (quarantined,) = log.wait_for(EngineQuarantined)
        assert isinstance(quarantined, EngineQuarantined)
        assert "self-test failed" in quarantined.detail
        outcome = ask(c7)
        assert isinstance(outcome, InferRejected)
        assert outcome.reason == "engine_unavailable"
    assert len(log.of(EngineLoaded)) == 1
    assert fake.loaded == ()


def test_in_a_recovery_a_failed_test_is_one_more_death_to_restart_from(entry: EngineCacheEntry) -> None:
    log, fake = Log(), FakeRuntime({"vpr": [returns(WRONG), returns(RIGHT)]})
    with fly(fake, entry, log, mode="recovery") as c7:
        log.wait_for(EngineLoaded)
        assert isinstance(ask(c7), InferCompleted)
    assert len(log.of(EngineLoadFailed)) == 1


def test_an_engine_whose_known_answers_rot_in_the_air_stays_down_after_a_second_fault_with_the_reason(
    entry: EngineCacheEntry,
) -> None:
    """Untested it would be trusted on nothing: its last sign of life is a fault. The others fly on.

    After the first fault it is tested on the answers that were verified at takeoff.
    """
    log = Log()
    fault = raises(InferenceError("716"))
    fake = FakeRuntime({"vpr": [returns(RIGHT), fault, returns(RIGHT), fault, returns(RIGHT)], "match": returns(RIGHT)})
    engines = {"vpr": entry, "match": fake.entry("match")}
    with supervise(fake, engines, record=log, policy=QUICK) as c7:
        self_test_path(entry.path).write_bytes(b"rotten")
        assert isinstance(ask(c7), InferRejected)
        log.wait_for(EngineLoaded, 3)
        assert isinstance(ask(c7), InferRejected)
        (quarantined,) = log.wait_for(EngineQuarantined)
        assert isinstance(quarantined, EngineQuarantined)
        assert "vpr__sm0_jp0_trt0_fp16.engine.selftest.npz: content altered: expected sha256" in quarantined.detail
        outcome = ask(c7)
        assert isinstance(outcome, InferRejected)
        assert outcome.reason == "engine_unavailable"
        assert ".selftest.npz: content altered" in outcome.detail
        assert isinstance(ask(c7, "match"), InferCompleted)
        assert fake.loaded == ("match",)
    assert len(fake.calls) == 5, "two tests, two faults, and match"


# A self-test that hangs.


def hanging(answered: threading.Event) -> FakeRuntime:
    return FakeRuntime({"vpr": blocks_until(answered, returns(RIGHT)), "match": returns(RIGHT)})


def test_a_self_test_that_hangs_fences_the_device_and_only_a_new_process_helps(
    entry: EngineCacheEntry, let_load_time_out: LetLoadTimeOut
) -> None:
    log, answered, clock = Log(), threading.Event(), VirtualClock()
    fake = hanging(answered)
    engines = {"vpr": entry, "match": fake.entry("match")}
    options = {"priorities": {"match": 0, "vpr": 1}, "load_timeout_s": 0.05, "run_limit_ms": 10.0, "clock": clock}
    try:
        with supervise(fake, engines, record=log, mode="recovery", **options) as c7:  # type: ignore[arg-type]
            log.wait_for(EngineLoaded)
            while not fake.calls:  # the self-test has the device
                threading.Event().wait(0.001)
            outcome = c7.infer("match", INPUTS, within_ms=50)
            assert isinstance(outcome, InferRejected)
            assert outcome.reason == "expired"
            let_load_time_out(c7, clock, 0.05)
            (needed,) = log.wait_for(ProcessRestartNeeded)
            assert isinstance(needed, ProcessRestartNeeded)
            assert needed.fault == "hang"
            assert c7.restart_needed == needed.detail
            for model in engines:
                outcome = ask(c7, model)
                assert isinstance(outcome, InferRejected)
                assert outcome.reason == "engine_unavailable"
                assert "process restart needed: vpr has not returned" in outcome.detail
    finally:
        answered.set()
    assert log.of(EngineDied) == []


def test_a_self_test_that_began_just_before_the_load_timeout_is_no_hang(entry: EngineCacheEntry) -> None:
    fake = FakeRuntime({"vpr": [takes_ms(1900, loads()), takes_ms(300, returns(RIGHT)), returns(RIGHT)]})
    with stepped(fake, engines={"vpr": entry}, mode="recovery", load_timeout_s=2.0, run_limit_ms=1000.0) as world:
        world.advance_ms(2300)
        assert not world.supervision.restart_needed
        assert isinstance(world.client.infer("vpr", INPUTS, within_ms=100), InferCompleted)


def test_a_self_test_that_began_just_before_the_load_timeout_hangs_after_the_limit_of_a_run(
    entry: EngineCacheEntry,
) -> None:
    fake = FakeRuntime({"vpr": [takes_ms(1900, loads()), takes_ms(3000, returns(RIGHT))]})
    with stepped(fake, engines={"vpr": entry}, mode="recovery", load_timeout_s=2.0, run_limit_ms=1000.0) as world:
        world.advance_ms(2900)
        assert not world.supervision.restart_needed
        world.advance_ms(200)
        assert world.supervision.restart_needed.startswith("vpr has not returned for 1.")


def test_a_stop_while_a_self_test_runs_is_bounded_and_the_engine_is_released_once_it_returns(
    entry: EngineCacheEntry,
) -> None:
    log, answered = Log(), threading.Event()
    fake = hanging(answered)
    try:
        c7 = supervise(fake, {"vpr": entry}, record=log, mode="recovery")
        while not fake.calls:
            threading.Event().wait(0.001)
        ended = engine_threads()[-1]
        c7.stop()
        assert not c7.is_alive()
        assert c7.readiness.failed["vpr"].startswith("not loaded when the supervisor ended")
        assert fake.loads("vpr") == 1, "its thread is in the engine still"
        answered.set()
        assert await_end(ended, WAIT_S)
        assert fake.loaded == ()
    finally:
        answered.set()
    assert log.of(EngineLoaded) == [], "who stopped is told of no engine any more"


# The gate.


def start_engine(
    fake: FakeRuntime, entry: EngineCacheEntry, gate: DeviceGate, log: Log, load_timeout_ns: int = 20 * NS_PER_S
) -> pykka.ActorRef[EngineActor]:
    spec = EngineSpec(model="vpr", entry=entry, priority=5)
    around = EngineSurroundings(
        runtime=fake,
        gate=gate,
        clock=MonotonicClock(),
        report=lambda fact: log(fact.fact if isinstance(fact, EngineEnded) else fact),
        count_fault=lambda _model, _fault: None,
        load_timeout_ns=load_timeout_ns,
    )
    return EngineActor.start(spec, Launch(1), around, Mailbox(), PoisonWatch())


class SeenGate(DeviceGate):
    """Says when somebody asks for the device, and with what priority."""

    def __init__(self) -> None:
        super().__init__(MonotonicClock())
        self.asked = threading.Event()
        self.priorities: list[int] = []

    def enter(self, priority: int, deadline_ns: int) -> bool:
        self.priorities.append(priority)
        self.asked.set()
        return super().enter(priority, deadline_ns)


def test_the_self_test_waits_for_the_device_like_any_run(entry: EngineCacheEntry) -> None:
    log, gate, fake = Log(), SeenGate(), FakeRuntime({"vpr": returns(RIGHT)})
    assert DeviceGate.enter(gate, 0, 0)
    ref = start_engine(fake, entry, gate, log)
    assert gate.asked.wait(WAIT_S)
    assert fake.calls == ()
    gate.leave()
    log.wait_for(EngineLoaded)
    assert gate.priorities == [5]
    assert DeviceGate.enter(gate, 0, 0), "the device is free again"
    ref.stop()


def test_a_device_that_stays_busy_until_the_load_timeout_is_a_failed_load(entry: EngineCacheEntry) -> None:
    log, gate, fake = Log(), SeenGate(), FakeRuntime({"vpr": returns(RIGHT)})
    assert DeviceGate.enter(gate, 0, 0)
    ref = start_engine(fake, entry, gate, log, load_timeout_ns=1)
    (failed,) = log.wait_for(EngineLoadFailed)
    assert isinstance(failed, EngineLoadFailed)
    assert "self-test not run: the device was busy until its load timeout of 1e-09 s was over" in failed.detail
    assert await_end(ref, WAIT_S)
    assert fake.loaded == ()
    assert fake.calls == ()


def test_a_failed_self_test_leaves_the_device_to_the_others(entry: EngineCacheEntry) -> None:
    log, gate = Log(), SeenGate()
    ref = start_engine(FakeRuntime({"vpr": returns(WRONG)}), entry, gate, log)
    log.wait_for(EngineLoadFailed)
    assert await_end(ref, WAIT_S)
    assert DeviceGate.enter(gate, 0, 0)
