"""When a throttle begins, when it is over, and when nobody can tell: the rule, without clock, thread or sensor.

The kernel compares a zone with its trip once a second and ignores hysteresis, so its flags flap around the trip.
A throttle therefore begins with the first flag, and is over only after three clear samples in a row on a board that
is 2 °C below its trip. A board that is not seen for 2.5 periods is lost from sight: an open throttle then has no end.
"""

from __future__ import annotations

import math

import msgspec

from messages import (
    NS_PER_S,
    TelemetryLost,
    TelemetryRestored,
    ThermalState,
    ThermalTransition,
    ThrottleEntered,
    ThrottleLeft,
)
from messages.errors import DETAIL_MAX_CHARS
from telemetry.thermal_sources.source import ThermalReading

CLEAR_SAMPLES = 3
CLEAR_MARGIN_C = 2.0
DEFAULT_TRIP_C = 99.0
"""The passive trip of every SoC zone of Jetson Orin (JetPack 6 device tree), for sources that tell no headroom."""
STALE_PERIODS = 2.5


def stale_after_ns(period_s: float = 1.0) -> int:
    """The age from which a sample of a source that is read every `period_s` says nothing any more."""
    return round(STALE_PERIODS * period_s * NS_PER_S)


class ThrottleWatch(msgspec.Struct, frozen=True, kw_only=True):
    """What the rule remembers between samples. A new one has seen nothing yet."""

    stale_after_ns: int = stale_after_ns()
    state: ThermalState = ThermalState(source_lost=True)
    watched_since_ns: int | None = None
    """When the newest sample was taken; before the first one, when the watch began."""
    lost: bool = False
    entered_ns: int | None = None
    clear_samples: int = 0


def observe(
    watch: ThrottleWatch, reading: ThermalReading | None, now_ns: int, lost_because: str = ""
) -> tuple[ThrottleWatch, ThermalState, tuple[ThermalTransition, ...]]:
    """Take one sample into account, or the lack of one (`reading` None, `lost_because` saying why).

    Returns the next watch, the state to publish, and what is to be broadcast, in order. While a throttle is open the
    state says so even in samples without a flag.
    """
    transitions: list[ThermalTransition] = []
    since_ns = now_ns if watch.watched_since_ns is None else watch.watched_since_ns
    if not watch.lost and now_ns - since_ns > watch.stale_after_ns:
        silence = f"no sample for {(now_ns - since_ns) / NS_PER_S:.1f} s"
        detail = f"{silence}; {lost_because}" if lost_because else silence
        throttled = watch.entered_ns is not None
        transitions.append(TelemetryLost(watch.state, detail[:DETAIL_MAX_CHARS], throttled))
        watch = msgspec.structs.replace(watch, lost=True, state=unseen(watch.state), entered_ns=None, clear_samples=0)
    if reading is None:
        watch = msgspec.structs.replace(watch, watched_since_ns=since_ns)
        return watch, watch.state, tuple(transitions)

    clear_samples = 0 if reading.throttled_by else watch.clear_samples + 1
    over = clear_samples >= CLEAR_SAMPLES and _has_cooled(reading)
    active = bool(reading.throttled_by) or (watch.entered_ns is not None and not over)
    state = _state_of(reading, active, now_ns)
    if watch.lost:
        transitions.append(TelemetryRestored(state))
    entered_ns = watch.entered_ns
    if active and entered_ns is None:
        transitions.append(ThrottleEntered(state))
        entered_ns = now_ns
    elif entered_ns is not None and not active:
        transitions.append(ThrottleLeft(state, now_ns - entered_ns))
        entered_ns = None
    watch = msgspec.structs.replace(
        watch,
        state=state,
        watched_since_ns=now_ns,
        lost=False,
        entered_ns=entered_ns,
        clear_samples=min(clear_samples, CLEAR_SAMPLES),
    )
    return watch, state, tuple(transitions)


def unseen(last: ThermalState) -> ThermalState:
    """The state of a board that is out of sight: nothing measured, no throttle claimed, the newest sample's time."""
    return ThermalState(measured_at=last.measured_at, source_lost=True)


def _has_cooled(reading: ThermalReading) -> bool:
    headroom_c = reading.headroom_c
    if math.isnan(headroom_c):
        temps = [temp for temp in (reading.cpu_temp_c, reading.gpu_temp_c) if not math.isnan(temp)]
        headroom_c = DEFAULT_TRIP_C - max(temps, default=-math.inf)  # no temperature at all: the flags decide alone
    return headroom_c >= CLEAR_MARGIN_C


def _state_of(reading: ThermalReading, active: bool, now_ns: int) -> ThermalState:
    return ThermalState(
        cpu_temp_c=reading.cpu_temp_c,
        gpu_temp_c=reading.gpu_temp_c,
        thermal_throttle_active=active,
        measured_clock_mhz=reading.gpu_clock_mhz,
        measured_at=now_ns,
        throttled_by=reading.throttled_by,
    )
