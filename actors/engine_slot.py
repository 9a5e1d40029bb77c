"""What the supervisor knows and holds of one engine: the generation that flies, where it stands, and its record."""

from __future__ import annotations

from typing import Literal, NamedTuple

import pykka
from loguru import logger

from actors.engine import EngineActor
from actors.engine_orders import Reply
from actors.launch import EngineSpec, EngineSurroundings, Kept, KeptShelf, Launch
from actors.mailbox import Mailbox
from actors.poison import PoisonWatch
from actors.restart import CLEAN_RECORD
from actors.timers import Cancel
from messages import RejectReason, describe_error
from runtimes import InferenceRuntime

SlotState = Literal["waiting", "loading", "serving", "stopping", "down", "quarantined", "hung"]
"""`waiting` for its turn to load; `stopping` because its device's context is made anew; `down` until its restart."""


class RestartDue(NamedTuple):
    """Command: the delay is over, start the engine again; one in quarantine begins its probation."""

    model: str
    generation: int


class LoadOverdue(NamedTuple):
    """Command: judge a load that has not reported."""

    model: str
    generation: int


class SweepDue:
    """Command: settle what is overdue, and find what hangs."""


class EngineSlot:
    """Touched by the supervisor's thread only."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.state: SlotState = "waiting"
        self.generation = 0
        self.serving_since_ns: int | None = None
        self.mailbox = Mailbox()
        self.ref: pykka.ActorRef[EngineActor] | None = None
        self.record = CLEAN_RECORD
        self.kept: Kept | None = None
        self.shelf = KeptShelf(is_open=False)
        self._stale: tuple[Kept, ...] = ()
        self.cancel_due: Cancel = _nothing_due
        """Takes back its restart that is due, or the judgement of its load."""
        self.ordered: Reply | None = None
        """Who waits for its first load, which is final; None where the flight began with it, and once it was told."""
        self.unwanted = False
        """It is forgotten as soon as its actor has ended."""
        self.awaits_end: tuple[Reply, ...] = ()
        self._poison = PoisonWatch()

    def launch(self, around: EngineSurroundings, keeps_from_ns: int | None, *, loads: bool = True) -> None:
        """Start the next generation, which begins from what the last one kept, or only frees what is stale."""
        self.generation += 1
        self.serving_since_ns = None
        self.mailbox = Mailbox(scheduling=around.scheduling)
        self.state = "loading"
        kept, self.kept = self.kept, None
        stale, self._stale = self._stale, ()
        self.shelf = KeptShelf(is_open=keeps_from_ns is not None)
        launch = Launch(self.generation, kept, self.shelf, stale, keeps_from_ns or 0, loads)
        self.ref = EngineActor.start(self.spec, launch, around, self.mailbox, self._poison)

    def turn_away(self, reason: RejectReason, detail: str) -> None:
        """Settle what waits, take nothing more, and have the engine end after the run or the load it is in.

        A load is still judged when it is overdue: it may never return, and others may wait for it.
        """
        self.mailbox.refuse(reason, detail)
        if self.ref is not None:
            self.ref.stop(block=False)

    def forget_kept(self) -> None:
        """The next start reads and verifies everything anew, also where this one has not ended yet.

        It frees what was kept: on its own thread, because that may fail or hang like any other call of a runtime.
        """
        self._stale += tuple(kept for kept in (self.kept, self.shelf.close()) if kept is not None)
        self.kept = None

    def free_kept(self, runtime: InferenceRuntime) -> None:
        """Where no start follows. What cannot be freed is logged."""
        self.forget_kept()
        stale, self._stale = self._stale, ()
        for kept in stale:
            try:
                runtime.release_engine(kept.handle)
            except Exception as error:  # noqa: BLE001, PERF203  # the others are freed all the same
                logger.error("C7 engine not freed; backbone={}; {}", self.spec.model, describe_error(error))

    def tell_gone(self) -> None:
        """Answer those who wait for its end: it is gone, or left behind."""
        waiting, self.awaits_end = self.awaits_end, ()
        for reply in waiting:
            reply.give()

    @property
    def is_awaited(self) -> bool:
        """It loads, and will serve."""
        return self.state == "loading" and not self.unwanted

    @property
    def has_stale(self) -> bool:
        """Whether something is left of it that nothing may begin from any more, and that is not freed."""
        return bool(self._stale)

    @property
    def precision(self) -> str:
        return self.spec.entry.build_config.precision

    def served_ns(self, now_ns: int) -> int:
        """How long this start has served, or had when it ended; at least 1 where it did."""
        return 0 if self.serving_since_ns is None else max(1, now_ns - self.serving_since_ns)

    def running_ns(self, now_ns: int) -> int | None:
        """How long its engine has been at a run or a self-test; None where it is at none."""
        since_ns = self.mailbox.running_since_ns
        return None if since_ns is None else now_ns - since_ns


def _nothing_due() -> None:
    """No load is under way, and no restart."""
