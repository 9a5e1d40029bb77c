"""The places that thermal readings come from."""

from telemetry.thermal_sources.replay import ReplayThermalSource
from telemetry.thermal_sources.selection import SourceKind, open_thermal_source
from telemetry.thermal_sources.source import ThermalReading, ThermalSource
from telemetry.thermal_sources.sysfs import SysfsThermalSource

__all__ = [
    "ReplayThermalSource",
    "SourceKind",
    "SysfsThermalSource",
    "ThermalReading",
    "ThermalSource",
    "open_thermal_source",
]
