"""C4: how the pose's covariance is computed, by how hot the board is (D-CROSS-LATENCY-1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from loguru import logger

from messages import NS_PER_S, TelemetryUnavailableError, ThermalState
from runtimes import InferenceRuntime

if TYPE_CHECKING:
    from actors.consumer import Frame

CovarianceMode = Literal["steady_state", "throttled"]
READ_EVERY_NS: Final = NS_PER_S
"""The board is sampled once a second: asking more often shows nothing new."""


def covariance_mode(state: ThermalState) -> CovarianceMode:
    """Pure. Throttled only where a throttle is seen: what is not known of the heat leaves the steady path in force."""
    return "throttled" if state.thermal_throttle_active and not state.source_lost else "steady_state"


class PoseEstimation:
    """Reads the thermal state at most once a second of frame time (`captured_ns`), and nothing else of C7.

    It stays on the steady path where telemetry is lost or unavailable, and where there is no C7 (None, in a replay).
    """

    def __init__(self, c7_inference: InferenceRuntime | None) -> None:
        self._runtime = c7_inference
        self._read_at_ns: int | None = None
        self.covariance_mode: CovarianceMode = "steady_state"

    def on_frame(self, frame: Frame) -> str | None:
        """None in both modes: a frame under throttle is a good frame, computed another way. The switch is logged."""
        since_ns = None if self._read_at_ns is None else frame.captured_ns - self._read_at_ns
        if since_ns is not None and 0 <= since_ns < READ_EVERY_NS:
            return None
        self._read_at_ns = frame.captured_ns
        state = self._thermal_state()
        mode = covariance_mode(state)
        if mode != self.covariance_mode:
            self.covariance_mode = mode
            logger.info(
                "C4 covariance={} frame={} gpu_temp_c={} source_lost={}",
                mode,
                frame.frame_id,
                state.gpu_temp_c,
                state.source_lost,
            )
        return None

    def _thermal_state(self) -> ThermalState:
        if self._runtime is None:
            return ThermalState(source_lost=True)
        try:
            return self._runtime.thermal_state()
        except TelemetryUnavailableError:
            return ThermalState(source_lost=True)
