"""The supervisor: it loads the engines in priority order and restarts what dies.

It never waits for an engine: they open on their own threads and report. Where it dies itself, the process ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from loguru import logger

from actors.announcements import Announcements
from actors.engine_slot import EngineSlot, LoadOverdue, RestartDue, SweepDue
from actors.launch import EngineEnded, EngineSpec, EngineSurroundings
from actors.mailbox import Mailbox
from actors.readiness import Readiness, overdue_detail
from actors.restart import (
    REMEDIES,
    Death,
    Quarantine,
    RestartPolicy,
    begin_probation,
    judge_death,
    keeps_module_from_ns,
)
from actors.routes import Routes
from actors.supervised import SupervisedActor, await_end
from actors.timers import Timers
from messages import (
    NS_PER_MS,
    NS_PER_S,
    EngineDied,
    EngineHung,
    EngineLoaded,
    EngineLoadFailed,
    FaultClass,
    Infer,
    Message,
)

Mode = Literal["takeoff", "recovery"]
"""At takeoff a failed load is final and refuses the flight; in a recovery it is one more death to restart from."""

STOP_TIMEOUT_S = 1.0
"""How long a stop waits for running requests and for engines to be released."""

SWEEP_PERIOD_NS = 100 * NS_PER_MS
"""How late a request may learn that it has expired where nobody waits for it; who waits learns at the deadline. A third
of a frame at 3 Hz. A hang is found as late."""


class RuntimeSupervisor(SupervisedActor):
    """Handles `Infer` like the client does, the reports of its engines, and its own timers.

    `surround` is given where engines report to. `record` and `need_restart` are called on this actor's thread and
    never block; `need_restart` at most once, with why only another process can fly on. `chance` gives numbers from 0
    up to, not including, 1.
    """

    def __init__(
        self,
        specs: Sequence[EngineSpec],
        surround: Callable[[Callable[[EngineLoaded | EngineEnded], None]], EngineSurroundings],
        routes: Routes,
        timers: Timers,
        readiness: Readiness,
        *,
        mode: Mode,
        policy: RestartPolicy,
        record: Callable[[Message], None],
        need_restart: Callable[[str], None],
        chance: Callable[[], float],
    ) -> None:
        around = surround(self.post)
        super().__init__(Mailbox(scheduling=around.scheduling))
        by_urgency = sorted(specs, key=lambda spec: spec.priority)
        self._slots = {spec.model: EngineSlot(spec) for spec in by_urgency}
        self._around = around
        self._routes = routes
        self._timers = timers
        self._readiness = readiness
        self._say = Announcements(routes, readiness, record)
        self._mode = mode
        self._policy = policy
        self._need_restart = need_restart
        self._chance = chance
        self._all_loaded = False
        self._given_up = False
        self._now_ns = routes.clock.monotonic_ns
        self._swept_ns = self._now_ns()
        self._say.turned_away(self._slots, "engine_unavailable", "loading")

    def open(self) -> None:
        self._load_next()
        self._sweep()

    def handle(self, message: Any) -> Any:
        match message:
            case Infer():
                return self._routes.submit_made(message)
            case EngineLoaded():
                self._serve(self._slots[message.model], message)
            case EngineEnded():
                self._bury(self._slots[message.fact.model], message)
            case RestartDue():
                self._restart(self._slots[message.model], message.generation)
            case LoadOverdue():
                self._judge_overdue(self._slots[message.model], message)
            case SweepDue():
                self._sweep()
            case _:  # a consumer's mistake: the others fly on
                logger.error("C7 supervisor was sent a {}; it takes an Infer", type(message).__name__)
        return None

    def leave(self, cause: str) -> None:
        self._say.supervisor_ended(self._slots, cause)
        for slot in self._slots.values():
            slot.turn_away("shutting_down", cause)
        end_ns = self._now_ns() + round(STOP_TIMEOUT_S * NS_PER_S)
        for model, slot in self._slots.items():
            left_s = 0.0 if slot.state == "hung" else (end_ns - self._now_ns()) / NS_PER_S
            if slot.ref is not None and not await_end(slot.ref, left_s):
                logger.error("C7 engine did not stop within {} s; backbone={}; left behind", STOP_TIMEOUT_S, model)
            slot.mailbox.abandon("shutting_down", cause)
        if cause:
            self._need_restart(f"the supervisor died: {cause}")
        for slot in () if self._given_up else self._slots.values():
            slot.free_kept(self._around.runtime)

    # Loading

    def _load_next(self) -> None:
        """One after the other, the most urgent first, and none while the context of their device is given up."""
        busy = any(slot.state in {"loading", "stopping"} for slot in self._slots.values())
        waiting = next((slot for slot in self._slots.values() if slot.state == "waiting"), None)
        if waiting is not None and not busy:
            self._launch(waiting)

    def _launch(self, slot: EngineSlot) -> None:
        if self._given_up:
            return
        slot.launch(self._around, keeps_module_from_ns(self._policy, slot.record))
        overdue = LoadOverdue(slot.spec.model, slot.generation)
        slot.cancel_overdue = self._timers.after(self._around.load_timeout_ns, lambda: self.post(overdue))

    def _serve(self, slot: EngineSlot, loaded: EngineLoaded) -> None:
        if loaded.generation != slot.generation or slot.state != "loading" or self._given_up:
            return
        slot.state, slot.serving_since_ns = "serving", self._now_ns()
        slot.cancel_overdue()
        self._say.loaded(loaded, slot.precision, slot.mailbox)
        self._decide(slot, "")
        self._load_next()

    def _judge_overdue(self, slot: EngineSlot, overdue: LoadOverdue) -> None:
        if slot.generation != overdue.generation or slot.state not in {"loading", "stopping"} or self._given_up:
            return
        running_ns = slot.running_ns(self._now_ns())
        if running_ns is not None and running_ns > slot.spec.run_limit_ns:
            self._fence(slot, running_ns)
            return
        if running_ns is not None:  # it has only just begun its self-test, or to let go
            slot.cancel_overdue = self._timers.after(SWEEP_PERIOD_NS, lambda: self.post(overdue))
            return
        # Its thread may still be inside the library: a second load of the same engine would only join it there.
        detail = overdue_detail(self._around.load_timeout_ns / NS_PER_S)
        slot.turn_away("engine_unavailable", detail)  # should it still load, it is released again
        if slot.state == "loading":  # of one that is stopping the end was said before
            self._around.count_fault(slot.spec.model, "hang")
            self._say.not_loaded_in_time(EngineLoadFailed(slot.spec.model, slot.generation, detail, "hang"))
        self._quarantine(slot, Quarantine(detail, 0))
        self._load_next()

    def _sweep(self) -> None:
        """On a tick, and not at each deadline: a timer for every request would cost every request."""
        now_ns = self._now_ns()
        stood_still = now_ns - self._swept_ns > NS_PER_S  # the whole process: what ran meanwhile had no time either
        self._swept_ns = now_ns
        for slot in self._slots.values():
            slot.mailbox.sweep(now_ns)
            running_ns = None if stood_still or slot.state in {"loading", "hung"} else slot.running_ns(now_ns)
            if running_ns is not None and running_ns > slot.spec.run_limit_ns:
                self._fence(slot, running_ns)
        self._timers.after(SWEEP_PERIOD_NS, lambda: self.post(SweepDue()))

    def _fence(self, slot: EngineSlot, running_ns: int) -> None:
        """A thread cannot be ended: what it holds is settled, and its device is left to it."""
        detail = f"{slot.spec.model} has not returned for {running_ns / NS_PER_S:.1f} s"
        slot.state = "hung"
        self._around.gate.fence(detail)
        self._around.count_fault(slot.spec.model, "hang")
        slot.turn_away("engine_unavailable", detail)
        slot.mailbox.abandon(REMEDIES["hang"].reason, detail)
        self._say.hung(EngineHung(slot.spec.model, slot.generation, running_ns))
        self._give_up_process("hang", detail)

    # Dying

    def _bury(self, slot: EngineSlot, ended: EngineEnded) -> None:
        death = ended.fact
        if death.generation != slot.generation:
            return
        scope = REMEDIES[death.fault].scope
        gone = bool(death.detail) and scope == "process"
        if gone and slot.state in {"stopping", "quarantined"}:  # that it ended, and why, was said before it had
            self._give_up_process(death.fault, death.detail)
        if slot.state in {"quarantined", "hung"}:
            return
        slot.cancel_overdue()
        slot.ref, slot.kept = None, slot.shelf.close()
        if slot.state == "stopping":
            slot.state = "waiting"
            self._load_next()
            return
        slot.state = "down"
        self._say.ended(death)
        if self._given_up:
            return
        if gone:
            self._give_up_process(death.fault, death.detail)
        elif not self._all_loaded and (not death.detail or (self._mode, type(death)) == ("takeoff", EngineLoadFailed)):
            self._decide(slot, death.detail or "it was stopped")
        elif death.detail:
            if not self._all_loaded:
                self._readiness.awaited_again(death.model)
            if scope == "device":
                self._give_up_context(death.model)
            now_ns = self._now_ns()
            self._judge(slot, Death(now_ns, death.fault, slot.served_ns(now_ns)), death.detail)
        self._load_next()

    def _judge(self, slot: EngineSlot, death: Death, detail: str) -> None:
        decision, slot.record = judge_death(self._policy, slot.record, death, self._chance())
        if isinstance(decision, Quarantine):
            self._quarantine(slot, Quarantine(f"{decision.detail}; last: {detail}", decision.probation_in_ns))
        else:
            self._say.restarts(slot.spec.model, decision)
            self._restart_after(slot, decision.delay_ns)

    def _restart_after(self, slot: EngineSlot, delay_ns: int) -> None:
        due = RestartDue(slot.spec.model, slot.generation)
        self._timers.after(delay_ns, lambda: self.post(due))

    def _restart(self, slot: EngineSlot, generation: int) -> None:
        if slot.generation != generation or slot.state not in {"down", "quarantined"} or self._given_up:
            return
        if slot.state == "quarantined":
            slot.record = begin_probation(slot.record)
            self._say.probation_began(slot.spec.model)
        if any(other.state in {"waiting", "stopping"} for other in self._slots.values()):
            slot.state = "waiting"
            self._load_next()
        else:
            self._launch(slot)

    def _quarantine(self, slot: EngineSlot, quarantine: Quarantine) -> None:
        slot.state = "quarantined"
        self._say.quarantined(slot.spec.model, quarantine)
        if quarantine.probation_in_ns:
            self._restart_after(slot, quarantine.probation_in_ns)
        self._decide(slot, quarantine.detail)

    def _give_up_context(self, lost_with: str) -> None:
        """Stop every other engine of the device. They load again, by priority, once all of them have let go of it."""
        detail = f"the device's context was lost with {lost_with}"
        for model, slot in self._slots.items():
            slot.forget_kept()
            if slot.state in {"loading", "serving"}:
                fact = EngineDied if slot.state == "serving" else EngineLoadFailed
                slot.turn_away("engine_unavailable", detail)
                slot.state = "stopping"
                self._say.ended(fact(model, slot.generation, detail, "context_fault"))
                if not self._all_loaded:
                    self._readiness.awaited_again(model)

    def _give_up_process(self, fault: FaultClass, detail: str) -> None:
        """No engine answers again on a device that is fenced: say so, also to whoever can start another process."""
        if self._given_up:
            return
        self._given_up = True
        for slot in self._slots.values():
            slot.cancel_overdue()
            slot.shelf.close()  # what still dies frees its engine on its own thread
            slot.mailbox.refuse("engine_unavailable", detail)
        self._say.process_restart_needed(self._slots, fault, detail)
        self._need_restart(detail)

    def _decide(self, slot: EngineSlot, failure: str) -> None:
        """Tell whoever waits; the first time that every engine is decided, say so to everybody."""
        if failure:
            self._readiness.failed_to_load(slot.spec.model, failure)
        else:
            self._readiness.loaded(slot.spec.model)
        if self._all_loaded or self._readiness.undecided or (self._mode == "takeoff" and self._readiness.failed):
            return
        self._all_loaded = True
        serving = {model: slot.precision for model, slot in self._slots.items() if slot.state == "serving"}
        self._say.all_loaded(self._around.runtime.current_runtime_label(), serving, self._now_ns())
