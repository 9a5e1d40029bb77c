"""One request and its one outcome: whoever settles first wins, and only the winner counts.

A standard-library future costs 1.6 KB and a pykka future delivers after its timeout; this one costs two locks and
refuses whatever comes late.
"""

from __future__ import annotations

import threading

from actors.ledger import Ledger
from messages import NS_PER_S, Clock, Infer, InferRejected, Outcome, RejectReason


class Pending:
    """The promise of one outcome. Thread-safe; made by the routes, never by a consumer."""

    __slots__ = (
        "__weakref__",
        "_clock",
        "_ledger",
        "_lock",
        "_outcome",
        "_request",
        "_running",
        "_settled",
        "consumer",
        "deadline_ns",
        "frame_id",
        "open_in_ledger",
        "submitted_ns",
    )

    def __init__(self, request: Infer, ledger: Ledger, clock: Clock) -> None:
        self.consumer = request.consumer
        self.frame_id = request.frame_id
        self.deadline_ns = request.deadline_ns
        self.submitted_ns = clock.monotonic_ns()
        self._clock = clock
        self._ledger = ledger
        self._request: Infer | None = request
        self._outcome: Outcome | None = None
        self._running = False
        self._lock = threading.Lock()
        self._settled = threading.Lock()
        self._settled.acquire()
        self.open_in_ledger = False
        """Written by the ledger under its lock."""

    @property
    def done(self) -> bool:
        """True once the outcome is there; `result()` then returns at once."""
        return self._outcome is not None

    def result(self) -> Outcome:
        """Wait for the outcome, at most until the deadline; then the request is rejected as `expired`."""
        if self._outcome is None:
            remaining_s = (self.deadline_ns - self._clock.monotonic_ns()) / NS_PER_S
            if self._settled.acquire(timeout=max(0.0, remaining_s)):
                self._settled.release()
            else:
                self.reject("expired", "no outcome before the deadline")
        outcome = self._outcome
        assert outcome is not None  # noqa: S101  # either this thread settled it or another one had
        return outcome

    def cancel(self) -> bool:
        """Give the request up. False where the outcome was already there."""
        return self.reject("cancelled")

    def settle(self, outcome: Outcome) -> bool:
        """Give the request its outcome. False where it already has one: then this one is dropped uncounted."""
        with self._lock:
            return self._settle(outcome)

    def reject(self, reason: RejectReason, detail: str = "") -> bool:
        """Settle with a rejection, which says whether an engine may still be reading the inputs."""
        with self._lock:
            request = self._request
            if request is None:
                return False
            return self._settle(
                InferRejected(
                    model=request.model,
                    consumer=request.consumer,
                    frame_id=request.frame_id,
                    request_id=request.request_id,
                    reason=reason,
                    detail=detail,
                    inputs_released=not self._running,
                )
            )

    def begin_run(self) -> Infer | None:
        """The engine starts to read the inputs. None where nobody waits for the result any more."""
        with self._lock:
            self._running = self._request is not None
            return self._request

    def end_run(self) -> None:
        """The engine has returned: it reads the inputs no longer."""
        self._running = False

    def _settle(self, outcome: Outcome) -> bool:
        # Counted before anyone can see the outcome, so that a consumer never knows more than the ledger. Where a Ctrl-C
        # on the consumer's thread ends this early, whoever settles next goes on from there.
        if self._outcome is not None:
            return False
        if self.open_in_ledger:
            self._ledger.count_settled(self, outcome)
        self._outcome = outcome
        self._request = None
        self._settled.release()
        return True
