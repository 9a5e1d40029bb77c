"""One request and its one outcome: whoever settles first wins, and only the winner counts.

A standard-library future costs 1.6 KB and a pykka future delivers after its timeout; this one costs two locks and
refuses whatever comes late.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from actors.ledger import Ledger
from actors.scheduling import Signal
from actors.supervised import refuse_to_block
from messages import NS_PER_S, Clock, Infer, InferRejected, Outcome, RejectReason

Listener = Callable[[Outcome], None]
"""Told an outcome on the thread that settled it, perhaps an engine's: it never blocks and never raises."""


class Pending:
    """The promise of one outcome. Thread-safe; made by the routes, never by a consumer."""

    __slots__ = (
        "__weakref__",
        "_clock",
        "_ledger",
        "_listener",
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

    def __init__(
        self, request: Infer, ledger: Ledger, clock: Clock, new_signal: Callable[[], Signal] = threading.Lock
    ) -> None:
        self.consumer = request.consumer
        self.frame_id = request.frame_id
        self.deadline_ns = request.deadline_ns
        self.submitted_ns = clock.monotonic_ns()
        self._clock = clock
        self._ledger = ledger
        self._request: Infer | None = request
        self._outcome: Outcome | None = None
        self._listener: Listener | None = None
        self._running = False
        self._lock = threading.Lock()
        self._settled = new_signal()
        self._settled.acquire()
        self.open_in_ledger = False
        """Written by the ledger under its lock."""

    @property
    def done(self) -> bool:
        """True once the outcome is there; `result()` then returns at once."""
        return self._outcome is not None

    def result(self) -> Outcome:
        """Wait for the outcome, at most until the deadline; then the request is rejected as `expired`.

        Raises BlockingCallError where it would have to wait on the thread of one of our own actors.
        """
        if self._outcome is None:
            refuse_to_block("Pending.result()")
        return self.await_outcome()

    def await_outcome(self) -> Outcome:
        """As `result`, for a caller that has asked `refuse_to_block` before it submitted."""
        if self._outcome is None:
            remaining_s = (self.deadline_ns - self._clock.monotonic_ns()) / NS_PER_S
            if self._settled.acquire(timeout=max(0.0, remaining_s)):
                self._settled.release()
            else:
                self.expire()
        outcome = self._outcome
        assert outcome is not None  # noqa: S101  # either this thread settled it or another one had
        return outcome

    def cancel(self) -> bool:
        """Give the request up. False where the outcome was already there."""
        return self.reject("cancelled")

    def expire(self) -> bool:
        """The deadline has passed. False where the outcome was already there."""
        return self.reject("expired", "no outcome before the deadline")

    def listen(self, listener: Listener) -> None:
        """Have `listener` told the outcome once; at once, on this thread, where it is already there.

        Raises RuntimeError where somebody listens already.
        """
        with self._lock:
            if self._listener is not None:
                raise RuntimeError("expected nobody to listen for this outcome yet, found a listener")
            self._listener = listener
        if self._outcome is not None:
            self._tell_listener()

    def settle(self, outcome: Outcome) -> bool:
        """Give the request its outcome. False where it already has one: then this one is dropped uncounted."""
        with self._lock:
            won = self._settle(outcome)
        if self._listener is not None:
            self._tell_listener()
        return won

    def reject(self, reason: RejectReason, detail: str = "") -> bool:
        """Settle with a rejection, which says whether an engine may still be reading the inputs."""
        with self._lock:
            request = self._request
            won = request is not None and self._settle(
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
        if self._listener is not None:
            self._tell_listener()
        return won

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

    def _tell_listener(self) -> None:
        # Outside the lock: what listens may ask this object. Whoever takes it out under the lock is the one who tells.
        with self._lock:
            listener, self._listener = self._listener, None
            outcome = self._outcome
        if listener is not None and outcome is not None:
            listener(outcome)
