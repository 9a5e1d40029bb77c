"""Whose turn it is in a stepped test: a draw among those who can go on, else whoever can do so first."""

from __future__ import annotations

import heapq
from random import Random
from typing import Generic, TypeVar

LoopT = TypeVar("LoopT", bound="Loop")


class Loop:
    """One that takes turns. `nap` numbers its wait; 0 while it has its turn or can have it."""

    __slots__ = ("name", "nap")

    def __init__(self, name: str) -> None:
        self.name = name
        self.nap = 0


class Turns(Generic[LoopT]):
    """Who can go on, and who waits until when. The same seed and the same calls give the same draws."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed).random  # noqa: S311  # an order, not a secret
        self._ready: list[LoopT] = []
        self._naps = 0
        self._asleep: list[tuple[int, int, LoopT]] = []
        self._asleep_max = 64

    def admit(self, loop: LoopT) -> None:
        """It is there from now on, and can go on."""
        self._ready.append(loop)

    def rest(self, loop: LoopT, due_ns: int | None) -> int:
        """The loop whose turn it is waits, for ever or until `due_ns`. Returns the number of this wait."""
        self._naps += 1
        loop.nap = self._naps
        if due_ns is not None:
            heapq.heappush(self._asleep, (due_ns, loop.nap, loop))
            if len(self._asleep) > self._asleep_max:
                self._forget_the_woken()
        return loop.nap

    def wake(self, loop: LoopT) -> None:
        """It can go on; nothing where it could already."""
        if loop.nap:
            loop.nap = 0
            self._ready.append(loop)

    def draw(self) -> LoopT | None:
        """Who goes on; None where nobody can."""
        ready = self._ready
        if not ready:
            return None
        if len(ready) > 1:
            drawn = int(self._random() * len(ready))
            ready[drawn], ready[-1] = ready[-1], ready[drawn]
        return ready.pop()

    def next_due_ns(self) -> int | None:
        """When the first of those who wait can go on; None where nobody waits for a time."""
        asleep = self._asleep
        while asleep and asleep[0][2].nap != asleep[0][1]:
            heapq.heappop(asleep)
        return asleep[0][0] if asleep else None

    def wake_due(self, now_ns: int) -> None:
        """All whose time has come can go on at once: the draw decides between them."""
        asleep = self._asleep
        while asleep and asleep[0][0] <= now_ns:
            _, nap, loop = heapq.heappop(asleep)
            if loop.nap == nap:
                self.wake(loop)

    def _forget_the_woken(self) -> None:
        """Waits that ended early leave an entry, thousands at one instant; there are as many as loops that count."""
        self._asleep = [entry for entry in self._asleep if entry[2].nap == entry[1]]
        heapq.heapify(self._asleep)
        self._asleep_max = 2 * len(self._asleep) + 64
