"""One device runs one engine at a time, or as many as are configured; who is next is decided by the model's priority,
then by the deadline.

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
    """Room for `runs_at_once`, given in order of (priority, deadline, arrival). A lower priority number goes first.

    Raises ValueError for less than one run at once.
    """

    def __init__(self, clock: Clock, scheduling: Scheduling = THREADS, runs_at_once: int = 1) -> None:
        if runs_at_once < 1:
            raise ValueError(f"expected at least one run at once on a device, got {runs_at_once}")
        self._clock = clock
        self._scheduling = scheduling
        self._lock = threading.Lock()
        self._free = runs_at_once
        self._arrivals = 0
        self._waiters: list[tuple[int, int, int, _Waiter]] = []
        self._fenced = ""

    @property
    def fenced(self) -> str:
        """Why nobody enters any more; empty while the device is in use."""
        return self._fenced

    def enter(self, priority: int, deadline_ns: int) -> bool:
        """Wait for the device, at most until the deadline. False where it did not come free in time, or is fenced."""
        with self._lock:
            if self._fenced:
                return False
            if self._free:
                self._free -= 1
                return True
            waiter = _Waiter(self._scheduling.signal())
            self._arrivals += 1
            heapq.heappush(self._waiters, (priority, deadline_ns, self._arrivals, waiter))
        remaining_s = (deadline_ns - self._clock.monotonic_ns()) / NS_PER_S
        if waiter.signal.acquire(timeout=max(0.0, remaining_s)):
            return waiter.granted and not self._fenced  # it may have come down since the device was handed over
        with self._lock:
            if waiter.granted:
                return not self._fenced
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
                self._free += 1

    def fence(self, reason: str) -> None:
        """Let nobody in any more, for good: who waits is sent away at once, who is inside may leave."""
        with self._lock:
            self._fenced = self._fenced or reason
            waiters, self._waiters = self._waiters, []
        for *_, waiter in waiters:
            waiter.signal.release()
