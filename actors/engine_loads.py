"""Which engine loads next, who waits for one to be loaded or gone, and when all of them are."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from actors.announcements import Announcements, bounded
from actors.engine_orders import LoadEngine, ReleaseEngine
from actors.engine_slot import EngineSlot, LoadOverdue
from actors.launch import EngineSpec, EngineSurroundings
from actors.readiness import Readiness
from actors.restart import RestartPolicy, keeps_module_from_ns
from actors.timers import Timers
from messages import Clock, EngineLoaded, EngineLoadFailed, FaultClass


class EngineLoads:
    """The supervisor's table of engines, with the order in which they load. Touched by its thread only."""

    def __init__(
        self,
        specs: Iterable[EngineSpec],
        around: EngineSurroundings,
        timers: Timers,
        readiness: Readiness,
        say: Announcements,
        *,
        failure_is_final: bool,
        policy: RestartPolicy,
        post: Callable[[LoadOverdue], None],
    ) -> None:
        self.slots = {spec.model: EngineSlot(spec) for spec in sorted(specs, key=_priority)}
        self.all_loaded = not self.slots
        self.given_up: EngineLoadFailed | None = None
        self._around = around
        self._timers = timers
        self._readiness = readiness
        self._say = say
        self._failure_is_final = failure_is_final
        self._policy = policy
        self._post = post
        self._generations: dict[str, int] = {}

    # One after the other

    def load_next(self) -> None:
        """The most urgent first, and none while the context of their device is given up."""
        busy = any(slot.state in {"loading", "stopping"} for slot in self.slots.values())
        waiting = [slot for slot in self.slots.values() if slot.state == "waiting"]
        if waiting and not busy:
            self.launch(min(waiting, key=lambda slot: slot.spec.priority))

    def launch(self, slot: EngineSlot) -> None:
        """Start the next generation of this engine; nothing where the process is given up."""
        if self.given_up is None:
            slot.launch(self._around, keeps_module_from_ns(self._policy, slot.record))
            self._judge_when_overdue(slot)

    def serve(self, slot: EngineSlot, loaded: EngineLoaded) -> None:
        """It answers from here on."""
        slot.state, slot.serving_since_ns = "serving", self._clock.monotonic_ns()
        slot.cancel_due()
        self._say.loaded(loaded, slot.precision, slot.mailbox)
        if slot.ordered is not None:
            slot.ordered.give()
            slot.ordered = None
            self._say.ready(self._label, self._serving())
        self.decide(slot, "")
        self.load_next()

    def decide(self, slot: EngineSlot, failure: str) -> None:
        """Tell whoever waits; the first time that every engine is decided, say so to everybody."""
        if failure:
            self._readiness.failed_to_load(slot.spec.model, failure)
        else:
            self._readiness.loaded(slot.spec.model)
        self._say_once_all_are_decided()

    def _say_once_all_are_decided(self) -> None:
        if self.all_loaded or self._readiness.undecided or (self._failure_is_final and self._readiness.failed):
            return
        self.all_loaded = True
        self._say.all_loaded(self._label, self._serving(), self._clock.monotonic_ns())

    # Orders

    def take(self, order: LoadEngine) -> None:
        """Load an engine that the flight did not begin with."""
        spec = order.spec
        known = self.slots.get(spec.model)
        if self.given_up is not None:
            order.reply.give(self.given_up)
        elif known is not None:
            detail = "its last load has not returned" if known.unwanted else "it is part of the flight already"
            order.reply.give(EngineLoadFailed(spec.model, known.generation, detail, "engine_fault"))
        else:
            slot = self.slots[spec.model] = EngineSlot(spec)
            slot.generation = self._generations.get(spec.model, 0)
            slot.ordered = order.reply
            self._say.expected(spec.model)
            self.load_next()

    def let_go(self, order: ReleaseEngine) -> None:
        """Refuse what waits for the engine and have it end. It is gone once its actor is."""
        slot = self.slots.get(order.model)
        if slot is None:
            order.reply.give()
            return
        detail = "it was released"
        self.fail_order(slot, detail, "engine_fault")
        slot.unwanted, slot.awaits_end = True, (*slot.awaits_end, order.reply)
        slot.forget_kept()
        slot.turn_away("engine_unavailable", detail)
        self._say.turned_away([order.model], "engine_unavailable", detail)
        if slot.state == "serving":  # a load goes on: its self-test may take longer than a run
            slot.state = "stopping"
        if slot.ref is None:
            self.forget(slot)
        elif slot.state in {"hung", "quarantined"}:  # its thread is inside the library, who knows for how long
            slot.tell_gone()

    def forget(self, slot: EngineSlot) -> None:
        """Nobody wants it and its actor is gone. What it had kept is freed first, on an actor of its own."""
        slot.cancel_due()
        if slot.has_stale and self.given_up is None:
            slot.launch(self._around, None, loads=False)
            slot.state = "stopping"
            self._judge_when_overdue(slot)
            return
        model = slot.spec.model
        self._generations[model] = slot.generation
        del self.slots[model]
        self._say.withdrawn(model)
        self._readiness.forget(model)
        self._say_once_all_are_decided()
        slot.tell_gone()
        self.load_next()

    def fail_order(self, slot: EngineSlot, detail: str, fault: FaultClass) -> bool:
        """Tell whoever ordered this engine that it did not load. False where nobody waits for that."""
        reply, slot.ordered = slot.ordered, None
        if reply is None:
            return False
        reply.give(EngineLoadFailed(slot.spec.model, slot.generation, bounded(detail), fault))
        return True

    def give_up(self, detail: str, fault: FaultClass) -> None:
        """Load nothing any more."""
        self.given_up = EngineLoadFailed("", 0, bounded(detail), fault)
        for slot in self.slots.values():
            self.fail_order(slot, detail, fault)

    def _judge_when_overdue(self, slot: EngineSlot) -> None:
        overdue = LoadOverdue(slot.spec.model, slot.generation)
        slot.cancel_due = self._timers.after(self._around.load_timeout_ns, lambda: self._post(overdue))

    def _serving(self) -> dict[str, str]:
        return {model: slot.precision for model, slot in self.slots.items() if slot.state == "serving"}

    @property
    def _clock(self) -> Clock:
        return self._around.clock

    @property
    def _label(self) -> str:
        return self._around.runtime.current_runtime_label()


def _priority(spec: EngineSpec) -> int:
    return spec.priority
