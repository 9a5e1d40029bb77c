"""Actors without threads: each loop is a greenlet, one runs at a time, and whoever waits lets another one go on.

Who goes on is drawn by a seed among those who can. Where nobody can, the clock moves to the next moment at which
somebody can; nothing else moves it. So one seed gives one order, and a minute costs as much as what happens in it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from actors.stepped_turns import Loop, Turns
from messages import NS_PER_S, InferenceError, VirtualClock

try:
    from greenlet import GreenletExit, getcurrent, greenlet
except ModuleNotFoundError as error:
    raise ImportError(
        "expected the library greenlet, on which stepped tests run, found none: pip install 'c7-inference[testing]'"
    ) from error

TURNS_MAX = 1_000_000
"""At one instant; past this the loops wake each other for ever."""
EXITS_MAX = 100
"""How often one loop is told to end when the world does."""
WAIT_MAX_NS = 3600 * NS_PER_S
"""The test itself never waits longer for something that has no deadline of its own."""


class SteppedWorldError(RuntimeError):
    """The test asked for something that never happens, or from where it cannot be asked."""


class _GreenLoop(Loop):
    """A loop on its greenlet, or the test on the one that it had already."""

    __slots__ = ("exits", "greenlet")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.greenlet: greenlet = getcurrent()
        self.exits = 0


_LEFT_BEHIND: list[_GreenLoop] = []
"""Kept for ever: to let go of one would have Python end it once more, and it does not end."""


class SteppedSignal:
    """A lock whose waiter switches. As with a thread's lock, whoever comes first may take it before who was woken."""

    __slots__ = ("_scheduling", "taken", "waiting")

    def __init__(self, scheduling: SteppedScheduling) -> None:
        self._scheduling = scheduling
        self.taken = False
        self.waiting: list[_GreenLoop] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self.taken and (not blocking or timeout == 0 or not self._scheduling.await_release(self, timeout)):
            return False
        self.taken = True
        return True

    def release(self) -> None:
        if not self.taken:
            raise RuntimeError("expected a signal that is acquired, found it released")
        self.taken = False
        if self.waiting:
            self._scheduling.wake(self.waiting.pop(0))

    def locked(self) -> bool:
        return self.taken


