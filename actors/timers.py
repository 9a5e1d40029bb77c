"""Later: one loop that runs short actions at monotonic times."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Protocol

from loguru import logger

from actors.scheduling import THREADS, Scheduling
from messages import NS_PER_S, Clock, describe_error

Cancel = Callable[[], None]
"""Takes an action back that has not run yet; harmless where it has."""
_Entry = tuple[int, int, Callable[[], None]]


class Timers(Protocol):
    """Runs an action once, not before `delay_ns` from now. The action only posts a message: it never blocks."""

    def after(self, delay_ns: int, action: Callable[[], None]) -> Cancel: ...

    def close(self) -> None:
        """Forget what has not run yet."""
        ...


class TimerThread:
    """The timers of one process, on one daemon thread that sleeps until the next one is due."""

    def __init__(self, clock: Clock, scheduling: Scheduling = THREADS) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._bell = scheduling.signal()
        self._bell.acquire()
        self._due: list[_Entry] = []
        self._order = itertools.count()
        self._closed = False
        scheduling.start(self._run, "c7-timers")

    @property
    def waiting(self) -> int:
        """Actions that have not run yet."""
        with self._lock:
            return len(self._due)

    def after(self, delay_ns: int, action: Callable[[], None]) -> Cancel:
        entry = (self._clock.monotonic_ns() + delay_ns, next(self._order), action)
        with self._lock:
            if not self._closed:
                heapq.heappush(self._due, entry)
                self._ring()
        return lambda: self._forget(entry)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._due.clear()
            self._ring()

    def _ring(self) -> None:
        if self._bell.locked():
            self._bell.release()

    def _forget(self, entry: _Entry) -> None:
        with self._lock:
            if entry in self._due:
                self._due.remove(entry)
                heapq.heapify(self._due)

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._closed:
                    return
                action = None
                wait_s = -1.0
                if self._due:
                    wait_ns = self._due[0][0] - self._clock.monotonic_ns()
                    if wait_ns <= 0:
                        action = heapq.heappop(self._due)[2]
                    wait_s = min(wait_ns / NS_PER_S, threading.TIMEOUT_MAX)
            if action is None:
                self._bell.acquire(timeout=wait_s)
            else:
                _act(action)


def _act(action: Callable[[], None]) -> None:
    try:
        action()
    except Exception as error:  # noqa: BLE001  # whatever one action does, everybody else's timers depend on this thread
        logger.error("C7 timer failed; cause={}", describe_error(error))
