"""All guards, in the order of the guarantees."""

from __future__ import annotations

from tests.guards import (
    components,
    consumers,
    ends,
    faults,
    hangs,
    holders,
    outcomes,
    queues,
    starts,
    tensorrt_builds,
    tensorrt_runs,
)

GUARDS = (
    *outcomes.GUARDS,
    *queues.GUARDS,
    *consumers.GUARDS,
    *faults.GUARDS,
    *starts.GUARDS,
    *hangs.GUARDS,
    *ends.GUARDS,
    *holders.GUARDS,
    *components.GUARDS,
    *tensorrt_builds.GUARDS,
    *tensorrt_runs.GUARDS,
)
