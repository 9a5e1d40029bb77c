"""Orders to the supervisor: take an engine into a flight under way, or let one go; each is answered once."""

from __future__ import annotations

from typing import NamedTuple

from actors.launch import EngineSpec
from actors.scheduling import Scheduling
from messages import EngineLoadFailed


class Reply:
    """The answer to one order, given by the supervisor's thread; one other waits for it. The first answer stands."""

    def __init__(self, scheduling: Scheduling) -> None:
        self._given = scheduling.signal()
        self._given.acquire()
        self._answered = False
        self.failure: EngineLoadFailed | None = None

    def give(self, failure: EngineLoadFailed | None = None) -> None:
        """Done, or why not."""
        if not self._answered:
            self._answered, self.failure = True, failure
            self._given.release()

    def wait(self, timeout_s: float) -> bool:
        """False where it took longer; wait again then, but never after True."""
        return self._given.acquire(timeout=timeout_s)


class LoadEngine(NamedTuple):
    """Load it once, after those that wait already and are as urgent. A load that fails is final."""

    spec: EngineSpec
    reply: Reply


class ReleaseEngine(NamedTuple):
    """Refuse what waits for it, let its run end, free it and forget it. Answered once it is gone, or is left behind."""

    model: str
    reply: Reply
