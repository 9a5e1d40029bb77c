"""One device runs one engine at a time; who is next is decided by the model's priority, then by the deadline.

Without it a low-priority burst on another engine slows the urgent one: threads on one device share its time, not
its order. It is also what makes activation memory shared between engines legal.
"""

from __future__ import annotations

import heapq
import threading

from actors.scheduling import THREADS, Scheduling, Signal
from messages import NS_PER_S, Clock


class _Waiter:
    __slots__ = ("granted", "signal")

    def __init__(self, signal: Signal) -> None:
        self.granted = False
        self.signal = signal
        self.signal.acquire()


class DeviceGate:
    """Mutual exclusion in order of (priority, deadline, arrival). A lower priority number goes first."""

    def __init__(self, clock: Clock, scheduling: Scheduling = THREADS) -> None:
        self._clock = clock
        self._scheduling = scheduling
        self._lock = threading.Lock()
        self._busy = False
        self._arrivals = 0
        self._waiters: list[tuple[int, int, int, _Waiter]] = []

    def enter(self, priority: int, deadline_ns: int) -> bool:
        """Wait for the device, at most until the deadline. False where it did not come free in time."""
        with self._lock:
            if not self._busy:
                self._busy = True
                return True
            waiter = _Waiter(self._scheduling.signal())
            self._arrivals += 1
            heapq.heappush(self._waiters, (priority, deadline_ns, self._arrivals, waiter))
        remaining_s = (deadline_ns - self._clock.monotonic_ns()) / NS_PER_S
        if waiter.signal.acquire(timeout=max(0.0, remaining_s)):
            return True
        with self._lock:
            if waiter.granted:
                return True
            self._waiters = [entry for entry in self._waiters if entry[3] is not waiter]
            heapq.heapify(self._waiters)
            return False

    def leave(self) -> None:
        """Hand the device to the next in order."""
        with self._lock:
            if self._waiters:
                waiter = heapq.heappop(self._waiters)[3]
                waiter.granted = True
                waiter.signal.release()
            else:
                self._busy = False
