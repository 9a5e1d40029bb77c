"""Throttle transitions, handed to whoever subscribed, each at its own pace."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType

from actors.scheduling import THREADS, Scheduling
from messages import ThermalTransition

FEED_MAX = 32
"""Transitions that wait for one subscriber. Hysteresis lets a few through per minute; past this the oldest goes."""


class ThermalSubscription:
    """A bounded feed of transitions. Iterating waits for the next one; `close()` ends it, from any thread."""

    def __init__(self, broadcast: ThermalBroadcast, scheduling: Scheduling = THREADS) -> None:
        self._broadcast = broadcast
        self._lock = threading.Lock()
        self._bell = scheduling.signal()
        self._bell.acquire()
        self._waiting: deque[ThermalTransition] = deque(maxlen=FEED_MAX)
        self._closed = False
        self.missed = 0
        """Transitions that a slow subscriber did not see."""

    def __enter__(self) -> ThermalSubscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[ThermalTransition]:
        return self

    def __next__(self) -> ThermalTransition:
        while True:
            with self._lock:
                transition = self._waiting.popleft() if self._waiting else None
                closed = self._closed
                if closed or self._waiting:
                    self._ring()  # for another thread that reads the same feed
            if transition is not None:
                return transition
            if closed:
                raise StopIteration
            self._bell.acquire()

    def deliver(self, transition: ThermalTransition) -> None:
        with self._lock:
            if self._closed:
                return
            self.missed += len(self._waiting) == FEED_MAX
            self._waiting.append(transition)
            self._ring()

    def close(self) -> None:
        """What was delivered before is still read; then the iteration ends."""
        self._broadcast.unsubscribe(self)
        with self._lock:
            self._closed = True
            self._ring()

    def _ring(self) -> None:
        if self._bell.locked():
            self._bell.release()


class ThermalBroadcast:
    """The subscribers of one ThermalActor. Publishing never blocks."""

    def __init__(self, scheduling: Scheduling = THREADS) -> None:
        self._scheduling = scheduling
        self._lock = threading.Lock()
        self._subscriptions: tuple[ThermalSubscription, ...] = ()
        self._closed = False

    def subscribe(self) -> ThermalSubscription:
        subscription = ThermalSubscription(self, self._scheduling)
        with self._lock:
            if not self._closed:
                self._subscriptions = (*self._subscriptions, subscription)
                return subscription
        subscription.close()
        return subscription

    def unsubscribe(self, subscription: ThermalSubscription) -> None:
        with self._lock:
            self._subscriptions = tuple(known for known in self._subscriptions if known is not subscription)

    def publish(self, transition: ThermalTransition) -> None:
        for subscription in self._subscriptions:
            subscription.deliver(transition)

    def close(self) -> None:
        """End every feed: no transition will come any more."""
        with self._lock:
            self._closed = True
        for subscription in self._subscriptions:
            subscription.close()
