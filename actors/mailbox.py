"""An actor's mailbox: a control lane ahead of a bounded work lane.

pykka sees only a token for work, so its loop never keeps a tensor alive, and a stop is never stuck behind frames.
The work lane is bounded in whole frames per consumer: a newer frame takes the place of the consumer's oldest one,
all requests of it, because half a frame's matches are worth nothing. Nothing here ever blocks a sender.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pykka

from messages import RejectReason

if TYPE_CHECKING:
    from actors.pending import Pending

FRAMES_PER_CONSUMER = 2
"""That wait, beside the request that runs; a third one would be stale before its turn at 3 Hz."""
REQUESTS_PER_FRAME = 64
"""One frame's burst is 13 matches; past this a consumer floods."""
FRAMES_TOTAL = 64
"""All consumers together."""


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

    def __init__(self, frames_per_consumer: int = FRAMES_PER_CONSUMER) -> None:
        self._frames_per_consumer = frames_per_consumer
        self._lock = threading.Lock()
        self._bell = threading.Lock()
        self._bell.acquire()
        self._asleep = False
        self._handed: Letter = FORGET_LETTER
        self._ended = threading.Event()
        self._reader: int | None = None
        self._control: deque[Letter] = deque()
        self._frames: dict[tuple[str, int], deque[Pending]] = {}
        self._current: Pending | None = None
        self._refusal: Refusal | None = None
        self._closed = False

    # The control lane

    def put(self, letter: Letter) -> None:
        """Raises pykka.ActorDeadError once the actor has left, also where the sender saw it alive just before."""
        with self._lock:
            if not self._closed:
                self._control.append(letter)
                self._ring()
                return
        if letter.reply_to is None:
            raise _dead()
        _bury(letter)

    def get(self) -> Letter:
        """Wait for the next letter; only the actor's own idle thread waits here."""
        while True:
            with self._lock:
                if self._control:
                    self._handed = self._control.popleft()
                    return self._handed
                if self._frames:
                    self._handed = WORK_AVAILABLE
                    return WORK_AVAILABLE
                if type(self._handed) is not Token:
                    self._handed = FORGET_LETTER
                    return FORGET_LETTER
                self._asleep = True
            self._bell.acquire()

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
        for letter in letters:
            _bury(letter)
        self._ended.set()

    def wait_closed(self, timeout_s: float) -> bool:
        """Wait until the actor has left. False where that took longer; its own thread is not kept waiting."""
        return self._reader == threading.get_ident() or self._ended.wait(max(0.0, timeout_s))

    def belongs_to_this_thread(self) -> None:
        """The actor's thread names itself, so that it never waits for its own end."""
        self._reader = threading.get_ident()

    # The work lane

    def offer(self, pending: Pending) -> Refusal | None:
        """Hold the request until it is settled, or say why not. The caller rejects what is refused."""
        consumer = pending.consumer
        frame = (consumer, pending.frame_id)
        stale: Iterable[Pending] = ()
        try:
            with self._lock:
                if self._refusal is not None:
                    return self._refusal
                burst = self._frames.get(frame)
                if burst is None:
                    if self._frames:
                        waiting = [key for key in self._frames if key[0] == consumer]
                        if len(waiting) >= self._frames_per_consumer:
                            stale = self._frames[waiting[0]]
                            del self._frames[waiting[0]]
                        elif len(self._frames) >= FRAMES_TOTAL:
                            return Refusal("shed", f"{FRAMES_TOTAL} frames of all consumers are waiting")
                    self._frames[frame] = deque((pending,))
                elif len(burst) >= REQUESTS_PER_FRAME:
                    return Refusal("shed", f"{REQUESTS_PER_FRAME} requests of this frame are waiting")
                else:
                    burst.append(pending)
                self._ring()
            if stale:
                _reject(stale, "shed", f"frame {pending.frame_id} took its place")
        except BaseException:  # a Ctrl-C on the consumer's thread: what was taken out has nobody else to settle it
            _reject(stale, "shed", f"frame {pending.frame_id} was to take its place")
            raise
        return None

    def take(self) -> Pending | None:
        """The next request, which stays in the mailbox's keeping until `finish`. None where it was shed meanwhile."""
        with self._lock:
            if not self._frames:
                return None
            frame, burst = next(iter(self._frames.items()))
            self._current = burst.popleft()
            if not burst:
                del self._frames[frame]
            return self._current

    def finish(self) -> None:
        """The request last taken has its outcome."""
        self._current = None

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

    def _ring(self) -> None:
        # In this order: a Ctrl-C between the two must not leave a reader asleep whom nobody rings any more.
        if self._asleep:
            if self._bell.locked():
                self._bell.release()
            self._asleep = False


def _reject(requests: Iterable[Pending], reason: RejectReason, detail: str) -> None:
    for pending in requests:
        pending.reject(reason, detail)


def _dead() -> pykka.ActorDeadError:
    return pykka.ActorDeadError("the actor has stopped")


def _bury(letter: Letter) -> None:
    if letter.reply_to is not None:
        error = _dead()
        letter.reply_to.set_exception((type(error), error, None))
