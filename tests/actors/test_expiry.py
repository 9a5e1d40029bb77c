"""Expired work never reaches the device, and is settled on the supervisor's tick where nobody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pykka
import pytest

from actors.device_gate import DeviceGate
from actors.launch import EngineSpec, EngineSurroundings
from actors.ledger import Ledger
from actors.pending import Pending
from actors.readiness import Readiness
from actors.restart import RestartPolicy
from actors.routes import Routes
from actors.supervised import await_end
from actors.supervisor import SWEEP_PERIOD_NS, RuntimeSupervisor
from messages import NS_PER_MS, NS_PER_S, Infer, InferCompleted, InferRejected, InvalidInputError, VirtualClock
from runtimes import FakeRuntime, blocks_until, raises, returns, takes_ms
from runtimes.fake_runtime import Step

WAIT_S = 20.0
IMAGE = {"image": np.ones(4, np.float32)}
RESULT = {"y": np.ones(4, np.float32)}


class ManualTimers:
    """Runs what is due when the test says so."""

    def __init__(self) -> None:
        self.sweeps: list[Callable[[], None]] = []

    def after(self, delay_ns: int, action: Callable[[], None]) -> Callable[[], None]:
        if delay_ns == SWEEP_PERIOD_NS:
            self.sweeps.append(action)
        return lambda: None

    def close(self) -> None:
        self.sweeps.clear()


class SeenGate(DeviceGate):
    """Counts who asks for the device. A wait ends when the device is free: the virtual clock wakes nobody."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(clock)
        self.asked = threading.Semaphore(0)
        self.asked_count = 0

    def enter(self, priority: int, deadline_ns: int) -> bool:
        self.asked_count += 1
        self.asked.release()
        return super().enter(priority, deadline_ns)


class Flight:
    """A supervisor on a virtual clock whose tick is the test's."""

    def __init__(self, scripts: dict[str, Step | list[Step]]) -> None:
        self.clock = VirtualClock()
        self.fake = FakeRuntime(scripts, clock=self.clock)
        self.gate = SeenGate(self.clock)
        self.timers = ManualTimers()
        self.ledger = Ledger(scripts)
        self.routes = Routes(self.ledger, self.clock)
        readiness = Readiness(scripts)
        self.supervisor: pykka.ActorRef[RuntimeSupervisor] = RuntimeSupervisor.start(
            [EngineSpec(model=model, entry=entry) for model, entry in self.fake.entries().items()],
            lambda report: EngineSurroundings(
                runtime=self.fake,
                gate=self.gate,
                clock=self.clock,
                report=report,
                count_fault=self.ledger.count_fault,
                load_timeout_ns=round(WAIT_S * NS_PER_S),
            ),
            self.routes,
            self.timers,
            readiness,
            mode="takeoff",
            policy=RestartPolicy(),
            record=lambda _fact: None,
            need_restart=pytest.fail,
            chance=lambda: 0.0,
        )
        assert readiness.wait(WAIT_S)

    def ask(self, model: str, frame_id: int, within_ms: float) -> Pending:
        deadline_ns = self.clock.monotonic_ns() + round(within_ms * NS_PER_MS)
        return self.routes.submit(Infer(model, dict(IMAGE), "c3", frame_id, deadline_ns, frame_id))

    def tick(self) -> None:
        """The tick that is due comes, and the supervisor has dealt with it."""
        [due] = self.timers.sweeps
        self.timers.sweeps.clear()
        due()
        self.supervisor.ask(Infer("no such model", {}, "test", 0, 2**62, 0), timeout=WAIT_S)


Fly = Callable[[dict[str, "Step | list[Step]"]], Flight]


@pytest.fixture
def fly() -> Iterator[Fly]:
    flights: list[Flight] = []

    def take_off(scripts: dict[str, Step | list[Step]]) -> Flight:
        flights.append(Flight(scripts))
        return flights[-1]

    yield take_off
    for flight in flights:
        flight.supervisor.stop(block=False)
        assert await_end(flight.supervisor, WAIT_S)


def expired(pending: Pending) -> InferRejected:
    assert pending.done
    outcome = pending.result()
    assert isinstance(outcome, InferRejected)
    assert outcome.reason == "expired"
    return outcome


def test_work_that_expired_in_the_queue_never_asks_for_the_device(fly: Fly) -> None:
    go = threading.Event()
    flight = fly({"vpr": [blocks_until(go, returns(RESULT)), returns(RESULT)]})
    running = flight.ask("vpr", 1, 1000)
    assert flight.gate.asked.acquire(timeout=WAIT_S)
    late = flight.ask("vpr", 2, 5)
    flight.clock.advance_ms(5)
    last = flight.ask("vpr", 2, WAIT_S * 1000)
    go.set()
    assert isinstance(running.result(), InferCompleted)
    assert isinstance(last.result(), InferCompleted)
    assert expired(late).detail == "the deadline passed in the queue"
    assert flight.gate.asked_count == 2


