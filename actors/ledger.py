"""The count of what was asked and what became of it: submitted = completed + rejected + still open."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from actors.durations import BOUNDS_NS, DurationCounts, DurationHistogram
from messages import EngineLoaded, FaultClass, Infer, Outcome, RejectReason

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

    `queue` and `run` are of the runs that returned outputs, also where those came too late for anybody.
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


class ModelCounts:
    """One model's row while the ledger counts it, under the ledger's lock."""

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

    def count_run(self, queued_ns: int, run_ns: int) -> None:
        # Without a call for each: every round trip pays for this (`make bench`).
        queue, run = self.queue, self.run
        queue.counts[bisect_left(BOUNDS_NS, queued_ns)] += 1
        run.counts[bisect_left(BOUNDS_NS, run_ns)] += 1
        if queued_ns > queue.max_ns:
            queue.max_ns = queued_ns
        if run_ns > run.max_ns:
            run.max_ns = run_ns

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
    """Counts each request once when it is submitted and once when it is settled. Thread-safe.

    A `Pending` counts its own outcome in its row: who was first and what is counted are one decision under one lock.
    """

    def __init__(self, models: Iterable[str], observe: Observer | None = None) -> None:
        self.lock = threading.Lock()
        """Held for a moment by whoever counts or settles; nothing is called while it is held."""
        self.observe = observe
        self._counts = {model: ModelCounts() for model in (*models, UNKNOWN_MODEL)}
        self._unknown = self._counts[UNKNOWN_MODEL]

    def add(self, model: str) -> None:
        """A row for this model from here on; the one that it has goes on counting."""
        with self.lock:
            self._counts.setdefault(model, ModelCounts())

    def count_submitted(self, pending: Pending, request: Infer) -> None:
        counts = self._counts.get(request.model) or self._unknown
        with self.lock:
            # Count and mark in one statement: a Ctrl-C on the consumer's thread finds both done or neither.
            counts.submitted, pending.counts = counts.submitted + 1, counts
        if self.observe is not None:
            self.observe(request)

    def count_undelivered(self, outcome: Outcome) -> None:
        """The actor to which this outcome was sent did not take it."""
        counts = self._counts.get(outcome.model) or self._unknown
        with self.lock:
            counts.undelivered += 1

    def count_fault(self, model: str, fault: FaultClass) -> None:
        """An engine of this model did something wrong. Raises KeyError for a model that is not flown."""
        counts = self._counts[model]
        with self.lock:
            counts.faults[fault] = counts.faults.get(fault, 0) + 1

    def count_loaded(self, loaded: EngineLoaded) -> None:
        """An engine answers. Raises KeyError for a model that is not flown."""
        counts = self._counts[loaded.model]
        with self.lock:
            counts.restarts += counts.generation > 0
            counts.generation = loaded.generation

    def tallies(self) -> dict[str, ModelTally]:
        """A consistent copy of all rows; the row for unknown models only where there is one to show."""
        with self.lock:
            return {model: counts.tally() for model, counts in self._shown()}

    def statistics(self) -> dict[str, ModelStatistics]:
        """All that is known of each model, consistent at one instant; rows as in `tallies`."""
        with self.lock:
            return {model: counts.statistics() for model, counts in self._shown()}

    def _shown(self) -> Iterator[tuple[str, ModelCounts]]:
        return ((name, row) for name, row in self._counts.items() if name != UNKNOWN_MODEL or row.submitted)
