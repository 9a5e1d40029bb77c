"""What a flight needs besides its engines, looked at before anything is loaded, so that a go means that it can fly."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from actors.consumer import check_classes
from actors.flight.recovery import format_flight_id
from messages import Clock, ConfigError
from runtimes import FlightPlan
from telemetry import ThermalSource, open_thermal_source


def check_surroundings(plan: FlightPlan, clock: Clock) -> None:
    """Raises ConfigError naming table and key, or TelemetryUnavailableError. Writes and constructs nothing.

    The modules that the plan names are imported.
    """
    format_flight_id(plan.flight.name, 1)
    check_classes(plan.frames, plan.consumers)
    thermal_source(plan, clock)
    _check_folder(plan.flight.state, "state")
    _check_folder(plan.flight.recordings, "recordings")


def thermal_source(plan: FlightPlan, clock: Clock) -> ThermalSource | Literal["auto"]:
    """What `[thermal]` says. Raises ConfigError, TelemetryUnavailableError."""
    if plan.thermal.source == "auto":
        return "auto"
    return open_thermal_source(plan.thermal.source, plan.thermal.trace, clock)


def _check_folder(folder: Path, key: str) -> None:
    """It is a folder that this user may write, or can be made in one."""
    existing = next((each for each in (folder, *folder.parents) if os.path.lexists(each)), folder)
    if not existing.is_dir():
        raise ConfigError(f"[flight] {key}: expected a folder, or room for one, at {folder}; {existing} is no folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"[flight] {key}: expected a folder that this user may write; {existing} cannot be written")
