"""The flight process: one life from its start to its end, a takeoff or the recovery of a flight in the air."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import msgspec
from loguru import logger

from actors.flight.consumers import compose_consumers
from actors.flight.control_socket import ControlSocket
from actors.flight.declaration import Declarations
from actors.flight.flight_lock import FlightLock
from actors.flight.frame_loop import FrameCounts, FrameLoop
from actors.flight.journal import Journal
from actors.flight.late_sources import open_frame_source, open_thermal
from actors.flight.life import FlightEngines, Life, accept_engines, begin_life, engines_for
from actors.flight.signals import StopSignals
from actors.flight.surroundings import check_memory, check_surroundings, load_order
from actors.ledger import ModelTally
from actors.supervision import Supervision
from actors.takeoff import supervise
from messages import (
    NS_PER_MS,
    NS_PER_S,
    C7Error,
    Clock,
    ConfigError,
    FlightClosed,
    FlightOpened,
    InferCompleted,
    JournalError,
    Message,
    MonotonicClock,
    describe_error,
)
from runtimes import (
    EngineCacheEntry,
    FlightPlan,
    Generation,
    InferenceRuntime,
    build_inference_runtime,
    write_atomically,
)
from runtimes.available_memory import read_available_memory
from runtimes.store.engine_artifact import ReadEngine
from runtimes.store.read_ahead import ReadAhead
from telemetry import (
    FlightRecorder,
    LogLevel,
    ThermalSnapshot,
    configure_logging,
    stale_after_ns,
)

WATCH_PERIOD_S = 0.5
"""How often the main thread looks whether all is decided and the supervisor alive; what ends a flight wakes it."""
STOP_TIMEOUT_S = 2.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class RestartNeededError(C7Error):
    """Only a new process can fly on: the supervisor is dead, or no engine of this process can answer any more."""


class LifeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What one life says of itself at its end, beside its recording. A killed life leaves none."""

    flight_id: str
    life: int
    recovered: bool
    ended_because: str
    models: dict[str, ModelTally]
    frames: FrameCounts | None
    records_dropped: int


def fly_plan(plan: FlightPlan, *, duration_s: float | None = None, log_level: LogLevel = "INFO") -> LifeSummary:
    """Fly until a signal, for `duration_s` seconds, or until the supervisor dies. Main thread only.

    Raises TakeoffRefusedError where an engine is missing, stale or does not load, or the memory does not last for all;
    FlightProcessError where another flight process holds the state folder; JournalError; RestartNeededError where
    only a new process can fly on.
    """
    clock = MonotonicClock()
    with ExitStack() as ending:
        stop = ending.enter_context(StopSignals())
        ending.enter_context(FlightLock(plan.flight.state))
        journal = ending.enter_context(Journal.open(plan.flight.state))
        life = begin_life(plan, journal)
        check_surroundings(plan, clock, in_the_air=life.recovery is not None)
        engines = engines_for(plan, life)
        check_memory(plan, engines.entries, in_the_air=life.recovery is not None)
        opened = _opened(life, engines.generation, clock)
        # Before the recording is made: a kill in between costs a life's number, not a file name that is taken.
        journal.append(opened)
        _make_folder(plan.flight.recordings)
        recorder = ending.enter_context(FlightRecorder(plan.flight.recordings / f"{life.name}.mcap", clock))
        ending.callback(configure_logging(level=log_level, sink=sys.stdout, recorder=recorder).close)
        process = _FlightProcess(plan, life, clock, journal, recorder, log_level)
        summary = process.live(opened, engines, stop, duration_s)
        _write_summary(plan.flight.recordings / f"{life.name}.json", summary)
        return summary


