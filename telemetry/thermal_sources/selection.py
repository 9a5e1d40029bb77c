"""Which thermal source is read."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from messages import Clock, ConfigError
from telemetry.thermal_sources.replay import ReplayThermalSource
from telemetry.thermal_sources.source import ThermalSource
from telemetry.thermal_sources.sysfs import SysfsThermalSource

SourceKind = Literal["auto", "sysfs", "replay"]


def open_thermal_source(
    kind: SourceKind, trace: Path | None, clock: Clock, *, sysfs: Path = Path("/sys")
) -> ThermalSource:
    """The source that the flight plan names; `trace` belongs to `replay` and to nothing else.

    Raises TelemetryUnavailableError where the board has no sensors, ConfigError for a trace that is missing, wrong or
    out of place.
    """
    if kind == "replay":
        if trace is None:
            raise ConfigError('thermal source "replay": expected a trace to play, found none; name one in `trace`')
        return ReplayThermalSource(trace, clock)
    if trace is not None:
        raise ConfigError(f'thermal source "{kind}": a trace is only played by "replay"; remove `trace` {trace}')
    return SysfsThermalSource(sysfs)
