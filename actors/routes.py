"""Where each model's requests go, published by the supervisor and applied in the caller's own thread.

Measured on one core against a ThreadPoolExecutor round trip (`make bench`): posting straight into the engine's mailbox
costs 0.73, a hop through the supervisor's own mailbox 1.7.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from actors.ledger import Ledger
from actors.mailbox import Mailbox, Refusal
from actors.pending import Listener, Pending
from actors.scheduling import THREADS, Scheduling
from messages import NS_PER_MS, Clock, Infer

WITHIN_MS_MAX = 600_000.0
"""No wait is longer than ten minutes, whatever a consumer asks for."""

Target = Mailbox | Refusal

_UNKNOWN = Refusal("unknown_model", "this model is not part of the flight")


class Routes:
    """An immutable table of model -> mailbox or refusal, replaced whole. One publisher, any number of readers."""

    def __init__(self, ledger: Ledger, clock: Clock, scheduling: Scheduling = THREADS) -> None:
        self._ledger = ledger
        self._clock = clock
        self._new_signal = scheduling.signal
        self._table: Mapping[str, Target] = MappingProxyType({})
        self.next_request_id: Callable[[], int] = itertools.count(1).__next__

    @property
    def clock(self) -> Clock:
        return self._clock

    @property
    def ledger(self) -> Ledger:
        return self._ledger

    def publish(self, targets: Mapping[str, Target]) -> None:
        """Replace the targets of these models; the others stay."""
        self._table = MappingProxyType({**self._table, **targets})

    def withdraw(self, model: str) -> None:
        """This model is not part of the flight any more."""
        self._table = MappingProxyType({known: target for known, target in self._table.items() if known != model})

    def submit_made(self, request: Infer) -> Pending:
        """As `submit`, of a request that a consumer made itself: its deadline is ten minutes away at most, and a
        `request_id` of 0 is replaced.
        """
        latest_ns = self._clock.monotonic_ns() + round(WITHIN_MS_MAX * NS_PER_MS)
        if request.deadline_ns > latest_ns:
            request = msgspec.structs.replace(request, deadline_ns=latest_ns)
        if request.request_id == 0:
            request = msgspec.structs.replace(request, request_id=self.next_request_id())
        return self.submit(request)

    def submit(self, request: Infer, listener: Listener | None = None) -> Pending:
        """Accept the request into its engine's mailbox or reject it at once. Never blocks.

        `listener` is told the outcome, whatever ends the request, an interrupt of this call included.
        """
        pending = Pending(request, self._ledger, self._clock, self._new_signal, listener)
        try:
            self._ledger.count_submitted(pending, request)
            target = self._table.get(request.model, _UNKNOWN)
            refusal = target.offer(pending) if isinstance(target, Mailbox) else target
            if refusal is not None:
                pending.reject(refusal.reason, refusal.detail)
        except BaseException:  # a Ctrl-C on the consumer's thread, which will never see this request
            if pending.counts is not None:
                pending.reject("cancelled", "interrupted while it was submitted")
            raise
        return pending
