"""Engines for a flight, compiled by a component of your own instead of `c7 provision`.

    python examples/provision.py FLIGHT.toml

Run it twice: the second time nothing is compiled. Change a source model: only that one is.
"""

from __future__ import annotations

import sys
from pathlib import Path

from messages import C7Error
from runtimes import FlightPlan, Generation, ProvisionProgress, provision, read_flight_plan


class CacheProvisioner:
    """Brings the engine store up to date with a flight plan, and says what it does while it does it."""

    def __init__(self, plan: FlightPlan) -> None:
        self._plan = plan

    def bring_up_to_date(self) -> Generation:
        """Blocks while models compile. Raises C7Error with the reason; what was committed before still flies then."""
        return provision(self._plan, progress=self._tell)

    def _tell(self, progress: ProvisionProgress) -> None:
        match progress.step:
            case "decided":
                print(f"{progress.model}: {progress.decision} ({progress.reason})")
            case "compiling":  # once a second
                print(f"{progress.model}: {progress.elapsed_ns / 1e9:.0f} s")
            case "failed" | "calibration_cache_refused":
                print(f"{progress.model}: {progress.reason}")


def main(path: Path) -> int:
    try:
        generation = CacheProvisioner(read_flight_plan(path)).bring_up_to_date()
    except C7Error as refusal:
        print("no takeoff:", refusal)
        return 1
    print(f"generation {generation.number}:", ", ".join(entry.path.name for entry in generation.entries.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])) if len(sys.argv) == 2 else __doc__)
