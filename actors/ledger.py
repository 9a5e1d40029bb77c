"""The count of what was asked and what became of it: submitted = completed + rejected + still open."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from actors.durations import BOUNDS_NS, DurationCounts, DurationHistogram
from messages import EngineLoaded, FaultClass, Infer, InferCompleted, Outcome, RejectReason

if TYPE_CHECKING:
    from actors.pending import Pending

UNKNOWN_MODEL = "(unknown model)"
"""One row for every name that is not flown, so that a flood of wrong names cannot grow the ledger."""

Observer = Callable[[Infer | Outcome], None]
"""Sees each request at admission and each outcome at settlement, on the thread that caused it. It never blocks and
never raises: a flight recorder's `record`."""


class ModelTally(msgspec.Struct, frozen=True):
    """One model's counts."""

    submitted: int = 0
    completed: int = 0
    rejected: dict[RejectReason, int] = {}

    @property
    def open(self) -> int:
        """Requests that have no outcome yet."""
        return self.submitted - self.completed - sum(self.rejected.values())


class ModelStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What one model has done in this life of the process.

    `queue` and `run` are of the completed requests, so a run that ended past its deadline is in `tally` alone.
    `generation` is that of the newest engine that loaded, 0 before the first; `restarts` are the loads after it.
    `undelivered` are outcomes, counted in `tally` too, that the actor they were to be sent to did not take. `faults`
    are what its engines did wrong, by class; a class that never came up is left out.
    """

    tally: ModelTally
    queue: DurationHistogram
    run: DurationHistogram
    generation: int = 0
    restarts: int = 0
    undelivered: int = 0
    faults: dict[FaultClass, int] = {}


class _Counts:
    __slots__ = (
        "completed",
        "faults",
        "generation",
        "queue",
        "rejected",
        "restarts",
        "run",
        "submitted",
        "undelivered",
    )

    def __init__(self) -> None:
        self.submitted = 0
        self.completed = 0
        self.rejected: dict[RejectReason, int] = {}
        self.queue = DurationCounts()
        self.run = DurationCounts()
        self.generation = 0
        self.restarts = 0
        self.undelivered = 0
        self.faults: dict[FaultClass, int] = {}

    def tally(self) -> ModelTally:
        return ModelTally(self.submitted, self.completed, dict(self.rejected))

    def statistics(self) -> ModelStatistics:
        return ModelStatistics(
            tally=self.tally(),
            queue=self.queue.histogram(),
            run=self.run.histogram(),
            generation=self.generation,
            restarts=self.restarts,
            undelivered=self.undelivered,
            faults=dict(self.faults),
        )


class Ledger:
    """Counts each request once when it is submitted and once when it is settled. Thread-safe."""

    def __init__(self, models: Iterable[str], observe: Observer | None = None) -> None:
        self._lock = threading.Lock()
        self._counts = {model: _Counts() for model in (*models, UNKNOWN_MODEL)}
        self._unknown = self._counts[UNKNOWN_MODEL]
        self._observe = observe

    def count_submitted(self, pending: Pending, request: Infer) -> None:
        counts = self._counts.get(request.model) or self._unknown
        with self._lock:
            # Count and mark in one statement each: a Ctrl-C on the consumer's thread finds both done or neither.
            counts.submitted, pending.open_in_ledger = counts.submitted + 1, True
        if self._observe is not None:
            self._observe(request)

    def count_settled(self, pending: Pending, outcome: Outcome) -> None:
        counts = self._counts.get(outcome.model) or self._unknown
        with self._lock:
            if type(outcome) is InferCompleted:
                counts.completed, pending.open_in_ledger = counts.completed + 1, False
                # Without a call: every round trip pays for this (`make bench`).
                queue, run, queued_ns, run_ns = counts.queue, counts.run, outcome.queued_ns, outcome.run_ns
                queue.counts[bisect_left(BOUNDS_NS, queued_ns)] += 1
                run.counts[bisect_left(BOUNDS_NS, run_ns)] += 1
                if queued_ns > queue.max_ns:
                    queue.max_ns = queued_ns
                if run_ns > run.max_ns:
                    run.max_ns = run_ns
            else:
                reason = outcome.reason  # type: ignore[union-attr]  # the other member of the union
                count = counts.rejected.get(reason, 0)
                counts.rejected[reason], pending.open_in_ledger = count + 1, False
        if self._observe is not None:
            self._observe(outcome)

    def count_undelivered(self, outcome: Outcome) -> None:
        """The actor to which this outcome was sent did not take it."""
        counts = self._counts.get(outcome.model) or self._unknown
        with self._lock:
            counts.undelivered += 1

    def count_fault(self, model: str, fault: FaultClass) -> None:
        """An engine of this model did something wrong. Raises KeyError for a model that is not flown."""
        counts = self._counts[model]
        with self._lock:
            counts.faults[fault] = counts.faults.get(fault, 0) + 1

    def count_loaded(self, loaded: EngineLoaded) -> None:
        """An engine answers. Raises KeyError for a model that is not flown."""
        counts = self._counts[loaded.model]
        with self._lock:
            counts.restarts += counts.generation > 0
            counts.generation = loaded.generation

    def tallies(self) -> dict[str, ModelTally]:
        """A consistent copy of all rows; the row for unknown models only where there is one to show."""
        with self._lock:
            return {model: counts.tally() for model, counts in self._shown()}

    def statistics(self) -> dict[str, ModelStatistics]:
        """All that is known of each model, consistent at one instant; rows as in `tallies`."""
        with self._lock:
            return {model: counts.statistics() for model, counts in self._shown()}

    def _shown(self) -> Iterator[tuple[str, _Counts]]:
        return ((name, row) for name, row in self._counts.items() if name != UNKNOWN_MODEL or row.submitted)
