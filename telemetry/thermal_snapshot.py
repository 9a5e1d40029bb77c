"""The newest thermal state, for any thread to read without a lock."""

from __future__ import annotations

from messages import NS_PER_S, Clock, TelemetryUnavailableError, ThermalState
from telemetry.throttle import stale_after_ns, unseen

_FOR_EVER_NS = 2**63


class ThermalSnapshot:
    """One writer publishes, everyone reads: one reference is swapped, so a reader never waits and never sees a mix.

    A state older than `stale_after_ns` counts as lost, so readers are safe even where the writer itself is dead.
    """

    def __init__(self, clock: Clock, stale_after_ns: int = stale_after_ns()) -> None:
        self._now_ns = clock.monotonic_ns
        self._stale_after_ns = stale_after_ns
        self.publish(ThermalState(source_lost=True))

    def publish(self, state: ThermalState) -> None:
        # With the end of its time, so that a read is one comparison. What is lost does not become more so.
        self._newest = (state, _FOR_EVER_NS if state.source_lost else state.measured_at + self._stale_after_ns)

    def thermal_state(self) -> ThermalState:
        """The newest sample. Raises TelemetryUnavailableError where there is none, or none that is fresh."""
        state, fresh_until_ns = self._newest
        if state.source_lost:
            raise TelemetryUnavailableError("thermal telemetry is lost: there is no fresh sample of the board")
        now_ns = self._now_ns()
        if now_ns > fresh_until_ns:
            raise TelemetryUnavailableError(
                f"thermal telemetry is stale: expected a sample within {self._stale_after_ns / NS_PER_S:g} s, "
                f"the newest is {(now_ns - state.measured_at) / NS_PER_S:.1f} s old"
            )
        return state

    def peek(self) -> ThermalState:
        """The newest sample, or a state that says `source_lost` and claims no throttle. Never raises."""
        state, fresh_until_ns = self._newest
        return state if self._now_ns() <= fresh_until_ns else unseen(state)
