"""An actor's mailbox: a control lane ahead of a bounded work lane.

pykka sees only a token for work, so its loop never keeps a tensor alive, and a stop is never stuck behind frames.
The work lane is bounded in whole frames per consumer: a newer frame takes the place of the consumer's oldest one,
all requests of it, because half a frame's matches are worth nothing. A request that cannot be answered in time is
refused before it takes anybody's place. Nothing here ever blocks a sender.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pykka

from actors.admission import admission_refusal, next_run_estimate_ns
from actors.bell import UNHEARD, hang_bell
from actors.scheduling import THREADS, Scheduling
from actors.shedding import Frame, count_ahead, find_place, is_over
from messages import RejectReason

if TYPE_CHECKING:
    from actors.pending import Pending

FRAMES_PER_CONSUMER = 2
"""That wait, beside the request that runs; a third one would be stale before its turn at 3 Hz."""


class Refusal(NamedTuple):
    """Why work is not taken."""

    reason: RejectReason
    detail: str = ""


class Letter(Protocol):
    """What pykka puts into an inbox: its envelope."""

    message: Any
    reply_to: pykka.Future[Any] | None


class Token:
    """A letter without content, for pykka's loop."""

    def __init__(self) -> None:
        self.message: Any = self
        self.reply_to: pykka.Future[Any] | None = None


WORK_AVAILABLE = Token()
"""Stands for work: the actor then takes the work itself."""
FORGET_LETTER = Token()
"""Comes before a wait: pykka's loop keeps its last message and answer alive until the next one."""


