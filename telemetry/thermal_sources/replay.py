"""A recorded or written trace in place of the board's sensors: for rehearsals, demonstrations and tests.

A trace is a text file of JSON lines, one reading each, in the order of time:

    {"at_s": 0.0, "cpu_temp_c": 61.5, "gpu_temp_c": 63.0, "gpu_clock_mhz": 1020, "throttled_by": []}
    {"at_s": 4.0, "cpu_temp_c": 97.0, "gpu_temp_c": 99.5, "gpu_clock_mhz": 612, "throttled_by": ["gpu-throttle-alert"]}

`at_s` is seconds since the first read; it starts at 0 and grows. The rest may be left out where it is not known. A
reading holds until the next one's time, and the last one for ever.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from pathlib import Path
from typing import Annotated

import msgspec

from messages import NS_PER_S, Clock, ConfigError
from messages.infer import Counter
from messages.thermal import COOLING_DEVICES_MAX
from telemetry.thermal_sources.source import ThermalReading

TRACE_MAX_BYTES = 16 * 1024 * 1024

_Celsius = Annotated[float, msgspec.Meta(ge=-60, le=200)]
_CoolingDevice = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class _Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    at_s: Annotated[float, msgspec.Meta(ge=0, le=1e6)]
    cpu_temp_c: _Celsius = math.nan
    gpu_temp_c: _Celsius = math.nan
    gpu_clock_mhz: Counter = 0
    throttled_by: Annotated[tuple[_CoolingDevice, ...], msgspec.Meta(max_length=COOLING_DEVICES_MAX)] = ()


_decoder = msgspec.json.Decoder(_Line)


class ReplayThermalSource:
    """Plays a trace against `clock`, from its first read on. Raises ConfigError naming the line that is wrong."""

    def __init__(self, trace: Path, clock: Clock) -> None:
        self.name = f"replay of {trace.name}"
        self._clock = clock
        self._lines = _read_trace(trace)
        self._times_s = [line.at_s for line in self._lines]
        self._started_ns: int | None = None

    def read(self) -> ThermalReading:
        now_ns = self._clock.monotonic_ns()
        if self._started_ns is None:
            self._started_ns = now_ns
        played_s = (now_ns - self._started_ns) / NS_PER_S
        line = self._lines[bisect_right(self._times_s, played_s) - 1]
        return ThermalReading(
            cpu_temp_c=line.cpu_temp_c,
            gpu_temp_c=line.gpu_temp_c,
            gpu_clock_mhz=line.gpu_clock_mhz,
            throttled_by=line.throttled_by,
        )


def _read_trace(trace: Path) -> list[_Line]:
    if trace.exists() and not trace.is_file():
        raise ConfigError(f"thermal trace {trace}: expected a file, found something else")
    try:
        with trace.open("rb") as file:
            data = file.read(TRACE_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"thermal trace {trace}: cannot be read: {error.strerror}") from error
    if len(data) > TRACE_MAX_BYTES:
        raise ConfigError(f"thermal trace {trace}: expected at most {TRACE_MAX_BYTES} bytes, found more")
    lines: list[_Line] = []
    for number, text in enumerate(data.splitlines(), start=1):
        try:
            line = _decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(
                f'thermal trace {trace}, line {number}: expected a reading such as {{"at_s": 0.0, "gpu_temp_c": 60}}, '
                f"found {text[:60].decode('utf-8', 'replace')!r}: {str(error)[:200]}"
            ) from error
        if lines and line.at_s <= lines[-1].at_s:
            raise ConfigError(
                f"thermal trace {trace}, line {number}: expected at_s above {lines[-1].at_s:g}, found {line.at_s:g}"
            )
        if not lines and line.at_s != 0:
            raise ConfigError(f"thermal trace {trace}, line 1: expected at_s 0, found {line.at_s:g}")
        lines.append(line)
    if not lines:
        raise ConfigError(f"thermal trace {trace}: expected at least one reading, found an empty file")
    return lines
