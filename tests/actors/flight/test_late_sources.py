"""In the air a camera or a sensor that is not there yet is looked for again, and costs nothing but its own readings."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from loguru import logger

from actors.flight.frame_loop import FrameCounts, FrameLoop
from actors.flight.late_sources import LateFrameSource, LateThermalSource, open_frame_source, open_thermal
from actors.flight.surroundings import check_surroundings
from actors.stepped import stepped
from messages import (
    NS_PER_S,
    ConfigError,
    TelemetryLost,
    TelemetryRestored,
    TelemetryUnavailableError,
    VirtualClock,
)
from runtimes import FakeRuntime, read_flight_plan, returns
from runtimes.flight_plan import FramesSection, ThermalSection
from telemetry import SysfsThermalSource

WAIT_S = 10.0
CAMERA = """
import threading
from pathlib import Path
import numpy as np

class Camera:
    def __init__(self, *, device):
        if not Path(device).exists():
            raise OSError(19, "No such device")
        self.constructed_by = threading.current_thread().name
    def read(self, frame_id):
        return np.full((2, 2, 3), frame_id % 256, np.uint8)
"""
READING = {"at_s": 0.0, "cpu_temp_c": 61.0, "gpu_temp_c": 62.5, "gpu_clock_mhz": 1020, "throttled_by": []}


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    sys.modules.pop("late_camera", None)


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    handler = logger.add(lambda line: lines.append(str(line).rstrip()), format="{message}", level="INFO")
    yield lines
    logger.remove(handler)


def frames_of(folder: Path) -> FramesSection:
    return FramesSection(source="late_camera:Camera", options={"device": str(folder / "video0")})


def test_at_a_takeoff_a_source_that_is_not_there_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"\[frames\] source: late_camera cannot be imported"):
        open_frame_source(frames_of(tmp_path), in_the_air=False)
    (tmp_path / "late_camera.py").write_text(CAMERA)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"\[frames\] source: .*Camera cannot be constructed: .* No such device"):
        open_frame_source(frames_of(tmp_path), in_the_air=False)
    section = ThermalSection(source="replay", trace=tmp_path / "heat.jsonl")
    with pytest.raises(ConfigError, match=r"heat\.jsonl"):
        open_thermal(section, VirtualClock(), in_the_air=False)


def test_a_module_a_device_and_a_camera_may_come_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """The folder of the module is not there when it is first looked for: Python remembers that."""
    mounted = tmp_path / "mounted"
    monkeypatch.syspath_prepend(mounted)
    source = LateFrameSource(frames_of(tmp_path))
    with pytest.raises(ConfigError, match="late_camera cannot be imported"):
        source.read(7)
    mounted.mkdir()
    (mounted / "late_camera.py").write_text(CAMERA)
    with pytest.raises(ConfigError, match="No such device"):
        source.read(8)
    (tmp_path / "video0").touch()
    assert source.read(9)[0, 0, 0] == 9
    (tmp_path / "video0").unlink()
    assert source.read(10)[0, 0, 0] == 10, "what is there is not constructed again"
    assert said == ["C7 frame source constructed; frame=9"]


def test_the_frame_thread_looks_at_each_frame_and_its_failure_is_one_line_in_ten_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    (tmp_path / "late_camera.py").write_text(CAMERA)
    monkeypatch.syspath_prepend(tmp_path)
    clock = VirtualClock()
    frame_ids = iter(range(1, 61))
    ended = threading.Event()

    def wait_for_the_next_frame(left_s: float) -> bool:
        clock.advance_ns(round(left_s * NS_PER_S))
        frame_id = next(frame_ids)
        if frame_id == 45:
            (tmp_path / "video0").touch()
        if frame_id == 60:
            ended.set()
        return ended.is_set()

    source = open_frame_source(frames_of(tmp_path), in_the_air=True)
    loop = FrameLoop(source, {}, 3.0, clock, lambda _: None, wait=wait_for_the_next_frame)
    loop.start()
    assert ended.wait(WAIT_S)
    assert loop.stop(WAIT_S) == ()
    assert loop.counts == FrameCounts(read=15, failed=45, skipped=0, missed={})
    failures = [line for line in said if line.startswith("C7 frame source failed")]
    assert [line.rpartition("held_back=")[2] for line in failures] == ["0", "30"]
    assert said[-1] == "C7 frame source constructed; frame=45"
    assert vars(vars(source)["_source"])["constructed_by"] == "c7-frames"


def test_a_thermal_source_that_comes_late_is_telemetry_that_was_lost_and_is_restored(tmp_path: Path) -> None:
    trace = tmp_path / "heat.jsonl"
    clock = VirtualClock()
    source = open_thermal(ThermalSection(source="replay", trace=trace), clock, in_the_air=True)
    assert isinstance(source, LateThermalSource)
    fake = FakeRuntime({"vpr": returns({"y": np.zeros(1, np.float32)})})
    with stepped(fake, thermal=source, clock=clock) as world:
        world.advance_ms(60_000)
        assert world.client.thermal_state().source_lost
        trace.write_text(json.dumps(READING) + "\n")
        world.advance_ms(2_000)
        state = world.client.thermal_state()
        told = [message for message in world.messages if isinstance(message, TelemetryLost | TelemetryRestored)]
    assert (state.source_lost, state.gpu_temp_c) == (False, 62.5)
    assert [type(message) for message in told] == [TelemetryLost, TelemetryRestored], "said once, not at each sample"
    assert isinstance(told[0], TelemetryLost)
    assert "[thermal] source replay failed: thermal trace" in told[0].detail
    assert "heat.jsonl: cannot be read: No such file" in told[0].detail


def test_in_the_air_the_boards_own_sensors_are_looked_for_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_thermal(ThermalSection(), VirtualClock(), in_the_air=True) == "auto"

    def no_sensors(*_: object) -> SysfsThermalSource:
        raise TelemetryUnavailableError("no thermal zone")

    monkeypatch.setattr("actors.flight.late_sources.open_thermal_source", no_sensors)
    late = open_thermal(ThermalSection(source="sysfs"), VirtualClock(), in_the_air=True)
    assert isinstance(late, LateThermalSource)
    with pytest.raises(TelemetryUnavailableError, match="no thermal zone"):
        late.read()


def test_in_the_air_what_is_not_there_is_no_reason_to_stay_down(tmp_path: Path) -> None:
    (tmp_path / "flight.toml").write_text(
        '[flight]\nname = "test"\n[runtime]\nruntime = "onnx_trt_ep"\nprovider = "cpu"\n'
        '[models.vpr]\nsource = "vpr.onnx"\nprecision = "fp32"\ndeadline_ms = 200\n'
        '[frames]\nsource = "late_camera:Camera"\n[thermal]\nsource = "replay"\ntrace = "none.jsonl"\n'
    )
    plan = read_flight_plan(tmp_path / "flight.toml")
    check_surroundings(plan, VirtualClock(), in_the_air=True)
    with pytest.raises(ConfigError, match=r"\[frames\] source: late_camera cannot be imported"):
        check_surroundings(plan, VirtualClock())
