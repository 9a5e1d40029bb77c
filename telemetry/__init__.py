"""What is observed: the board's heat, the decisions about it, the flight recorder and the log."""

from telemetry.flight_recorder import FlightRecorder
from telemetry.flight_tally import ModelRecord, Spread, spread, tally_flight
from telemetry.log_setup import LogLevel, LogSetup, configure_logging
from telemetry.recording import RecordedMessage, read_recording
from telemetry.thermal_sampler import InlineSampler, Sampler, ThermalSampler
from telemetry.thermal_snapshot import ThermalSnapshot
from telemetry.thermal_sources import (
    ReplayThermalSource,
    SourceKind,
    SysfsThermalSource,
    ThermalReading,
    ThermalSource,
    open_thermal_source,
)
from telemetry.throttle import ThrottleWatch, observe, stale_after_ns

__all__ = [
    "FlightRecorder",
    "InlineSampler",
    "LogLevel",
    "LogSetup",
    "ModelRecord",
    "RecordedMessage",
    "ReplayThermalSource",
    "Sampler",
    "SourceKind",
    "Spread",
    "SysfsThermalSource",
    "ThermalReading",
    "ThermalSampler",
    "ThermalSnapshot",
    "ThermalSource",
    "ThrottleWatch",
    "configure_logging",
    "observe",
    "open_thermal_source",
    "read_recording",
    "spread",
    "stale_after_ns",
    "tally_flight",
]
