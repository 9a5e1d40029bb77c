"""The actor that watches the board's heat: one sample a second, a snapshot for readers, a broadcast of changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from loguru import logger

from actors.mailbox import Mailbox
from actors.scheduling import THREADS, Scheduling
from actors.supervised import SupervisedActor
from actors.thermal_feed import ThermalBroadcast
from actors.timers import Timers
from messages import (
    NS_PER_S,
    Clock,
    TelemetryLost,
    TelemetryRestored,
    TelemetryUnavailableError,
    ThermalState,
    ThermalTransition,
    ThrottleEntered,
    ThrottleLeft,
    describe_error,
)
from runtimes.flight_plan import ThermalSection
from telemetry import (
    InlineSampler,
    Sampler,
    ThermalReading,
    ThermalSampler,
    ThermalSnapshot,
    ThermalSource,
    ThrottleWatch,
    observe,
    open_thermal_source,
    stale_after_ns,
)

PERIOD_NS = NS_PER_S
"""The specification's 1 Hz."""


def open_source(thermal: Literal["auto"] | ThermalSource | None, clock: Clock) -> ThermalSource | None:
    """The source that was asked for; None where none was, and, with a warning, for "auto" on a board without sensors.

    Raises TypeError for what is no source.
    """
    if thermal != "auto":
        if thermal is not None and not callable(getattr(thermal, "read", None)):
            raise TypeError(f'thermal: expected "auto", None or a source with a read(), found {thermal!r}')
        return thermal
    try:
        return open_thermal_source("auto", None, clock)
    except TelemetryUnavailableError as error:
        logger.warning("C7 telemetry unavailable; {}", error)
        return None


def configured_source(section: ThermalSection, clock: Clock) -> ThermalSource | Literal["auto"]:
    """What a plan or a binary's configuration says. Raises ConfigError, TelemetryUnavailableError."""
    if section.source == "auto" and section.trace is None:
        return "auto"
    return open_thermal_source(section.source, section.trace, clock)


class Sample:
    """Command: take the next sample."""


class ThermalActor(SupervisedActor):
    """Samples a source that may hang, decides transitions by the pure rule, publishes and broadcasts.

    The source is read on the sampler's expendable thread; this actor waits for it at most one period. A scheduling
    that is not of threads has none to spare: there it is read inline.
    """

    def __init__(
        self,
        source: ThermalSource,
        snapshot: ThermalSnapshot,
        broadcast: ThermalBroadcast,
        timers: Timers,
        clock: Clock,
        record: Callable[[ThermalTransition], None] | None = None,
        period_ns: int = PERIOD_NS,
        scheduling: Scheduling = THREADS,
    ) -> None:
        super().__init__(Mailbox(scheduling=scheduling))
        on_threads = scheduling is THREADS
        self._sampler: Sampler = (
            ThermalSampler(source, timeout_s=period_ns / NS_PER_S) if on_threads else InlineSampler(source)
        )
        self._snapshot = snapshot
        self._broadcast = broadcast
        self._timers = timers
        self._clock = clock
        self._record = record
        self._period_ns = period_ns
        self._watch = ThrottleWatch(stale_after_ns=stale_after_ns(period_ns / NS_PER_S))

    def open(self) -> None:
        self._sample()

    def handle(self, message: Any) -> None:
        if not isinstance(message, Sample):
            raise TypeError(f"a ThermalActor takes Sample only, not a {type(message).__name__}")
        self._sample()

    def leave(self, cause: str) -> None:
        lost: TelemetryLost | None = None
        if cause and not self._watch.lost:
            last = self._watch.state
            lost = TelemetryLost(last, cause, throttle_was_active=self._watch.entered_ns is not None)
            self._snapshot.publish(ThermalState(measured_at=last.measured_at, source_lost=True))
            self._broadcast.publish(lost)
        self._broadcast.close()
        if cause:
            logger.error("C7 thermal telemetry stopped; cause={}", cause)
        if lost is not None and self._record is not None:
            self._record(lost)

    def _sample(self) -> None:
        due_ns = self._clock.monotonic_ns() + self._period_ns
        reading: ThermalReading | None = None
        lost_because = ""
        try:
            reading = self._sampler.sample()
        except TelemetryUnavailableError as error:
            lost_because = describe_error(error)
        now_ns = self._clock.monotonic_ns()
        self._watch, state, transitions = observe(self._watch, reading, now_ns, lost_because)
        self._snapshot.publish(state)
        for transition in transitions:
            _log(transition)
            if self._record is not None:
                self._record(transition)
            self._broadcast.publish(transition)
        self._timers.after(max(0, due_ns - now_ns), lambda: self.post(Sample()))


def _log(transition: ThermalTransition) -> None:
    match transition:
        case ThrottleEntered(state=state):
            logger.warning(
                "C7 thermal throttle active; gpu_temp={:.0f}C; clock={}mhz", state.gpu_temp_c, state.measured_clock_mhz
            )
        case ThrottleLeft(state=state, lasted_ns=lasted_ns):
            logger.warning(
                "C7 thermal throttle left; gpu_temp={:.0f}C; clock={}mhz; lasted={:.1f}s",
                state.gpu_temp_c,
                state.measured_clock_mhz,
                lasted_ns / NS_PER_S,
            )
        case TelemetryLost(detail=detail):
            logger.warning("C7 telemetry unavailable; {}", detail)
        case TelemetryRestored():
            logger.warning("C7 telemetry restored")
