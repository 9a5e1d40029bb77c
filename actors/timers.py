"""Later: one thread that runs short actions at monotonic times."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Protocol

from loguru import logger

from messages import NS_PER_S, Clock, describe_error

Cancel = Callable[[], None]
"""Takes an action back that has not run yet; harmless where it has."""


class Timers(Protocol):
    """Runs an action once, not before `delay_ns` from now. The action only posts a message: it never blocks."""

    def after(self, delay_ns: int, action: Callable[[], None]) -> Cancel: ...

    def close(self) -> None:
        """Forget what has not run yet."""
        ...


class TimerThread:
    """The timers of one process, on one daemon thread that sleeps until the next one is due."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="c7-timers", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Actions that have not run yet."""
        with self._changed:
            return len(self._due)

    def after(self, delay_ns: int, action: Callable[[], None]) -> Cancel:
        entry = (self._clock.monotonic_ns() + delay_ns, next(self._order), action)
        with self._changed:
            if not self._closed:
                heapq.heappush(self._due, entry)
                self._changed.notify()
        return lambda: self._forget(entry)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._due.clear()
            self._changed.notify()

    def _forget(self, entry: tuple[int, int, Callable[[], None]]) -> None:
        with self._changed:
            if entry in self._due:
                self._due.remove(entry)
                heapq.heapify(self._due)

    def _run(self) -> None:
        while (action := self._next()) is not None:
            _act(action)

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._closed:
                if not self._due:
                    self._changed.wait()
                    continue
                wait_ns = self._due[0][0] - self._clock.monotonic_ns()
                if wait_ns <= 0:
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait_ns / NS_PER_S)
            return None


def _act(action: Callable[[], None]) -> None:
    try:
        action()
    except Exception as error:  # noqa: BLE001  # whatever one action does, everybody else's timers depend on this thread
        logger.error("C7 timer failed; cause={}", describe_error(error))
