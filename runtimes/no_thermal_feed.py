"""What a runtime reads its thermal state from where nobody gave it a feed."""

from __future__ import annotations

from messages import TelemetryUnavailableError, ThermalState


class NoThermalFeed:
    """A `ThermalFeed` that never has a sample."""

    def thermal_state(self) -> ThermalState:
        raise TelemetryUnavailableError("this runtime was built without a thermal feed; give it one at construction")