class Mailbox:
    """Thread-safe; one actor takes, anyone puts. Satisfies pykka's inbox protocol (`put`, `get`, `empty`)."""

    def __init__(self, frames_per_consumer: int = FRAMES_PER_CONSUMER, scheduling: Scheduling = THREADS) -> None:
        self.scheduling = scheduling
        self._frames_per_consumer = frames_per_consumer
        self._lock = threading.Lock()
        self._bell = hang_bell(scheduling)
        self._asleep = False
        self._handed: Letter = FORGET_LETTER
        self._ended = scheduling.signal()
        self._ended.acquire()
        self._reader: int | None = None
        self._control: deque[Letter] = deque()
        self._frames: dict[Frame, list[Pending]] = {}
        self._current: Pending | None = None
        self.running_since_ns: int | None = None
        """Written by the actor around each run; an attribute because a call costs as much as the rest of it."""
        self._run_estimate_ns: int | None = None
        self._refusal: Refusal | None = None
        self._closed = False

    # The control lane

    def put(self, letter: Letter) -> None:
        """Raises pykka.ActorDeadError once the actor has left, also where the sender saw it alive just before."""
        asleep = False
        try:
            with self._lock:
                closed = self._closed
                if not closed:
                    self._control.append(letter)
                    asleep, self._asleep = self._asleep, False
            if asleep:
                self._bell.ring()
        except BaseException:  # as in `offer`
            if asleep:
                self._bell.ring()
            raise
        if closed:
            if letter.reply_to is None:
                raise _dead()
            _bury(letter)

    def get(self) -> Letter:
        """Wait for the next letter; only the actor's own idle thread waits here."""
        while True:
            if self._control:
                with self._lock:
                    self._handed = self._control.popleft()
                return self._handed
            if self._frames:
                self._handed = WORK_AVAILABLE
                return WORK_AVAILABLE
            if type(self._handed) is not Token:
                self._handed = FORGET_LETTER
                return FORGET_LETTER
            with self._lock:
                if self._control or self._frames:
                    continue
                self._asleep = True
            self._bell.wait()

    @property
    def reply_expected(self) -> bool:
        """Whether somebody waits for the answer to the letter that was handed out last."""
        return self._handed.reply_to is not None

    def empty(self) -> bool:
        """Whether pykka has letters left to answer; work is settled by `abandon`, not by pykka."""
        return not self._control

    def close(self) -> None:
        """The actor has left: answer what is in the control lane, and refuse from now on."""
        with self._lock:
            self._closed = True
            letters, self._control = self._control, deque()
            self._bell = UNHEARD
        for letter in letters:
            _bury(letter)
        if self._ended.locked():
            self._ended.release()

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait until the actor has left. False where that took longer; its own thread is not kept waiting."""
        if self._reader == self.scheduling.current():
            return True
        if not self._ended.acquire(timeout=max(0.0, timeout_s)):
            return False
        self._ended.release()  # for the next one who waits
        return True

    def belongs_to_this_loop(self) -> None:
        """The actor's loop names itself, so that it never waits for its own end."""
        self._reader = self.scheduling.current()

    # The work lane

    def offer(self, pending: Pending) -> Refusal | None:
        """Hold the request until it is settled, or say why not. The caller rejects what is refused."""
        frame = (pending.consumer, pending.frame_id)
        stale: Iterable[Pending] = ()
        reason: RejectReason = "shed"
        asleep = False
        try:
            with self._lock:
                if self._refusal is not None:
                    return self._refusal
                if self._frames or self._current is not None or pending.deadline_ns <= pending.submitted_ns:
                    refusal, victim = self._judge(pending, frame)
                    if refusal is not None:
                        return refusal
                    if victim is not None:
                        reason = "expired" if is_over(self._frames[victim], pending.submitted_ns) else "shed"
                        stale = self._frames[victim]
                        del self._frames[victim]
                burst = self._frames.get(frame)
                if burst is None:
                    self._frames[frame] = [pending]
                else:
                    burst.append(pending)
                asleep, self._asleep = self._asleep, False
            if asleep:
                self._bell.ring()
            if stale:
                _reject(stale, reason, f"frame {pending.frame_id} took its place")
        except BaseException:  # a Ctrl-C on the consumer's thread
            if asleep:  # nobody else would: the actor is down as awake
                self._bell.ring()
            # what was taken out has nobody else to settle it
            _reject(stale, reason, f"frame {pending.frame_id} was to take its place")
            raise
        return None

    def _judge(self, pending: Pending, frame: Frame) -> tuple[Refusal | None, Frame | None]:
        """Why the request is not taken, else which frame has to go for it. Changes nothing, so that a refused request
        costs nobody's place; the lock is held.
        """
        now_ns = pending.submitted_ns
        place = find_place(frame, self._frames, self._frames_per_consumer, now_ns)
        since_ns = self.running_since_ns
        taken = int(since_ns is None and self._current is not None and not self._current.done)

        def late(waiting: int) -> str | None:
            return admission_refusal(
                now_ns=now_ns,
                deadline_ns=pending.deadline_ns,
                ahead=waiting + taken,
                running_for_ns=None if since_ns is None else now_ns - since_ns,
                run_estimate_ns=self._run_estimate_ns,
            )

        # In two steps: to look at every request that waits is worth it only before a refusal.
        if late(sum(map(len, self._frames.values()))) is not None:
            detail = late(count_ahead(frame, self._frames, place.instead_of, now_ns))
            if detail is not None:
                return Refusal("expired", detail), None
        return Refusal("shed", place.full) if place.full else None, place.instead_of

    def take(self) -> Pending | None:
        """The next request, which stays in the mailbox's keeping until `finish`. None where it was shed meanwhile."""
        with self._lock:
            if not self._frames:
                return None
            frame, burst = next(iter(self._frames.items()))
            self._current = burst.pop(0)
            if not burst:
                del self._frames[frame]
            return self._current

    def ran(self, run_ns: int) -> None:
        """The engine has returned outputs, after `run_ns`: this tells how long the next run takes."""
        self.running_since_ns = None
        self._run_estimate_ns = next_run_estimate_ns(self._run_estimate_ns, run_ns)

    def finish(self) -> None:
        """The request last taken has its outcome."""
        self._current = None

    def sweep(self, now_ns: int) -> None:
        """Settle as `expired` what is overdue, also what the engine has taken, and let go of what is settled.

        For requests that nobody waits for: a waiter settles its own. The engine goes on; its late result is dropped.
        """
        with self._lock:
            current, running = self._current, self.running_since_ns is not None
            overdue = [each for burst in self._frames.values() for each in burst if each.deadline_ns <= now_ns]
        _reject(overdue, "expired", "the deadline passed in the queue")
        if current is not None and current.deadline_ns < now_ns:
            where = "while it ran" if running else "while it waited for the device"
            current.reject("expired", f"the deadline passed {where}")
        with self._lock:
            if any(each.done for burst in self._frames.values() for each in burst):
                left = {frame: [each for each in burst if not each.done] for frame, burst in self._frames.items()}
                self._frames = {frame: burst for frame, burst in left.items() if burst}

    def refuse(self, reason: RejectReason, detail: str = "") -> None:
        """Close the work lane for good and settle what waits in it; the running request may still complete."""
        with self._lock:
            if self._refusal is None:
                self._refusal = Refusal(reason, detail)
            frames, self._frames = self._frames, {}
        for burst in frames.values():
            _reject(burst, reason, detail)

    def abandon(self, reason: RejectReason, detail: str = "") -> None:
        """Refuse, and settle the running request too: whatever the engine still returns comes too late."""
        self.refuse(reason, detail)
        with self._lock:
            current, self._current = self._current, None
        if current is not None:
            current.reject(reason, detail)


def _reject(requests: Iterable[Pending], reason: RejectReason, detail: str) -> None:
    for pending in requests:
        pending.reject(reason, detail)


def _dead() -> pykka.ActorDeadError:
    return pykka.ActorDeadError("the actor has stopped")


def _bury(letter: Letter) -> None:
    if letter.reply_to is not None:
        error = _dead()
        letter.reply_to.set_exception((type(error), error, None))
