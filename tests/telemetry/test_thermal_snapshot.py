"""The snapshot: fresh, stale, lost and never measured."""

from __future__ import annotations

import pytest

from messages import TelemetryUnavailableError, ThermalState, VirtualClock
from telemetry import ThermalSnapshot


def test_a_fresh_state_is_handed_out_as_it_was_published() -> None:
    clock = VirtualClock()
    snapshot = ThermalSnapshot(clock)
    state = ThermalState(gpu_temp_c=60, thermal_throttle_active=True, measured_at=clock.monotonic_ns())
    snapshot.publish(state)
    clock.advance_ms(2500)
    assert snapshot.thermal_state() is state
    assert snapshot.peek() is state


def test_a_stale_state_is_refused_and_claims_no_throttle() -> None:
    clock = VirtualClock()
    snapshot = ThermalSnapshot(clock)
    measured_at = clock.monotonic_ns()
    snapshot.publish(ThermalState(gpu_temp_c=60, thermal_throttle_active=True, measured_at=measured_at))
    clock.advance_ns(2_500_000_001)
    with pytest.raises(TelemetryUnavailableError, match=r"expected a sample within 2.5 s, the newest is 2.5 s old"):
        snapshot.thermal_state()
    assert snapshot.peek() == ThermalState(measured_at=measured_at, source_lost=True)


def test_a_lost_source_and_one_that_never_measured_are_refused() -> None:
    clock = VirtualClock()
    snapshot = ThermalSnapshot(clock)
    for state in (None, ThermalState(source_lost=True, measured_at=clock.monotonic_ns())):
        if state is not None:
            snapshot.publish(state)
        with pytest.raises(TelemetryUnavailableError, match="lost"):
            snapshot.thermal_state()
        assert snapshot.peek().source_lost
        assert not snapshot.peek().thermal_throttle_active
