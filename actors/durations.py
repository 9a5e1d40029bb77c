"""How long things took, in fixed memory: counts in buckets whose bounds grow by the square root of two."""

from __future__ import annotations

from bisect import bisect_left

import msgspec

BOUNDS_NS: tuple[int, ...] = tuple(round(50_000 * 2 ** (step / 2)) for step in range(42))
"""Upper bounds, each its bucket's own: 50 µs, 71 µs, 100 µs, ... 74 s. One more bucket holds what is longer."""


class DurationHistogram(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in nanoseconds, counted by bucket of `BOUNDS_NS`; `max_ns` is exact, 0 where nothing was measured."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS_NS) + 1)
    max_ns: int = 0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile_ns(self, share: float) -> int | None:
        """The duration that `share` (above 0, at most 1) of all did not exceed, by nearest rank; None without any.

        Its bucket's upper bound, so never too low; too high by a factor of at most the square root of two (41 %).
        Below 50 µs the bound is 50 µs, beyond 74 s it is the maximum, and it is never above the maximum. Raises
        ValueError for another `share`.
        """
        if not 0.0 < share <= 1.0:
            raise ValueError(f"expected a share above 0 and at most 1, got {share!r}")
        total = self.count
        reached = 0
        for bound_ns, count in zip((*BOUNDS_NS, self.max_ns), self.counts, strict=True):
            reached += count
            if count and reached >= share * total:
                return min(bound_ns, self.max_ns)
        return None


class DurationCounts:
    """The same, while it is counted. Not thread-safe: its owner's lock holds."""

    __slots__ = ("_counts", "_max_ns")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_NS) + 1)
        self._max_ns = 0

    def add(self, duration_ns: int) -> None:
        self._counts[bisect_left(BOUNDS_NS, duration_ns)] += 1
        if duration_ns > self._max_ns:
            self._max_ns = duration_ns

    def histogram(self) -> DurationHistogram:
        return DurationHistogram(counts=tuple(self._counts), max_ns=self._max_ns)