def test_the_tick_settles_what_waits_on_a_hung_engine_and_what_hangs_in_it(fly: Fly) -> None:
    go = threading.Event()
    flight = fly({"vpr": [blocks_until(go, returns(RESULT)), returns(RESULT)]})
    hung = flight.ask("vpr", 1, 50)
    assert flight.gate.asked.acquire(timeout=WAIT_S)
    while not flight.fake.calls:
        threading.Event().wait(0.001)
    waiting, patient = flight.ask("vpr", 1, 50), flight.ask("vpr", 2, WAIT_S * 1000)
    flight.tick()
    assert not any(each.done for each in (hung, waiting, patient))
    flight.clock.advance_ms(51)
    flight.tick()
    assert not expired(hung).inputs_released, "the engine is at it still"
    assert expired(waiting).inputs_released
    assert not patient.done
    go.set()
    assert isinstance(patient.result(), InferCompleted), "the engine goes on"
    assert expired(hung), "its late result was dropped"
    tally = flight.ledger.tallies()["vpr"]
    assert (tally.completed, tally.rejected, tally.open) == (1, {"expired": 2}, 0)


def test_the_tick_settles_what_waits_for_the_device_and_its_engine_never_runs_it(fly: Fly) -> None:
    flight = fly({"vpr": returns(RESULT)})
    assert DeviceGate.enter(flight.gate, 0, 2**62)
    waiting = flight.ask("vpr", 1, WAIT_S * 1000)
    assert flight.gate.asked.acquire(timeout=WAIT_S)
    flight.clock.advance_ms(WAIT_S * 1000 + 1)
    flight.tick()
    outcome = expired(waiting)
    assert outcome.inputs_released
    assert outcome.detail == "the deadline passed while it waited for the device"
    flight.gate.leave()
    assert isinstance(flight.ask("vpr", 2, WAIT_S * 1000).result(), InferCompleted)
    assert len(flight.fake.calls) == 1


def test_the_tick_goes_on_and_there_is_one_of_it(fly: Fly) -> None:
    flight = fly({"vpr": returns(RESULT), "match": returns(RESULT)})
    for _ in range(5):
        flight.tick()
    flight.supervisor.ask(Infer("no such model", {}, "test", 0, 2**62, 0), timeout=WAIT_S)
    assert len(flight.timers.sweeps) == 1


def test_an_engine_learns_its_run_time_and_refuses_what_its_backlog_leaves_no_time_for(fly: Fly) -> None:
    go = threading.Event()

    def slow_once() -> Step:
        return blocks_until(go, returns(RESULT))

    flight = fly({"vpr": [slow_once(), returns(RESULT)]})
    first = flight.ask("vpr", 1, WAIT_S * 1000)
    while not flight.fake.calls:
        threading.Event().wait(0.001)
    assert not flight.ask("vpr", 1, 1).done, "nothing was measured yet"
    flight.clock.advance_ms(30)
    go.set()
    assert isinstance(first.result(), InferCompleted)
    go.clear()
    assert DeviceGate.enter(flight.gate, 0, 2**62)
    held = flight.ask("vpr", 2, WAIT_S * 1000)
    assert "30.0 ms each" in expired(flight.ask("vpr", 2, 59)).detail
    in_time = flight.ask("vpr", 2, 60)
    flight.gate.leave()
    assert isinstance(held.result(), InferCompleted)
    while not in_time.done:  # its 60 ms are the virtual clock's; `result` would wait them in real time
        threading.Event().wait(0.001)
    assert isinstance(in_time.result(), InferCompleted)


def test_how_long_the_running_request_has_run_is_taken_off(fly: Fly) -> None:
    go = threading.Event()
    flight = fly({"vpr": [takes_ms(30, returns(RESULT)), blocks_until(go, returns(RESULT))]})
    assert isinstance(flight.ask("vpr", 1, WAIT_S * 1000).result(), InferCompleted)
    running = flight.ask("vpr", 2, WAIT_S * 1000)
    while len(flight.fake.calls) < 2:
        threading.Event().wait(0.001)
    flight.clock.advance_ms(10)
    assert "one has run 10.0 ms" in expired(flight.ask("vpr", 2, 49)).detail
    assert not flight.ask("vpr", 2, 50).done
    go.set()
    assert isinstance(running.result(), InferCompleted)


def test_after_a_run_that_failed_nothing_counts_as_running(fly: Fly) -> None:
    flight = fly({"vpr": [takes_ms(30, returns(RESULT)), raises(InvalidInputError("a shape")), returns(RESULT)]})
    assert isinstance(flight.ask("vpr", 1, WAIT_S * 1000).result(), InferCompleted)
    assert isinstance(flight.ask("vpr", 2, WAIT_S * 1000).result(), InferRejected)
    flight.clock.advance_ms(1000)
    assert DeviceGate.enter(flight.gate, 0, 2**62)
    held = flight.ask("vpr", 3, WAIT_S * 1000)
    assert "1 ahead and none runs, at 30.0 ms each" in expired(flight.ask("vpr", 3, 59)).detail
    flight.gate.leave()
    assert isinstance(held.result(), InferCompleted)
