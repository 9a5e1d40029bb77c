"""An event loop in virtual time: while it has nothing to do, it is somebody else's turn."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeVar

from typing_extensions import TypeVarTuple, Unpack

from actors.scheduling import Scheduling
from messages import NS_PER_S, Clock

ResultT = TypeVar("ResultT")
_Ts = TypeVarTuple("_Ts")


class _SteppedSelector(selectors.SelectSelector):
    """Waits for the bell, and looks at files only in passing: nothing outside the test can wake it."""

    def __init__(self, scheduling: Scheduling) -> None:
        super().__init__()
        self._bell = scheduling.signal()
        self._bell.acquire()

    def ring(self) -> None:
        if self._bell.locked():
            self._bell.release()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self._bell.acquire(timeout=-1 if timeout is None else timeout)
        return super().select(0)


class _SteppedEventLoop(asyncio.SelectorEventLoop):
    def __init__(self, scheduling: Scheduling, clock: Clock) -> None:
        self._stepped = _SteppedSelector(scheduling)
        self._now_ns = clock.monotonic_ns
        super().__init__(self._stepped)

    def time(self) -> float:
        return self._now_ns() / NS_PER_S

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[_Ts]], object], *args: Unpack[_Ts], context: Context | None = None
    ) -> asyncio.Handle:
        """From another loop of actors: there is only one thread."""
        handle = self.call_soon(callback, *args, context=context)
        self._stepped.ring()
        return handle


def run_stepped(coroutine: Coroutine[Any, Any, ResultT], scheduling: Scheduling, clock: Clock) -> ResultT:
    """As `asyncio.run`: the tasks that it leaves behind are cancelled."""
    loop = _SteppedEventLoop(scheduling, clock)
    try:
        try:
            return loop.run_until_complete(coroutine)
        finally:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left))
            loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
