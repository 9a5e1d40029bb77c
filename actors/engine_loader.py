"""Who holds which engine: the first one to ask has it loaded, the last one to let go has it stopped."""

from __future__ import annotations

from collections.abc import Mapping

from messages import EngineDeserializeError
from runtimes import EngineCacheEntry


class EngineLoader:
    """One per supervision. Thread-safe."""

    def __init__(self, flight: Mapping[str, EngineCacheEntry]) -> None:
        self._flight = flight

    def hold(self, entry: EngineCacheEntry) -> None:
        known = self._flight.get(entry.model)
        if known != entry:
            raise EngineDeserializeError(f"{entry.model}: not an engine of this flight")

    def let_go(self, entry: EngineCacheEntry) -> None:
        pass
