"""What wakes an actor that waits for its next letter."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Protocol

from loguru import logger

from actors.scheduling import Scheduling, Signal, ThreadScheduling
from messages import describe_error


class Bell(Protocol):
    """One actor waits, anyone rings. Rung while nobody waits, it ends the next wait; rung twice, once is heard."""

    def ring(self) -> None: ...

    def wait(self) -> None: ...


class PipeBell:
    """A pipe, because writing to it wakes the reader while the interpreter's lock is free.

    A lock's `release` wakes its waiter while the caller still holds the interpreter, which the woken thread then waits
    for: on one core six switches between threads a round trip instead of two, 17 µs instead of 6 (measured, CPython
    3.11). Takes two file descriptors and gives them back with its last reference, so that nobody can ring a descriptor
    that means something else by then. Raises OSError where there are none left.
    """

    __slots__ = ("_reads", "_writes")

    def __init__(self) -> None:
        self._reads, self._writes = os.pipe()

    def ring(self) -> None:
        os.write(self._writes, b"!")

    def wait(self) -> None:
        os.read(self._reads, 4096)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # `os` may be gone when the interpreter ends
        if hasattr(self, "_writes"):  # there were descriptors left for it
            close(self._reads)
            close(self._writes)


class SignalBell:
    """A bell of one signal, which is a lock on threads and a turn given away in a stepped test."""

    __slots__ = ("_signal",)

    def __init__(self, signal: Signal) -> None:
        self._signal = signal
        signal.acquire()

    def ring(self) -> None:
        if self._signal.locked():
            self._signal.release()

    def wait(self) -> None:
        self._signal.acquire()


UNHEARD: Bell = SignalBell(threading.Lock())
"""For a mailbox whose actor has left: it keeps no descriptor open for nobody."""


def hang_bell(scheduling: Scheduling) -> Bell:
    """The bell for a mailbox: a pipe between threads, a lock where the process has no descriptor left for one."""
    if isinstance(scheduling, ThreadScheduling):
        try:
            return PipeBell()
        except OSError as error:
            logger.warning("C7 actor is woken by a lock, which costs more than a pipe; cause={}", describe_error(error))
            return SignalBell(scheduling.signal())
    return SignalBell(scheduling.signal())
