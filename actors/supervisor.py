"""The supervisor: it loads the engines in priority order and restarts what dies.

It never waits for an engine: they open on their own threads and report. Where it dies itself, the process ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from loguru import logger

from actors.announcements import Announcements
from actors.engine_loads import EngineLoads
from actors.engine_orders import LoadEngine, ReleaseEngine
from actors.engine_slot import EngineSlot, LoadOverdue, RestartDue, SweepDue
from actors.launch import EngineEnded, EngineSpec, EngineSurroundings
from actors.mailbox import Mailbox
from actors.readiness import Readiness, overdue_detail
from actors.restart import REMEDIES, Death, Quarantine, RestartPolicy, begin_probation, judge_death
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
        self._around = around
        self._routes = routes
        self._timers = timers
        self._readiness = readiness
        self._say = Announcements(routes, readiness, record)
        self._loads = EngineLoads(
            specs,
            around,
            timers,
            readiness,
            self._say,
            failure_is_final=mode == "takeoff",
            policy=policy,
            post=self.post,
        )
        self._slots = self._loads.slots
        self._mode = mode
        self._policy = policy
        self._need_restart = need_restart
        self._chance = chance
        self._now_ns = routes.clock.monotonic_ns
        self._swept_ns = self._now_ns()
        self._say.turned_away(self._slots, "engine_unavailable", "loading")

    def open(self) -> None:
        self._loads.load_next()
        self._sweep()

    def handle(self, message: Any) -> Any:
        match message:
            case Infer():
                return self._routes.submit_made(message)
            case EngineLoaded():
                self._serve(self._slots[message.model], message)
            case EngineEnded():
                self._bury(self._slots[message.fact.model], message.fact)
            case RestartDue():
                self._restart(self._slots.get(message.model), message.generation)
            case LoadOverdue():
                self._judge_overdue(self._slots.get(message.model), message)
            case SweepDue():
                self._sweep()
            case LoadEngine():
                self._loads.take(message)
            case ReleaseEngine():
                self._loads.let_go(message)
            case _:  # a consumer's mistake: the others fly on
                logger.error("C7 supervisor was sent a {}; it takes an Infer", type(message).__name__)
        return None

    def leave(self, cause: str) -> None:
        device_is_left_alone = self._given_up
        self._say.supervisor_ended(self._slots, cause)
        self._loads.give_up(f"the supervisor ended: {cause or 'it was stopped'}", "engine_fault")
        for slot in self._slots.values():
            slot.turn_away("shutting_down", cause)
        end_ns = self._now_ns() + round(STOP_TIMEOUT_S * NS_PER_S)
        for model, slot in self._slots.items():
            left_s = 0.0 if slot.state == "hung" else (end_ns - self._now_ns()) / NS_PER_S
            if slot.ref is not None and not await_end(slot.ref, left_s):
                logger.error("C7 engine did not stop within {} s; backbone={}; left behind", STOP_TIMEOUT_S, model)
            slot.mailbox.abandon("shutting_down", cause)
            slot.tell_gone()
        if cause:
            self._need_restart(f"the supervisor died: {cause}")
        for slot in () if device_is_left_alone else self._slots.values():
            slot.free_kept(self._around.runtime)

    @property
    def _given_up(self) -> bool:
        return self._loads.given_up is not None

    def _serve(self, slot: EngineSlot, loaded: EngineLoaded) -> None:
        if loaded.generation == slot.generation and slot.is_awaited and not self._given_up:
            self._loads.serve(slot, loaded)

    def _judge_overdue(self, slot: EngineSlot | None, overdue: LoadOverdue) -> None:
        if slot is None or slot.generation != overdue.generation or self._given_up:
            return
        if slot.state not in {"loading", "stopping"}:
            return
        running_ns = slot.running_ns(self._now_ns())
        if running_ns is not None and running_ns > slot.spec.run_limit_ns:
            self._fence(slot, running_ns)
            return
        if running_ns is not None:  # it has only just begun its self-test, or to let go
            slot.cancel_due = self._timers.after(SWEEP_PERIOD_NS, lambda: self.post(overdue))
            return
        # Its thread may still be inside the library: a second load of the same engine would only join it there.
        detail = overdue_detail(self._around.load_timeout_ns / NS_PER_S)
        slot.turn_away("engine_unavailable", detail)  # should it still load, it is released again
        if slot.state == "loading":  # of one that is stopping the end was said before
            self._around.count_fault(slot.spec.model, "hang")
            self._say.not_loaded_in_time(EngineLoadFailed(slot.spec.model, slot.generation, detail, "hang"))
        slot.unwanted = self._loads.fail_order(slot, detail, "hang") or slot.unwanted
        slot.tell_gone()
        self._quarantine(slot, Quarantine(detail, 0))
        self._loads.load_next()

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
        slot.tell_gone()
        self._say.hung(EngineHung(slot.spec.model, slot.generation, running_ns))
        self._give_up_process("hang", detail)

    # Dying

    def _bury(self, slot: EngineSlot, death: EngineDied | EngineLoadFailed) -> None:
        if death.generation != slot.generation:
            return
        scope = REMEDIES[death.fault].scope
        gone = bool(death.detail) and scope == "process"
        if gone and slot.state in {"stopping", "quarantined"}:  # that it ended, and why, was said before it had
            self._give_up_process(death.fault, death.detail)
        slot.ref = None
        if slot.state in {"quarantined", "hung"} and not slot.unwanted:
            return
        slot.cancel_due()
        slot.kept = slot.shelf.close()
        if slot.unwanted:
            self._loads.forget(slot)
            return
        if slot.state == "stopping":
            slot.state = "waiting"
            self._loads.load_next()
            return
        slot.state = "down"
        self._say.ended(death)
        if self._given_up:
            return
        if gone:
            self._give_up_process(death.fault, death.detail)
        elif self._loads.fail_order(slot, death.detail or "it was stopped", death.fault):
            if scope == "device":
                self._give_up_context(death.model)
            self._loads.forget(slot)
        elif not self._loads.all_loaded and (
            not death.detail or (self._mode, type(death)) == ("takeoff", EngineLoadFailed)
        ):
            self._loads.decide(slot, death.detail or "it was stopped")
        elif death.detail:
            if not self._loads.all_loaded:
                self._readiness.awaited_again(death.model)
            if scope == "device":
                self._give_up_context(death.model)
            now_ns = self._now_ns()
            self._judge(slot, Death(now_ns, death.fault, slot.served_ns(now_ns)), death.detail)
        self._loads.load_next()

    def _judge(self, slot: EngineSlot, death: Death, detail: str) -> None:
        decision, slot.record = judge_death(self._policy, slot.record, death, self._chance())
        if isinstance(decision, Quarantine):
            self._quarantine(slot, Quarantine(f"{decision.detail}; last: {detail}", decision.probation_in_ns))
        else:
            self._say.restarts(slot.spec.model, decision)
            self._restart_after(slot, decision.delay_ns)

    def _restart_after(self, slot: EngineSlot, delay_ns: int) -> None:
        due = RestartDue(slot.spec.model, slot.generation)
        slot.cancel_due = self._timers.after(delay_ns, lambda: self.post(due))

    def _restart(self, slot: EngineSlot | None, generation: int) -> None:
        if slot is None or slot.generation != generation or self._given_up:
            return
        if slot.state not in {"down", "quarantined"}:
            return
        if slot.state == "quarantined":
            slot.record = begin_probation(slot.record)
            self._say.probation_began(slot.spec.model)
        if any(other.state in {"waiting", "stopping"} for other in self._slots.values()):
            slot.state = "waiting"
            self._loads.load_next()
        else:
            self._loads.launch(slot)

    def _quarantine(self, slot: EngineSlot, quarantine: Quarantine) -> None:
        slot.state = "quarantined"
        self._say.quarantined(slot.spec.model, quarantine)
        if quarantine.probation_in_ns:
            self._restart_after(slot, quarantine.probation_in_ns)
        self._loads.decide(slot, quarantine.detail)

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
                if not self._loads.all_loaded:
                    self._readiness.awaited_again(model)

    def _give_up_process(self, fault: FaultClass, detail: str) -> None:
        """No engine answers again on a device that is fenced: say so, also to whoever can start another process."""
        if self._given_up:
            return
        self._loads.give_up(f"process restart needed: {detail}", fault)
        for slot in self._slots.values():
            slot.cancel_due()
            slot.shelf.close()  # what still dies frees its engine on its own thread
            slot.mailbox.refuse("engine_unavailable", detail)
        self._say.process_restart_needed(self._slots, fault, detail)
        self._need_restart(detail)
