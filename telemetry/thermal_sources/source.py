"""What a thermal source tells, and which one is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from messages import Clock, ConfigError

SourceKind = Literal["auto", "sysfs", "replay"]


class ThermalReading(msgspec.Struct, frozen=True):
    """One look at the board, as it was found and before anything is decided.

    Temperatures are degrees Celsius, NaN where no sensor answered; `gpu_clock_mhz` is 0 where it was not read.
    `throttled_by` names the cooling devices that slow the board down at this moment. `headroom_c` is how far the
    hottest zone is below the trip at which it makes the board slow down, NaN where the board does not tell.
    """

    cpu_temp_c: float = math.nan
    gpu_temp_c: float = math.nan
    gpu_clock_mhz: int = 0
    throttled_by: tuple[str, ...] = ()
    headroom_c: float = math.nan


class ThermalSource(Protocol):
    """Where readings come from. Read by one thread at a time."""

    @property
    def name(self) -> str: ...

    def read(self) -> ThermalReading:
        """Look now. May block for ever: it is the sampler that bounds it. Raises TelemetryUnavailableError."""
        ...


def open_thermal_source(
    kind: SourceKind, trace: Path | None, clock: Clock, *, sysfs: Path = Path("/sys")
) -> ThermalSource:
    """The source that the flight plan names; `trace` belongs to `replay` and to nothing else.

    Raises TelemetryUnavailableError where the board has no sensors, ConfigError for a trace that is missing, wrong or
    out of place.
    """
    from telemetry.thermal_sources.replay import ReplayThermalSource
    from telemetry.thermal_sources.sysfs import SysfsThermalSource

    if kind == "replay":
        if trace is None:
            raise ConfigError('thermal source "replay": expected a trace to play, found none; name one in `trace`')
        return ReplayThermalSource(trace, clock)
    if trace is not None:
        raise ConfigError(f'thermal source "{kind}": a trace is only played by "replay"; remove `trace` {trace}')
    return SysfsThermalSource(sysfs)
