"""The board's heat in a stepped test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from actors.stepped import SteppedWorld, stepped
from actors.stepped_scheduling import SteppedWorldError
from messages import (
    Message,
    TelemetryLost,
    TelemetryUnavailableError,
    ThermalTransition,
    ThrottleEntered,
    ThrottleLeft,
)
from runtimes import (
    FakeRuntime,
    returns,
)
from telemetry import ThermalReading

MATCHES = {"matches": np.ones(3, np.float32)}


def kinds(world: SteppedWorld, *of: type[Message]) -> list[type[Message]]:
    return [type(message) for message in world.messages if isinstance(message, of)]


COOL = ThermalReading(cpu_temp_c=60.0, gpu_temp_c=61.0, gpu_clock_mhz=1020)


class Scripted:
    """Gives one reading after the other, the last one for ever, or raises."""

    name = "scripted"

    def __init__(self, *readings: ThermalReading | TelemetryUnavailableError) -> None:
        self._readings = list(readings)

    def read(self) -> ThermalReading:
        reading = self._readings.pop(0) if len(self._readings) > 1 else self._readings[0]
        if isinstance(reading, TelemetryUnavailableError):
            raise reading
        return reading


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.jsonl"
    path.write_text(
        '{"at_s": 0, "gpu_temp_c": 63.0, "gpu_clock_mhz": 1020}\n'
        '{"at_s": 4, "gpu_temp_c": 99.5, "gpu_clock_mhz": 612, "throttled_by": ["gpu-throttle-alert"]}\n'
        '{"at_s": 8, "gpu_temp_c": 70.0, "gpu_clock_mhz": 1020}\n'
    )
    return path


def test_a_trace_is_replayed_on_the_worlds_clock(trace: Path) -> None:
    with stepped(FakeRuntime({"vpr": returns(MATCHES)}), thermal=trace) as world, world.client.thermal_feed() as feed:
        world.advance_ms(3000)
        assert not world.client.thermal_state().thermal_throttle_active
        assert isinstance(next(feed), ThrottleEntered)
        assert world.client.thermal_state().gpu_temp_c == 99.5
        assert isinstance(next(feed), ThrottleLeft)
        assert kinds(world, ThrottleEntered, ThrottleLeft) == [ThrottleEntered, ThrottleLeft]


def test_telemetry_can_be_lost(trace: Path) -> None:
    source = Scripted(COOL, TelemetryUnavailableError("no such zone"))
    with stepped(FakeRuntime({"vpr": returns(MATCHES)}), thermal=source) as world:
        world.run_until_idle()
        assert not world.client.thermal_state().source_lost
        world.advance_ms(10_000)
        assert world.client.thermal_state().source_lost
        assert kinds(world, TelemetryLost) == [TelemetryLost]


def test_a_feed_ends_with_the_world(trace: Path) -> None:
    with stepped(FakeRuntime({"vpr": returns(MATCHES)}), thermal=trace) as world:
        feed = world.client.thermal_feed()
        world.advance_ms(5000)
    seen: list[ThermalTransition] = list(feed)
    assert [type(transition) for transition in seen] == [ThrottleEntered]


def test_waiting_for_a_transition_that_never_comes_is_an_error_and_no_hang() -> None:
    fake = FakeRuntime({"vpr": returns(MATCHES)})
    with (
        stepped(fake, thermal=Scripted(COOL)) as world,
        world.client.thermal_feed() as feed,
        pytest.raises(SteppedWorldError, match="found it waiting for 3600 s of virtual time"),
    ):
        next(feed)