class SteppedScheduling:
    """Belongs to the thread that makes it, and to the test that runs there."""

    def __init__(self, clock: VirtualClock, seed: int) -> None:
        self._clock = clock
        self._turns: Turns[_GreenLoop] = Turns(seed)
        self._turns_at_this_instant = 0
        self._hub = greenlet(self._run)
        self._test = self._running = _GreenLoop("the test")
        self._loops: dict[_GreenLoop, None] = {}
        self._awaited: list[tuple[threading.Event, int, _GreenLoop]] = []
        self._run_until_ns: int | None = None
        self._give_up_ns: int | None = None
        self._failure: BaseException | None = None
        self._ending = False
        self.wake = self._turns.wake

    # For actors

    def signal(self) -> SteppedSignal:
        return SteppedSignal(self)

    def current(self) -> int:
        return id(getcurrent())

    def start(self, loop: Callable[[], None], name: str) -> None:
        entry = _GreenLoop(name)
        entry.greenlet = greenlet(partial(self._play, loop, entry), self._hub)
        self._loops[entry] = None
        self._turns.admit(entry)

    # For scripted steps

    def sleep_ns(self, duration_ns: int) -> None:
        try:
            self._switch(self._caller(), self._clock.monotonic_ns() + duration_ns)
        except GreenletExit:
            raise InferenceError("the stepped world ended while this step took its time") from None

    def wait_for(self, event: threading.Event) -> None:
        loop = self._caller()
        try:
            while not event.is_set():
                self._switch(loop, None, event)
        except GreenletExit:
            raise InferenceError("the stepped world ended while this step waited for its event") from None

    # For the test

    def run_until(self, end_ns: int) -> None:
        """Let everything happen that is due until then, in order; the clock then says `end_ns`, or later if it did."""
        if self._caller() is not self._test:
            raise SteppedWorldError(
                f"expected the test itself to move the time, found {self._running.name}: an actor waits for its mail"
            )
        self._run_until_ns = max(end_ns, self._clock.monotonic_ns())
        try:
            self._switch(self._test, None)
        finally:
            self._run_until_ns = None

    def end(self) -> None:
        """End every loop that is left: a scripted step raises InferenceError, any other wait raises GreenletExit.

        Raises SteppedWorldError where one does not end.
        """
        self._ending = True
        for loop in self._loops:
            self.wake(loop)
        self.run_until(self._clock.monotonic_ns())
        self._hub.throw()
        if self._loops:
            raise SteppedWorldError(f"expected every loop to end with the world, found {_places(self._loops)}")

    # For signals

    def await_release(self, signal: SteppedSignal, timeout_s: float) -> bool:
        """Wait until the signal is free. False where that took longer than `timeout_s`; below 0 it never does."""
        loop = self._caller()
        now_ns = self._clock.monotonic_ns
        due_ns = None if timeout_s < 0 else now_ns() + round(timeout_s * NS_PER_S)
        if loop is self._test and due_ns is None:
            self._give_up_ns = now_ns() + WAIT_MAX_NS
        try:
            while signal.taken:
                if due_ns is not None and now_ns() >= due_ns:
                    return False
                if loop not in signal.waiting:
                    signal.waiting.append(loop)
                self._switch(loop, due_ns)
        finally:
            if loop is self._test:
                self._give_up_ns = None
            if loop in signal.waiting:
                signal.waiting.remove(loop)
        return True

    # Turns

    def _caller(self) -> _GreenLoop:
        if self._hub.dead:
            raise SteppedWorldError("expected a stepped world to wait in, found that it has ended")
        if getcurrent() is not self._running.greenlet:
            raise SteppedWorldError(
                f"expected to wait where {self._running.name} runs, on the one thread of the stepped world, found"
                f" {threading.current_thread().name}: a stepped test starts no threads"
            )
        return self._running

    def _switch(self, loop: _GreenLoop, due_ns: int | None, event: threading.Event | None = None) -> None:
        """Wait until somebody wakes this loop or the time has come. Raises what ends the test or the world."""
        if loop is self._test:
            self._turns_at_this_instant = 0
        elif self._ending:
            self._exit(loop)
        nap = self._turns.rest(loop, due_ns)
        if event is not None:
            self._awaited.append((event, nap, loop))
        self._hub.switch()
        if loop is not self._test:
            if self._ending:
                self._exit(loop)
        elif self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def _exit(self, loop: _GreenLoop) -> None:
        loop.exits += 1
        if loop.exits > EXITS_MAX:
            _LEFT_BEHIND.append(loop)
            self._hub.switch()
        raise GreenletExit

    def _play(self, loop: Callable[[], None], entry: _GreenLoop) -> None:
        try:
            loop()
        except GreenletExit:
            pass
        except BaseException as error:  # noqa: BLE001  # the test is who has to learn of it
            self._failure = self._failure or error
            if not self._ending:  # then it learns of it when all have ended
                self.wake(self._test)
        finally:
            del self._loops[entry]

    def _run(self) -> None:
        """The hub: hand the turn to one after the other, for ever. Where it cannot go on, the test learns why."""
        while True:
            try:
                loop = self._next()
            except BaseException as error:  # noqa: BLE001  # a Ctrl-C too belongs to the test
                self._turns_at_this_instant = 0
                self._failure = self._failure or error
                self.wake(self._test)
                continue
            self._running = loop
            loop.greenlet.switch()

    def _next(self) -> _GreenLoop:
        self._turns_at_this_instant += 1
        if self._turns_at_this_instant > TURNS_MAX:
            raise SteppedWorldError(
                f"expected time to pass, found {TURNS_MAX} turns at one instant: {_places(self._loops)}"
            )
        if self._awaited:
            for event, nap, loop in self._awaited:
                if loop.nap == nap and event.is_set():
                    self.wake(loop)
            self._awaited = [entry for entry in self._awaited if entry[2].nap == entry[1]]
        while (drawn := self._turns.draw()) is None:
            self._let_time_pass()
        return drawn

    def _let_time_pass(self) -> None:
        """To the next moment at which somebody can go on; never past the moment that the test waits for."""
        until_ns, due_ns, now_ns = self._run_until_ns, self._turns.next_due_ns(), self._clock.monotonic_ns()
        if until_ns is not None and (due_ns is None or due_ns > until_ns):
            self._clock.advance_ns(max(0, until_ns - now_ns))
            self.wake(self._test)
            return
        if due_ns is None:
            raise SteppedWorldError(
                "expected somebody to go on, found everybody waiting for somebody else:"
                f" {_places([self._test, *self._loops])}"
            )
        if self._give_up_ns is not None and due_ns > self._give_up_ns:
            raise SteppedWorldError(
                f"expected what the test waits for, found it waiting for {WAIT_MAX_NS // NS_PER_S} s of virtual time"
                f" while others went on: {_places([self._test, *self._loops])}"
            )
        if due_ns > now_ns:
            self._turns_at_this_instant = 0
            now_ns = self._clock.advance_ns(due_ns - now_ns)
        self._turns.wake_due(now_ns)


def _places(loops: Iterable[_GreenLoop]) -> str:
    """Which code each of them waits in."""
    found = []
    for loop in loops:
        frame = loop.greenlet.gr_frame
        while frame is not None and frame.f_code.co_filename == __file__:
            frame = frame.f_back
        code = None if frame is None else frame.f_code
        place = "its first line" if code is None else f"{code.co_name}, {Path(code.co_filename).name}"
        found.append(f"{loop.name} in {place}")
    return ", ".join(found) or "nobody"
