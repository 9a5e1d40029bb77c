"""What is known of the board's heat, and the facts that are broadcast when it changes."""

from __future__ import annotations

import math
from typing import Annotated, Protocol

import msgspec

from messages.infer import Counter, Detail

COOLING_DEVICES_MAX = 64


class ThermalState(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """One sample of the board.

    Temperatures are degrees Celsius and NaN where a sensor was not read; `measured_clock_mhz` is the GPU's clock, 0
    where it was not read; `measured_at` is CLOCK_MONOTONIC nanoseconds. `throttled_by` names the cooling devices
    that were active. `source_lost` is True where telemetry is missing or stale: then
    `thermal_throttle_active` is False, because consumers stay on their steady path.
    """

    cpu_temp_c: float = math.nan
    gpu_temp_c: float = math.nan
    thermal_throttle_active: bool = False
    measured_clock_mhz: Counter = 0
    measured_at: Counter = 0
    throttled_by: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=128)], ...], msgspec.Meta(max_length=COOLING_DEVICES_MAX)
    ] = ()
    source_lost: bool = False


class ThrottleEntered(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The board began to slow itself down because it is hot."""

    state: ThermalState


class ThrottleLeft(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The board runs at full clock again. `lasted_ns` is measured from the sample that entered."""

    state: ThermalState
    lasted_ns: Counter


class TelemetryLost(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """No fresh sample. Where a throttle was open, its end is unknown: it was lost from sight, not left."""

    last_state: ThermalState
    detail: Detail
    throttle_was_active: bool


class TelemetryRestored(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Samples arrive again."""

    state: ThermalState


ThermalTransition = ThrottleEntered | ThrottleLeft | TelemetryLost | TelemetryRestored


class ThermalFeed(Protocol):
    """Where a runtime's `thermal_state()` reads from. Never blocks; callable from any thread."""

    def thermal_state(self) -> ThermalState:
        """The newest sample. Raises TelemetryUnavailableError where there is none that is fresh."""
        ...
