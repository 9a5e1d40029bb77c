"""How long things took, in fixed memory: counts in buckets whose bounds grow by the square root of two."""

from __future__ import annotations

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
    """A histogram while the ledger counts it, under the ledger's lock."""

    __slots__ = ("counts", "max_ns")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_NS) + 1)
        self.max_ns = 0

    def histogram(self) -> DurationHistogram:
        return DurationHistogram(counts=tuple(self.counts), max_ns=self.max_ns)