class _FlightProcess:
    """What one life has at hand, and the order in which it is started and ended."""

    def __init__(
        self, plan: FlightPlan, life: Life, clock: Clock, journal: Journal, recorder: FlightRecorder, level: LogLevel
    ) -> None:
        self._plan = plan
        self._life = life
        self._in_the_air = life.recovery is not None
        self._clock = clock
        self._journal = journal
        self._recorder = recorder
        self._logs_runs = level == "DEBUG"

    def live(
        self, opened: FlightOpened, engines: FlightEngines, stop: StopSignals, duration_s: float | None
    ) -> LifeSummary:
        """From FlightOpened to FlightClosed, which is recorded whatever happens in between."""
        self._record(opened)
        ended_because = "an internal error"
        try:
            summary = self._fly(engines, stop, duration_s)
            ended_because = summary.ended_because
        except C7Error as error:
            ended_because = describe_error(error)
            raise
        finally:
            self._close(FlightClosed(ended_because, self._clock.monotonic_ns()))
        return summary

    def _close(self, closed: FlightClosed) -> None:
        self._record(closed)
        try:
            self._journal.append(closed)
        except JournalError as error:
            # A flight ends by LandedDeclared; that this life closed itself is for the analyst, who has the recording.
            logger.error("C7 end of life not in the journal; {}", describe_error(error))

    def _fly(self, engines: FlightEngines, stop: StopSignals, duration_s: float | None) -> LifeSummary:
        with ExitStack() as ending:
            read_ahead = ending.enter_context(ReadAhead(load_order(self._plan, engines.entries)))
            supervision = ending.enter_context(self._supervise(engines.entries, read_ahead.read, stop))
            accept_engines(self._plan, engines)
            declarations = Declarations(
                self._journal,
                self._clock,
                self._record,
                flight_id=self._life.flight_id,
                life=self._life.number,
                airborne=self._in_the_air,
            )
            ending.enter_context(ControlSocket(self._plan.flight.state, declarations.answer))
            frames = self._frame_loop(supervision, engines.entries)
            if frames is not None:
                ending.callback(frames.stop, STOP_TIMEOUT_S)
                frames.start()
            start = "recovery" if self._in_the_air else "takeoff"
            logger.info("C7 flies; flight={} life={} after={}", self._life.flight_id, self._life.number, start)
            ended_because = _watch(supervision, read_ahead, stop, self._clock, duration_s)
        logger.info(
            "C7 flight process ends; flight={} life={} because={}",
            self._life.flight_id,
            self._life.number,
            ended_because,
        )
        return LifeSummary(
            flight_id=self._life.flight_id,
            life=self._life.number,
            recovered=self._in_the_air,
            ended_because=ended_because,
            models=supervision.tallies(),
            frames=frames.counts if frames is not None else None,
            records_dropped=self._recorder.dropped,
        )

    def _supervise(self, entries: Mapping[str, EngineCacheEntry], read: ReadEngine, stop: StopSignals) -> Supervision:
        plan = self._plan
        snapshot = ThermalSnapshot(self._clock, stale_after_ns(plan.thermal.period_s))
        return supervise(
            self._runtime(snapshot, read),
            entries,
            priorities={model: plan.models[model].priority for model in entries},
            self_test_tolerances={model: plan.models[model].self_test_tolerance for model in entries},
            mode="recovery" if self._in_the_air else "takeoff",
            thermal=open_thermal(plan.thermal, self._clock, in_the_air=self._in_the_air),
            snapshot=snapshot,
            period_s=plan.thermal.period_s,
            load_timeout_s=plan.flight.load_timeout_s,
            record=self._record,
            clock=self._clock,
            give_up=lambda: stop.wait(0.0),
            run_limit_ms=plan.flight.run_limit_ms,
            runs_at_once=plan.flight.runs_at_once,
            available_memory=lambda: read_available_memory(plan.runtime),
            on_restart_needed=stop.post,
        )

    def _runtime(self, snapshot: ThermalSnapshot, read: ReadEngine) -> InferenceRuntime:
        try:
            return build_inference_runtime(self._plan.runtime, snapshot, read)
        except ConfigError:
            raise
        except C7Error as error:
            if not self._in_the_air:
                raise
            # A driver that comes up after this process, or memory of the life before that is not back yet: a refusal
            # would be the last start, and nobody is there to read it.
            raise RestartNeededError(f"{describe_error(error)}; start the flight process again") from error

    def _frame_loop(self, supervision: Supervision, entries: Mapping[str, EngineCacheEntry]) -> FrameLoop | None:
        plan = self._plan
        if plan.frames is None:
            return None
        return FrameLoop(
            open_frame_source(plan.frames, in_the_air=self._in_the_air),
            compose_consumers(plan, entries, supervision.as_runtime(), in_the_air=self._in_the_air),
            plan.frames.rate_hz,
            self._clock,
            self._record,
            first_frame_id=self._life.first_frame_id,
            within_ms={name: each.within_ms for name, each in plan.consumers.items() if each.within_ms is not None},
        )

    def _record(self, message: Message) -> None:
        self._recorder.record(message)
        if self._logs_runs and isinstance(message, InferCompleted):
            took_ms = message.run_ns / NS_PER_MS
            logger.debug("C7 infer backbone={} frame={} took={:.1f}ms", message.model, message.frame_id, took_ms)


def _leave_what_was_loaded_to_itself() -> None:
    """The garbage collector walks all that is there, and no other thread runs meanwhile. What was loaded for the flight
    stays for the flight: from here on a collection passes it by (docs/decisions/engine-restart.md has the figures).
    """
    gc.collect()
    gc.freeze()


def _opened(life: Life, generation: Generation, clock: Clock) -> FlightOpened:
    return FlightOpened(
        flight_id=life.flight_id,
        life=life.number,
        engine_generation=generation.number,
        manifest_sha256=generation.manifest_sha256,
        boot_id=BOOT_ID.read_text().strip(),
        pid=os.getpid(),
        opened_at=clock.monotonic_ns(),
    )


def _make_folder(recordings: Path) -> None:
    try:
        recordings.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"[flight] recordings: {recordings} cannot be made: {error.strerror}") from error


def _write_summary(path: Path, summary: LifeSummary) -> None:
    try:
        write_atomically(path, msgspec.json.encode(summary))
    except OSError as error:  # the flight went as it went: a full disk at its end does not make it a failed one
        logger.error("C7 summary not written; file={} error={}", path, describe_error(error))


def _watch(
    supervision: Supervision, read_ahead: ReadAhead, stop: StopSignals, clock: Clock, duration_s: float | None
) -> str:
    """Wait on the main thread; consumers and engines have their own."""
    end_ns = None if duration_s is None else clock.monotonic_ns() + round(duration_s * NS_PER_S)
    settled = False
    while True:
        if not settled and not supervision.readiness.undecided:
            settled = True
            read_ahead.close()
            _leave_what_was_loaded_to_itself()
        left_s = WATCH_PERIOD_S if end_ns is None else (end_ns - clock.monotonic_ns()) / NS_PER_S
        if left_s <= 0:
            return f"the {duration_s:g} s asked for are over"
        ended_because = stop.wait(min(left_s, WATCH_PERIOD_S))
        if supervision.restart_needed:
            raise RestartNeededError(f"{supervision.restart_needed}; start the flight process again")
        if ended_because is not None:
            return ended_because
        if not supervision.is_alive():
            raise RestartNeededError("the supervisor died; start the flight process again")
