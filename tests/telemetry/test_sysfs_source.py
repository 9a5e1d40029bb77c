"""The sysfs source on the boards that are known, and on what boards do to it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from messages import ConfigError, TelemetryUnavailableError, VirtualClock
from telemetry import SysfsThermalSource, open_thermal_source
from telemetry.thermal_sources.sysfs import slows_the_board

Board = Callable[[str], Path]
SetCooling = Callable[[Path, str, int], None]


def test_an_orin_nx_is_read_whole(board: Board) -> None:
    reading = SysfsThermalSource(board("orin_nx_jetpack6")).read()
    assert (reading.cpu_temp_c, reading.gpu_temp_c) == (48.593, 50.125)
    assert reading.gpu_clock_mhz == 918
    assert reading.throttled_by == ()
    assert reading.headroom_c == pytest.approx(99 - 50.125)


def test_zones_are_found_by_type_whatever_their_number(board: Board) -> None:
    reading = SysfsThermalSource(board("orin_nano_jetpack6")).read()
    assert (reading.cpu_temp_c, reading.gpu_temp_c) == (59.5, 61.0)


def test_a_sensor_that_answers_eagain_is_left_out_and_the_others_are_read(board: Board) -> None:
    root = board("orin_nano_jetpack6")
    cv_zone = root / "class/thermal/thermal_zone2/temp"
    descriptor = os.open(cv_zone, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        os.read(descriptor, 1)
    os.close(descriptor)
    reading = SysfsThermalSource(root).read()
    assert reading.cpu_temp_c == 59.5
    assert reading.headroom_c == pytest.approx(99 - 61)


def test_a_gpu_sensor_without_an_answer_is_nan_and_no_failure(board: Board) -> None:
    root = board("orin_nx_jetpack6")
    (root / "class/thermal/thermal_zone1/temp").write_text("-256000\n")
    reading = SysfsThermalSource(root).read()
    assert math.isnan(reading.gpu_temp_c)
    assert reading.cpu_temp_c == 48.593


def test_jetpack_5_names_are_understood(board: Board, set_cooling: SetCooling) -> None:
    root = board("orin_nx_jetpack5")
    source = SysfsThermalSource(root)
    reading = source.read()
    assert (reading.cpu_temp_c, reading.gpu_temp_c, reading.gpu_clock_mhz) == (52.0, 51.5, 305)
    assert reading.throttled_by == ()
    set_cooling(root, "thermal-devfreq-0", 3)
    assert source.read().throttled_by == ("thermal-devfreq-0",)


def test_a_workstation_has_a_processor_and_no_gpu(board: Board) -> None:
    reading = SysfsThermalSource(board("workstation")).read()
    assert reading.cpu_temp_c == 44.0
    assert math.isnan(reading.gpu_temp_c)
    assert (reading.gpu_clock_mhz, reading.throttled_by) == (0, ())
    assert math.isnan(reading.headroom_c)


@pytest.mark.parametrize("kind", ["cpu-throttle-alert", "gpu-throttle-alert", "cpufreq-cpu4", "devfreq-17000000.gpu"])
def test_each_device_that_slows_the_board_is_named(board: Board, set_cooling: SetCooling, kind: str) -> None:
    root = board("orin_nx_jetpack6")
    set_cooling(root, kind, 1)
    assert SysfsThermalSource(root).read().throttled_by == (kind,)


def test_a_running_fan_and_a_hot_surface_are_no_throttle(board: Board, set_cooling: SetCooling) -> None:
    root = board("orin_nx_jetpack6")
    set_cooling(root, "pwm-fan", 3)
    set_cooling(root, "hot-surface-alert", 1)
    assert SysfsThermalSource(root).read().throttled_by == ()


def test_a_lowered_clock_limit_and_over_current_are_no_throttle(board: Board) -> None:
    root = board("orin_nx_jetpack6")
    (root / "devices/platform/bus@0/17000000.gpu/devfreq/17000000.gpu/max_freq").write_text("306000000\n")
    (root / "class/hwmon/hwmon1/oc3_event_cnt").write_text("99999\n")
    assert SysfsThermalSource(root).read().throttled_by == ()


def test_the_trip_of_a_hot_surface_is_not_taken_for_the_trip_of_a_throttle(board: Board) -> None:
    root = board("orin_nano_jetpack6")
    (root / "class/thermal/thermal_zone0/temp").write_text("75000\n")
    assert SysfsThermalSource(root).read().headroom_c == pytest.approx(99 - 61)


def test_nothing_but_the_attributes_that_answer_at_once_is_opened(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = board("orin_nx_jetpack6")
    for number in range(13):
        os.mkfifo(root / f"class/thermal/cooling_device{number}/thermal_trip_event_block")
    opened: set[str] = set()
    real_open = os.open

    def noting_open(path: str | Path, flags: int) -> int:
        opened.add(re.sub(r"\d+", "N", Path(path).name))
        return real_open(path, flags)

    monkeypatch.setattr(os, "open", noting_open)
    SysfsThermalSource(root).read()
    trips = {"cdevN_trip_point", "trip_point_N_temp", "trip_point_N_type"}
    assert opened == {"type", "temp", "cur_state", "cur_freq", "name"} | trips


def test_a_gpu_driver_that_loads_late_is_found(board: Board, set_cooling: SetCooling) -> None:
    root = board("orin_nx_jetpack6")
    late = root / "class/devfreq/17000000.gpu"
    target = late.readlink()
    late.unlink()
    (root / "devices/platform/bus@0").rename(root / "not yet")
    source = SysfsThermalSource(root)
    assert source.read().gpu_clock_mhz == 0
    (root / "not yet").rename(root / "devices/platform/bus@0")
    late.symlink_to(target)
    new = root / "class/thermal/cooling_device13"
    new.mkdir()
    (new / "type").write_text("thermal-devfreq-0\n")
    (new / "cur_state").write_text("1\n")
    reading = source.read()
    assert reading.gpu_clock_mhz == 918
    assert reading.throttled_by == ("thermal-devfreq-0",)


@pytest.mark.parametrize("garbage", ["", "hot", "99999999999", "-274000", "\x00", "é", "1" * 400])
def test_a_temperature_that_is_no_temperature_is_not_read(board: Board, garbage: str) -> None:
    root = board("orin_nx_jetpack6")
    (root / "class/thermal/thermal_zone0/temp").write_text(garbage)
    assert math.isnan(SysfsThermalSource(root).read().cpu_temp_c)


def test_a_board_on_which_no_cooling_device_can_be_read_is_unavailable_not_cool(board: Board) -> None:
    root = board("orin_nano_jetpack6")
    source = SysfsThermalSource(root)
    for state in (root / "class/thermal").glob("cooling_device*/cur_state"):
        state.unlink()
    with pytest.raises(TelemetryUnavailableError, match="nothing is known about throttling"):
        source.read()


def test_a_board_that_lost_all_its_sensors_is_unavailable(board: Board) -> None:
    root = board("workstation")
    source = SysfsThermalSource(root)
    (root / "class/thermal/thermal_zone1/temp").unlink()
    with pytest.raises(TelemetryUnavailableError, match="could be read"):
        source.read()


@pytest.mark.parametrize(
    ("kind", "slows"),
    [
        ("gv11b-throttle-alert", True),
        ("devfreq-17000000.ga10b", True),
        ("devfreq-15340000.vic", False),
        ("thermal-cpufreq-0", True),
        ("Processor", False),
        ("hot-surface-alert", False),
        ("pwm-fan", False),
        ("", False),
    ],
)
def test_what_slows_the_board_is_known_by_its_type(kind: str, slows: bool) -> None:
    assert slows_the_board(kind) is slows


def test_a_machine_without_sensors_says_so_when_it_is_opened(tmp_path: Path) -> None:
    with pytest.raises(TelemetryUnavailableError, match="found nothing"):
        open_thermal_source("auto", None, VirtualClock(), sysfs=tmp_path)


def test_auto_takes_the_boards_own_sensors(board: Board) -> None:
    root = board("workstation")
    assert open_thermal_source("auto", None, VirtualClock(), sysfs=root).name == f"sysfs at {root}"


def test_a_trace_is_never_silently_ignored(board: Board, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='only played by "replay"'):
        open_thermal_source("auto", tmp_path / "trace.jsonl", VirtualClock(), sysfs=board("workstation"))
    with pytest.raises(ConfigError, match="name one"):
        open_thermal_source("replay", None, VirtualClock())
