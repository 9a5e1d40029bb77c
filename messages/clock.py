"""The one clock that decisions read: CLOCK_MONOTONIC nanoseconds.

The wall clock of a Jetson without battery wakes in 1970 and jumps when GNSS time arrives, so deadlines,
staleness and back-off never read it.
"""

from __future__ import annotations

import time
from typing import Protocol

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


class Clock(Protocol):
    """Anything that tells monotonic time in nanoseconds; callable from any thread."""

    def monotonic_ns(self) -> int: ...


class MonotonicClock:
    """The operating system's CLOCK_MONOTONIC. Equal in all processes of one boot, so recordings can be compared."""

    __slots__ = ()

    monotonic_ns = staticmethod(time.monotonic_ns)


class VirtualClock:
    """A clock that moves only when told to: for tests. Not thread-safe; one test thread advances it."""

    def __init__(self, start_ns: int = NS_PER_S) -> None:
        self._now_ns = start_ns

    def monotonic_ns(self) -> int:
        return self._now_ns

    def advance_ns(self, duration_ns: int) -> int:
        """Move forward and return the new time. Raises ValueError for a negative duration: time never goes back."""
        if duration_ns < 0:
            raise ValueError(f"duration_ns must be >= 0, got {duration_ns}")
        self._now_ns += duration_ns
        return self._now_ns

    def advance_ms(self, duration_ms: float) -> int:
        return self.advance_ns(round(duration_ms * NS_PER_MS))
