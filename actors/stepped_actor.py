"""A consumer's own pykka actor in a stepped test: its inbox, its futures and its loop wait as ours do.

With supervised.py the only place that touches pykka's private hooks.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any, TypeVar, cast

import pykka

from actors.mailbox import Letter
from actors.scheduling import Scheduling
from messages import describe_error

ActorT = TypeVar("ActorT", bound=pykka.ThreadingActor)


class SteppedInbox:
    """Unbounded and in order of arrival, as the one that it stands for."""

    def __init__(self, scheduling: Scheduling) -> None:
        self._letters: deque[Letter] = deque()
        self._bell = scheduling.signal()
        self._bell.acquire()

    def put(self, letter: Letter) -> None:
        self._letters.append(letter)
        if self._bell.locked():
            self._bell.release()

    def get(self) -> Letter:
        while not self._letters:
            self._bell.acquire()
        return self._letters.popleft()

    def empty(self) -> bool:
        return not self._letters


def stepped_class(kind: type[ActorT], scheduling: Scheduling) -> type[ActorT]:
    """The same actor class, for this scheduling."""
    started = itertools.count()

    class SteppedFuture(pykka.ThreadingFuture[Any]):
        def __init__(self) -> None:
            super().__init__()
            self._settled = scheduling.signal()
            self._settled.acquire()

        def get(self, *, timeout: float | None = None) -> Any:
            if not self._settled.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
                raise pykka.Timeout(f"{timeout} seconds")
            self._settled.release()  # for the next one who asks
            return super().get(timeout=timeout)

        def set(self, value: Any = None) -> None:
            super().set(value)
            self._settled.release()

        def set_exception(self, exc_info: Any = None) -> None:
            super().set_exception(exc_info)
            self._settled.release()

        def set_get_hook(self, func: Any) -> None:
            super().set_get_hook(func)
            self._settled.release()

    class SteppedActor(kind):  # type: ignore[valid-type,misc]  # a class that is only known when it is called
        @staticmethod
        def _create_actor_inbox() -> SteppedInbox:
            return SteppedInbox(scheduling)

        @staticmethod
        def _create_future() -> SteppedFuture:
            return SteppedFuture()

        def _start_actor_loop(self) -> None:
            scheduling.start(self._actor_loop, f"{kind.__name__}-{next(started)}")

        def _handle_receive(self, message: Any) -> Any:
            try:
                return super()._handle_receive(message)
            except Exception:
                raise
            except BaseException as error:  # pykka would stop every actor of the process, and block to await their ends
                raise RuntimeError(f"{kind.__name__} ended: {describe_error(error)}") from error

    SteppedActor.__name__, SteppedActor.__qualname__ = kind.__name__, kind.__qualname__
    return cast("type[ActorT]", SteppedActor)
