"""`supervise(...)`: engines under supervision, from takeoff to the end of the `with` block."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Literal, NamedTuple

import pykka

from actors.device_gate import DeviceGate
from actors.engine_loader import EngineLoader
from actors.launch import RUN_LIMIT_NS, EngineEnded, EngineSpec, EngineSurroundings
from actors.ledger import Ledger
from actors.readiness import Readiness, overdue_detail
from actors.restart import RestartPolicy
from actors.routes import Routes
from actors.scheduling import THREADS, Scheduling
from actors.supervision import RestartNeed, Supervision, stop_all
from actors.supervisor import Mode, RuntimeSupervisor
from actors.terms import check_terms
from actors.thermal import ThermalActor, open_source
from actors.thermal_feed import ThermalBroadcast
from actors.timers import Timers, TimerThread
from messages import (
    NS_PER_MS,
    NS_PER_S,
    Clock,
    EngineLoaded,
    Message,
    MonotonicClock,
    TakeoffRefusedError,
)
from runtimes import EngineCacheEntry, InferenceRuntime
from runtimes.available_memory import AvailableMemory
from runtimes.sign_off.self_test import SELF_TEST_TOLERANCE
from telemetry import ThermalSnapshot, ThermalSource, stale_after_ns

LOAD_TIMEOUT_S = 120.0
GIVE_UP_ASKED_EVERY_S = 0.1


class Stage(NamedTuple):
    """What actors run on: threads and real chance in flight, something that repeats itself in a stepped test."""

    scheduling: Scheduling = THREADS
    timers: Callable[[Clock], Timers] = TimerThread
    chance: Callable[[], float] = random.random


def supervise(
    runtime: InferenceRuntime,
    engines: Mapping[str, EngineCacheEntry] | None,
    *,
    priorities: Mapping[str, int] | None = None,
    self_test_tolerances: Mapping[str, float] | None = None,
    mode: Mode = "takeoff",
    load_timeout_s: float = LOAD_TIMEOUT_S,
    give_up: Callable[[], str | None] | None = None,
    run_limit_ms: float = RUN_LIMIT_NS / NS_PER_MS,
    runs_at_once: int = 1,
    policy: RestartPolicy | None = None,
    available_memory: Callable[[], AvailableMemory] | None = None,
    on_restart_needed: Callable[[str], None] | None = None,
    record: Callable[[Message], None] | None = None,
    thermal: Literal["auto"] | ThermalSource | None = None,
    period_s: float = 1.0,
    snapshot: ThermalSnapshot | None = None,
    clock: Clock | None = None,
    stage: Stage = Stage(),  # noqa: B008  # a NamedTuple does not change
) -> Supervision:
    """Start one EngineActor per engine under a RuntimeSupervisor, most urgent first.

    In mode `takeoff` it returns when every engine is loaded, or stops them all and raises TakeoffRefusedError that
    names each one that is not, and why. In mode `recovery` it returns at once: engines answer as they come back.

    Engines, by model; None where all of them come later, through `Supervision.as_runtime`. `priorities` are 100 where
    none is given, a lower number is more urgent. An engine that has known answers is loaded once it has given them,
    after every restart too, each output within its `self_test_tolerances`.

    Loads: `load_timeout_s` is each engine's own, because they load one after the other. While a takeoff waits,
    `give_up` is asked ten times a second on the caller's thread; a text, the reason, ends it in TakeoffRefusedError.

    Runs: at most `runs_at_once` engines run on the device together. A run that takes longer than `run_limit_ms` hangs:
    its device is fenced, every engine on it refuses, and `on_restart_needed` is told why, as after a fault that only
    a new process heals. It is called once, on an actor's thread, and must not block.

    Restarts: `policy` says how often and how soon, by default as `RestartPolicy()`. `available_memory`, such as
    `lambda: runtimes.read_available_memory(config)`, is read before an engine is loaded again, so that memory that did
    not come back is found there; without it nobody looks.

    `record` sees every request, outcome and fact on the thread that caused it and must neither block nor raise.

    Heat: `thermal` is a source, read every `period_s`; "auto" reads the board's own sensors and flies without telemetry
    where it has none, with a warning; without it there is no telemetry. `snapshot` is given where something else reads
    the newest state too, such as the runtime.

    `clock` and `stage` are for tests; `actors.stepped` brings its own. Raises ValueError or TypeError, before anything
    starts, where one of these is nothing that can be flown: no engine, a limit of 0, a priority for a stranger.
    """
    priorities, self_test_tolerances = priorities or {}, self_test_tolerances or {}
    policy = RestartPolicy() if policy is None else policy
    check_terms(
        engines,
        mode=mode,
        policy=policy,
        runs_at_once=runs_at_once,
        priorities=priorities,
        self_test_tolerances=self_test_tolerances,
        durations={"period_s": period_s, "load_timeout_s": load_timeout_s, "run_limit_ms": run_limit_ms},
    )
    clock = clock or MonotonicClock()
    snapshot = snapshot or ThermalSnapshot(clock, stale_after_ns(period_s))
    source = open_source(thermal, clock)
    broadcast = ThermalBroadcast(stage.scheduling)
    flight = {} if engines is None else dict(engines)
    ledger = Ledger(flight, record)
    routes = Routes(ledger, clock, stage.scheduling)
    readiness = Readiness(flight, stage.scheduling)
    restart_need = RestartNeed(on_restart_needed)

    def spec_of(model: str, entry: EngineCacheEntry) -> EngineSpec:
        return EngineSpec(
            model=model,
            entry=entry,
            priority=priorities.get(model, 100),
            self_test_tolerance=self_test_tolerances.get(model, SELF_TEST_TOLERANCE),
            run_limit_ns=round(run_limit_ms * NS_PER_MS),
        )

    def surround(report: Callable[[EngineLoaded | EngineEnded], None]) -> EngineSurroundings:
        return EngineSurroundings(
            runtime=runtime,
            gate=DeviceGate(clock, stage.scheduling, runs_at_once),
            clock=clock,
            report=report,
            count_fault=ledger.count_fault,
            load_timeout_ns=round(load_timeout_s * NS_PER_S),
            available_memory=available_memory,
            scheduling=stage.scheduling,
        )

    with ExitStack() as undo:
        timers = stage.timers(clock)
        undo.callback(timers.close)
        supervisor: pykka.ActorRef[RuntimeSupervisor] = RuntimeSupervisor.start(
            [spec_of(model, entry) for model, entry in flight.items()],
            surround,
            routes,
            timers,
            readiness,
            mode=mode,
            policy=policy,
            record=_counted_and_recorded(ledger, record),
            need_restart=restart_need.say,
            chance=stage.chance,
        )
        undo.callback(stop_all, supervisor)
        watcher: pykka.ActorRef[ThermalActor] | None = None
        if source is not None:
            period_ns = round(period_s * NS_PER_S)
            watcher = ThermalActor.start(
                source, snapshot, broadcast, timers, clock, record, period_ns, stage.scheduling
            )
            undo.callback(stop_all, watcher)
        loader = EngineLoader(
            supervisor, flight, lambda entry: spec_of(entry.model, entry), load_timeout_s, stage.scheduling
        )
        supervision = Supervision(
            supervisor, watcher, routes, snapshot, broadcast, timers, readiness, restart_need, runtime, loader
        )
        undo.callback(supervision.stop)
        if mode == "takeoff":
            _await_takeoff(readiness, load_timeout_s, len(flight), give_up)
        undo.pop_all()
    return supervision


def _await_takeoff(
    readiness: Readiness, load_timeout_s: float, engine_count: int, give_up: Callable[[], str | None] | None
) -> None:
    # Counted, so that a stepped test waits in its own time.
    for _ in range(math.ceil(load_timeout_s * engine_count / GIVE_UP_ASKED_EVERY_S) + 1):
        if readiness.wait(GIVE_UP_ASKED_EVERY_S):
            break
        because = give_up() if give_up is not None else None
        if because is not None:
            loading = ", ".join(sorted(readiness.undecided))
            raise TakeoffRefusedError(f"takeoff given up because of {because}; not yet loaded: {loading or 'none'}")
    reasons = readiness.not_loaded(overdue_detail(load_timeout_s))
    if reasons:
        lines = "; ".join(f"{model}: {reason}" for model, reason in sorted(reasons.items()))
        raise TakeoffRefusedError(f"takeoff refused, {len(reasons)} engine(s) not loaded: {lines}")


def _counted_and_recorded(ledger: Ledger, record: Callable[[Message], None] | None) -> Callable[[Message], None]:
    def announce(message: Message) -> None:
        if isinstance(message, EngineLoaded):
            ledger.count_loaded(message)
        if record is not None:
            record(message)

    return announce
