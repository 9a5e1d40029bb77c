"""How actors get their turn and how they wait: on threads in flight, one after the other in a stepped test."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol


class Signal(Protocol):
    """A lock that one side acquires to wait and another one releases to wake it; `threading.Lock` is one."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...

    def release(self) -> None: ...

    def locked(self) -> bool: ...


class Scheduling(Protocol):
    """Where waits happen and loops run. Locks that are only ever held for a moment are not part of it."""

    def signal(self) -> Signal:
        """A new one, not acquired. `release` never switches to whoever waits, so it may be called under a lock."""
        ...

    def current(self) -> int:
        """Which loop calls this; two that run at the same time never have the same number."""
        ...

    def start(self, loop: Callable[[], None], name: str) -> None:
        """Run `loop` beside the caller until it returns."""
        ...


class ThreadScheduling:
    """Threads of the operating system. They are daemons: a stuck one cannot keep the interpreter from ending."""

    signal = staticmethod(threading.Lock)
    current = staticmethod(threading.get_ident)

    def start(self, loop: Callable[[], None], name: str) -> None:
        threading.Thread(target=loop, name=name, daemon=True).start()


THREADS: Scheduling = ThreadScheduling()
