"""The count of what was asked and what became of it: submitted = completed + rejected + still open."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from messages import Infer, InferCompleted, Outcome, RejectReason

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


class _Counts:
    __slots__ = ("completed", "rejected", "submitted")

    def __init__(self) -> None:
        self.submitted = 0
        self.completed = 0
        self.rejected: dict[RejectReason, int] = {}


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
            else:
                reason = outcome.reason  # type: ignore[union-attr]  # the other member of the union
                count = counts.rejected.get(reason, 0)
                counts.rejected[reason], pending.open_in_ledger = count + 1, False
        if self._observe is not None:
            self._observe(outcome)

    def tallies(self) -> dict[str, ModelTally]:
        """A consistent copy of all rows; the row for unknown models only where there is one to show."""
        with self._lock:
            return {
                model: ModelTally(counts.submitted, counts.completed, dict(counts.rejected))
                for model, counts in self._counts.items()
                if model != UNKNOWN_MODEL or counts.submitted
            }
