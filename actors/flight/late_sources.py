"""What a recovery opens late: a camera or a sensor that is not there yet ends no flight, and is looked for again."""

from __future__ import annotations

import importlib
from typing import Literal

import numpy as np
import numpy.typing as npt
from loguru import logger

from actors.consumer import FrameSource, build_source
from actors.thermal import configured_source
from messages import Clock
from runtimes.flight_plan import FramesSection, ThermalSection
from telemetry import ThermalReading, ThermalSource, open_thermal_source


class LateFrameSource:
    """The plan's frame source, imported and constructed on the thread that reads it: where that hangs or fails, nothing
    but frames is missing. Each frame that is due tries again until it is there.
    """

    def __init__(self, frames: FramesSection) -> None:
        self._frames = frames
        self._source: FrameSource | None = None

    def read(self, frame_id: int) -> npt.NDArray[np.uint8]:
        """Raises what importing, constructing and reading it raises; ConfigError by table and key for the first two."""
        if self._source is None:
            importlib.invalidate_caches()  # without it Python looks no more at a folder that was not there once
            self._source = build_source(self._frames)
            logger.info("C7 frame source constructed; frame={}", frame_id)
        return self._source.read(frame_id)


class LateThermalSource:
    """The plan's thermal source, opened by the thread that reads it: each sample tries again until it is there."""

    def __init__(self, section: ThermalSection, clock: Clock) -> None:
        self.name = f"[thermal] source {section.source}"
        self._section = section
        self._clock = clock
        self._source: ThermalSource | None = None

    def read(self) -> ThermalReading:
        """Raises TelemetryUnavailableError, and ConfigError for a trace that cannot be played."""
        if self._source is None:
            self._source = open_thermal_source(self._section.source, self._section.trace, self._clock)
        return self._source.read()


def open_frame_source(frames: FramesSection, *, in_the_air: bool) -> FrameSource:
    """At a takeoff it is constructed at once: raises ConfigError naming the plan's table and key."""
    return LateFrameSource(frames) if in_the_air else build_source(frames)


def open_thermal(section: ThermalSection, clock: Clock, *, in_the_air: bool) -> ThermalSource | Literal["auto"]:
    """At a takeoff it is opened at once: raises ConfigError, TelemetryUnavailableError.

    In the air one that is gone is telemetry that is lost: it is said, the state is `source_lost`, and every sample
    looks for it.
    """
    if in_the_air and (section.source != "auto" or section.trace is not None):
        return LateThermalSource(section, clock)
    return configured_source(section, clock)
