"""A component that changes how it computes when the board throttles, told by a feed instead of asking each frame.

    python examples/thermal_subscription.py examples/throttle.jsonl

A recorded trace stands for the board's sensors, which `thermal="auto"` would read once a second. No engine is needed.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from actors import supervise
from messages import (
    C7Error,
    MonotonicClock,
    TelemetryLost,
    TelemetryRestored,
    ThermalTransition,
    ThrottleEntered,
    ThrottleLeft,
)
from runtimes import FakeRuntime
from telemetry import ReplayThermalSource

FLIGHT_S = 4.0


def covariance(transition: ThermalTransition) -> str:
    """Nobody knows how hot a board is that is out of sight: no reason to compute with less."""
    match transition:
        case ThrottleEntered(state=state):
            return f"fast: throttled at {state.gpu_temp_c:g} degrees, {state.measured_clock_mhz} MHz"
        case ThrottleLeft(lasted_ns=lasted_ns):
            return f"steady: the throttle is over after {lasted_ns / 1e9:.1f} s"
        case TelemetryLost():
            return "steady: telemetry is lost"
        case TelemetryRestored():
            return "as before: telemetry is back"


def main(trace: Path) -> int:
    source = ReplayThermalSource(trace, MonotonicClock())
    with supervise(FakeRuntime({}), None, thermal=source, period_s=0.2) as c7, c7.thermal_feed() as feed:
        landing = threading.Timer(FLIGHT_S, feed.close)  # from any thread: it ends the loop
        landing.daemon = True
        landing.start()
        for transition in feed:  # waits for the next one; of 32 that nobody took the oldest goes
            print("covariance", covariance(transition))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])) if len(sys.argv) == 2 else __doc__)
    except C7Error as refusal:
        sys.exit(f"refused: {refusal}")
