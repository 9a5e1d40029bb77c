"""The replay source: a trace played against a clock, and traces that are refused."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from messages import ConfigError, VirtualClock
from telemetry import ReplayThermalSource, open_thermal_source

TRACE = """\
{"at_s": 0.0, "cpu_temp_c": 61.5, "gpu_temp_c": 63.0, "gpu_clock_mhz": 1020, "throttled_by": []}
{"at_s": 4.0, "gpu_temp_c": 99.5, "gpu_clock_mhz": 612, "throttled_by": ["gpu-throttle-alert"]}
{"at_s": 9.5, "gpu_temp_c": 80.0}
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.jsonl"
    path.write_text(TRACE)
    return path


def test_a_trace_plays_from_the_first_read_and_holds_its_last_reading(trace: Path) -> None:
    clock = VirtualClock()
    source = open_thermal_source("replay", trace, clock)
    clock.advance_ms(60_000)
    temps = []
    for _ in range(13):
        temps.append(source.read().gpu_temp_c)
        clock.advance_ms(1000)
    assert temps == [63.0] * 4 + [99.5] * 6 + [80.0] * 3
    clock.advance_ms(1e9)
    assert source.read().gpu_temp_c == 80.0


def test_what_a_line_leaves_out_is_not_known(trace: Path) -> None:
    clock = VirtualClock()
    source = ReplayThermalSource(trace, clock)
    assert source.read().throttled_by == ()
    clock.advance_ms(4000)
    reading = source.read()
    assert reading.throttled_by == ("gpu-throttle-alert",)
    assert math.isnan(reading.cpu_temp_c)
    clock.advance_ms(5500)
    assert source.read().gpu_clock_mhz == 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"at_s": 4.0}', "line 4: expected at_s above 9.5, found 4"),
        ('{"at_s": 9.5}', "line 4: expected at_s above 9.5"),
        ('{"at_s": 10, "gpu_temp": 60}', "line 4: .*unknown field `gpu_temp`"),
        ('{"at_s": 10, "gpu_temp_c": "60"}', r"line 4: .*Expected `float`, got `str` - at `\$.gpu_temp_c`"),
        ('{"at_s": 10, "gpu_temp_c": NaN}', "line 4: .*malformed"),
        ('{"at_s": 10, "gpu_clock_mhz": -1}', "line 4: .*>= 0"),
        ('{"gpu_temp_c": 60}', "line 4: .*missing required field `at_s`"),
        ('{"at_s": 10, "throttled_by": ["' + "x" * 200 + '"]}', "line 4: .*length <= 128"),
        ("[" * 100_000, "line 4: "),
        ("", "line 4: "),
        ("\udcff", "line 4: "),
    ],
)
def test_a_wrong_line_is_refused_by_its_number(trace: Path, line: str, says: str) -> None:
    trace.write_bytes((TRACE + line + "\n").encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=says):
        ReplayThermalSource(trace, VirtualClock())


def test_a_trace_starts_at_zero(trace: Path) -> None:
    trace.write_text('{"at_s": 1}\n')
    with pytest.raises(ConfigError, match="line 1: expected at_s 0, found 1"):
        ReplayThermalSource(trace, VirtualClock())


def test_an_empty_a_missing_and_a_hanging_trace_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "fifo")
    for name, says in (("empty", "found an empty file"), ("missing", "No such file"), ("fifo", "expected a file")):
        with pytest.raises(ConfigError, match=says):
            ReplayThermalSource(tmp_path / name, VirtualClock())
