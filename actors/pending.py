"""One request and its one outcome: whoever settles first wins, and only the winner counts.

A standard-library future costs 1.6 KB and a pykka future delivers after its timeout; this one has no lock of its own,
because the ledger's says who was first, and refuses whatever comes late.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from loguru import logger

from actors.ledger import Ledger, ModelCounts
from actors.scheduling import Signal
from actors.supervised import refuse_to_block
from messages import (
    NS_PER_S,
    Clock,
    Infer,
    InferCompleted,
    InferRejected,
    Outcome,
    RejectReason,
    describe_error,
)
from messages.errors import DETAIL_MAX_CHARS

Listener = Callable[[Outcome], None]
"""Told an outcome on the thread that settled it, perhaps an engine's: it never blocks. What it raises is logged."""


class Pending:
    """The promise of one outcome. Thread-safe; made by the routes, never by a consumer."""

    __slots__ = (
        "__weakref__",
        "_clock",
        "_ledger",
        "_listener",
        "_new_signal",
        "_request",
        "_running",
        "_settled",
        "consumer",
        "counts",
        "deadline_ns",
        "frame_id",
        "outcome",
        "request_id",
        "submitted_ns",
    )

    def __init__(
        self,
        request: Infer,
        ledger: Ledger,
        clock: Clock,
        new_signal: Callable[[], Signal] = threading.Lock,
        listener: Listener | None = None,
    ) -> None:
        self.consumer = request.consumer
        self.frame_id = request.frame_id
        self.deadline_ns = request.deadline_ns
        self.request_id = request.request_id
        self.submitted_ns = clock.monotonic_ns()
        self._clock = clock
        self._ledger = ledger
        self._new_signal = new_signal
        self._listener = listener
        self._request: Infer | None = request
        self._running = False
        self._settled: Signal | None = None
        self.counts: ModelCounts | None = None
        """Where the ledger counts this request; written by it under its lock, None until it is counted."""
        self.outcome: Outcome | None = None
        """None until it is there; written once, under the ledger's lock."""

    @property
    def done(self) -> bool:
        """True once the outcome is there; `result()` then returns at once."""
        return self.outcome is not None

    def result(self) -> Outcome:
        """Wait for the outcome, at most until the deadline; then the request is rejected as `expired`.

        Raises BlockingCallError where it would have to wait on the thread of one of our own actors.
        """
        if self.outcome is None:
            refuse_to_block("Pending.result()")
        return self.await_outcome()

    def await_outcome(self) -> Outcome:
        """As `result`, for a caller that has asked `refuse_to_block` before it submitted."""
        if self.outcome is None:
            self._wait()
        outcome = self.outcome
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
        with self._ledger.lock:
            if self._listener is not None:
                raise RuntimeError("expected nobody to listen for this outcome yet, found a listener")
            self._listener = listener
        if self.outcome is not None:
            self._tell_listener(self.outcome)

    # An outcome is counted and seen in one statement: a consumer never knows more than the ledger, and a Ctrl-C on its
    # thread finds both done or neither.

    def settle(self, outcome: InferCompleted) -> bool:
        """Give the request its result. False where it already has an outcome: then this one is dropped, and only the
        run is counted.
        """
        with self._ledger.lock:
            counts = self.counts
            if self.outcome is None:
                if counts is None:
                    self.outcome, self._request = outcome, None
                else:
                    counts.completed, self.outcome, self._request = counts.completed + 1, outcome, None
                won = True
            else:
                won = False
            if counts is not None:
                counts.count_run(outcome.queued_ns, outcome.run_ns)
        if won:
            self._announce(outcome)
        return won

    def reject(self, reason: RejectReason, detail: str = "") -> bool:
        """Settle with a rejection, which says whether an engine may still be reading the inputs."""
        with self._ledger.lock:
            request = self._request
            if request is None:
                return False
            outcome = InferRejected(
                request.model,
                request.consumer,
                request.frame_id,
                request.request_id,
                reason,
                detail[:DETAIL_MAX_CHARS],
                not self._running,
            )
            if self.counts is None:
                self.outcome, self._request = outcome, None
            else:
                rejected = self.counts.rejected
                rejected[reason], self.outcome, self._request = rejected.get(reason, 0) + 1, outcome, None
        self._announce(outcome)
        return True

    def count_late_run(self, queued_ns: int, run_ns: int) -> None:
        """The engine has returned outputs past the deadline: nobody gets them, and it was a run all the same."""
        with self._ledger.lock:
            if self.counts is not None:
                self.counts.count_run(queued_ns, run_ns)

    def begin_run(self) -> Infer | None:
        """The engine starts to read the inputs. None where nobody waits for the result any more."""
        with self._ledger.lock:
            self._running = self._request is not None
            return self._request

    def end_run(self) -> None:
        """The engine has returned: it reads the inputs no longer."""
        self._running = False

    def _wait(self) -> None:
        # Made by whoever waits first: a request that was answered meanwhile, or that has a listener, needs no signal.
        signal = self._new_signal()
        signal.acquire()
        with self._ledger.lock:
            if self.outcome is not None:
                return
            if self._settled is None:
                self._settled = signal
            else:
                signal = self._settled
        remaining_s = (self.deadline_ns - self._clock.monotonic_ns()) / NS_PER_S
        if signal.acquire(timeout=max(0.0, remaining_s)):
            signal.release()  # for the next one who waits
        else:
            self.expire()

    def _announce(self, outcome: Outcome) -> None:
        observe = self._ledger.observe
        try:
            if observe is not None and self.counts is not None:
                observe(outcome)
        finally:
            if self._settled is not None:
                self._settled.release()
            if self._listener is not None:
                self._tell_listener(outcome)

    def _tell_listener(self, outcome: Outcome) -> None:
        # Outside the lock: what listens may ask this object. Whoever takes it out under the lock is the one who tells.
        with self._ledger.lock:
            listener, self._listener = self._listener, None
        if listener is None:
            return
        try:
            listener(outcome)
        except Exception as error:  # noqa: BLE001  # an engine's thread, or the supervisor's: others depend on it
            logger.error(
                "C7 listener failed; consumer={} backbone={} frame={}; {}",
                outcome.consumer,
                outcome.model,
                outcome.frame_id,
                describe_error(error),
            )
