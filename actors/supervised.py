"""The actor that never dies in silence: with stepped_actor.py the only file that touches pykka's private hooks.

In pykka 4.4 and 4.5 an exception in `on_start` calls no hook, a SystemExit there leaves the actor registered as
alive, a BaseException in a handler stops every actor of the process, and a message put after death is never
answered. One try/finally around `_actor_loop` and a mailbox that closes cure all four.
"""

from __future__ import annotations

import contextlib
import itertools
import traceback
from contextvars import ContextVar
from typing import Any, cast

import pykka
from loguru import logger

from actors.mailbox import FORGET_LETTER, Mailbox
from messages import BlockingCallError, describe_error

_CURRENT: ContextVar[str] = ContextVar("current_actor", default="")
"""Which of our own actors runs here; empty everywhere else, in a consumer's own pykka actor too. A context variable
belongs to one thread or to one greenlet, and costs half of what a thread-local does: 35 ns against 70.
"""
_STARTED = itertools.count()


class SupervisedActor(pykka.ThreadingActor):
    """Subclasses override `open`, `handle` and `leave`; all three run on the actor's own thread, or whatever else the
    scheduling of its mailbox makes its loop run on.
    """

    def __init__(self, mailbox: Mailbox | None = None) -> None:
        super().__init__()
        self.mailbox = mailbox or Mailbox()
        # Both are documented attributes; pykka types them by its internal envelope.
        self.actor_inbox = self.mailbox  # type: ignore[assignment]
        self.actor_ref.actor_inbox = self.mailbox  # type: ignore[assignment]
        self._cause = ""
        self._left = False

    def open(self) -> None:
        """Acquire what the actor owns."""

    def handle(self, message: Any) -> Any:
        """Answer one message. An exception ends the actor."""

    def leave(self, cause: str) -> None:
        """Release what the actor owns, exactly once on every exit. `cause` is empty where it was told to stop.

        An exception is logged and stops nothing else.
        """

    def fail(self, error: BaseException) -> None:
        """End the actor after the current message, because of `error`, without keeping what its frames hold."""
        self._cause = self._cause or describe_error(error)
        forget_frames(error)
        self.stop()

    def post(self, message: object) -> None:
        """Tell this actor something from any thread; after its end nobody is there to care."""
        with contextlib.suppress(pykka.ActorDeadError):
            self.actor_ref.tell(message)

    def on_start(self) -> None:
        try:
            self.open()
        except BaseException as error:  # noqa: BLE001  # a SystemExit here would leave a dead actor looking alive
            self.fail(error)

    def on_receive(self, message: Any) -> Any:
        if message is FORGET_LETTER:
            return None
        try:
            return self.handle(message)
        except BaseException as error:  # noqa: BLE001  # pykka stops every actor of the process otherwise
            self.fail(error)
        if self.mailbox.reply_expected:
            raise pykka.ActorDeadError(f"the actor died of this message: {self._cause}")
        return None

    def on_stop(self) -> None:
        self._leave_once()

    def _start_actor_loop(self) -> None:
        self.mailbox.scheduling.start(self._actor_loop, f"{type(self).__name__}-{next(_STARTED)}")

    def _actor_loop(self) -> None:
        self.mailbox.belongs_to_this_loop()
        _CURRENT.set(type(self).__name__)
        try:
            super()._actor_loop()
        finally:
            self._leave_once()
            pykka.ActorRegistry.unregister(self.actor_ref)
            self.actor_stopped.set()
            self.mailbox.close()

    def _leave_once(self) -> None:
        if not self._left:
            self._left = True
            try:
                self.leave(self._cause)
            except BaseException as error:  # noqa: BLE001  # pykka stops every actor of the process otherwise
                logger.error("C7 {} did not leave in order; cause={}", type(self).__name__, describe_error(error))
                forget_frames(error)


def await_end(ref: pykka.ActorRef[Any], timeout_s: float) -> bool:
    """Wait until a SupervisedActor has left and released what it owned; `ref.stop()` does not wait for one that is
    already leaving. False where that took longer. An actor that asks for its own end is not kept waiting: True.
    """
    return cast("Mailbox", ref.actor_inbox).wait_closed(timeout_s)


def refuse_to_block(call: str) -> None:
    """Raises BlockingCallError on the thread of one of our own actors; does nothing on any other."""
    actor = _CURRENT.get()
    if actor:
        raise BlockingCallError(
            f"expected {call} on a consumer's thread, found it on the thread of {actor}: while that waits, "
            "nothing in its mailbox is answered, the awaited outcome perhaps among it. Use "
            "`client.send(..., reply_to=actor_ref)`, which brings the outcome as a message"
        )


def forget_frames(error: BaseException) -> None:
    """Let go of what the frames behind `error` hold, its causes' included: somebody may keep the error itself."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if link.__traceback__ is not None:
            traceback.clear_frames(link.__traceback__)
            link.__traceback__ = None
        link = link.__cause__ or link.__context__
