"""Throttle transitions, handed to whoever subscribed, each at its own pace."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from types import TracebackType

from messages import ThermalTransition

FEED_MAX = 32
"""Transitions that wait for one subscriber. Hysteresis lets a few through per minute; past this the oldest goes."""


class ThermalSubscription:
    """A bounded feed of transitions. Iterating waits for the next one; `close()` ends it, from any thread."""

    def __init__(self, broadcast: ThermalBroadcast) -> None:
        self._broadcast = broadcast
        self._changed = threading.Condition()
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
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if self._waiting:
                return self._waiting.popleft()
        raise StopIteration

    def deliver(self, transition: ThermalTransition) -> None:
        with self._changed:
            if self._closed:
                return
            self.missed += len(self._waiting) == FEED_MAX
            self._waiting.append(transition)
            self._changed.notify()

    def close(self) -> None:
        """What was delivered before is still read; then the iteration ends."""
        self._broadcast.unsubscribe(self)
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class ThermalBroadcast:
    """The subscribers of one ThermalActor. Publishing never blocks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscriptions: tuple[ThermalSubscription, ...] = ()
        self._closed = False

    def subscribe(self) -> ThermalSubscription:
        subscription = ThermalSubscription(self)
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
