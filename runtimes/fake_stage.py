"""Where the steps of a `FakeRuntime` are played: how time passes there, and who brings back what hangs."""

from __future__ import annotations

import threading
import time
from typing import Protocol

from messages import NS_PER_S, Clock, InferenceError, VirtualClock

BLOCK_MAX_S = 60.0
"""How long a step waits at most for its event: a test that forgets it fails, it does not hang."""


class Waits(Protocol):
    """How a step waits. Others go on meanwhile."""

    def sleep_ns(self, duration_ns: int) -> None: ...

    def wait_for(self, event: threading.Event) -> None:
        """Raises InferenceError where the event never comes."""
        ...


class ThreadWaits:
    """On the thread that plays the step. With a VirtualClock a sleep moves the clock instead."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def sleep_ns(self, duration_ns: int) -> None:
        if isinstance(self._clock, VirtualClock):
            self._clock.advance_ns(duration_ns)
        else:
            time.sleep(duration_ns / NS_PER_S)

    def wait_for(self, event: threading.Event) -> None:
        if not event.wait(BLOCK_MAX_S):
            raise InferenceError(f"a scripted step waited {BLOCK_MAX_S:.0f} s for its event")


class Stage:
    """What a step is played on. `waits` is taken over by a stepped test."""

    def __init__(self, waits: Waits) -> None:
        self.waits = waits
        self._comes_back = threading.Event()

    def hang(self) -> None:
        """Stay until `release_hung`."""
        self.waits.wait_for(self._comes_back)

    def release_hung(self) -> None:
        """What hangs comes back, and from here on nothing hangs."""
        self._comes_back.set()
