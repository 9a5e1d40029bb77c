"""The supervisor: it loads the engines in priority order, publishes where requests go, and restarts what dies.

It never waits for an engine: engines open on their own threads and report. It is never restarted itself: where it
dies, the process ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pykka
from loguru import logger

from actors.device_gate import DeviceGate
from actors.engine import EngineActor, EngineSpec
from actors.mailbox import Mailbox, Refusal
from actors.readiness import Readiness
from actors.restart import Quarantine, RestartPolicy, decide_restart
from actors.routes import Routes
from actors.supervised import SupervisedActor, await_end
from actors.timers import Cancel, Timers
from messages import (
    NS_PER_MS,
    NS_PER_S,
    AllEnginesLoaded,
    EngineDied,
    EngineLoaded,
    EngineLoadFailed,
    EngineQuarantined,
    EngineRestartScheduled,
    Infer,
    Message,
)
from runtimes import InferenceRuntime

Mode = Literal["takeoff", "recovery"]
"""At takeoff a failed load is final and refuses the flight; in a recovery it is one more death to restart from."""

STOP_TIMEOUT_S = 1.0
"""How long a stop waits for running requests and for engines to be released."""

SWEEP_PERIOD_NS = 100 * NS_PER_MS
"""How late a request may learn that it has expired where nobody waits for it; who waits learns at the deadline. A third
of a frame at 3 Hz."""


class SweepDue:
    """Command: settle what is overdue."""


class RestartDue:
    """Command: the delay is over, start the engine again."""

    def __init__(self, model: str) -> None:
        self.model = model


class LoadOverdue:
    """Command: judge a load that has not reported."""

    def __init__(self, model: str, generation: int) -> None:
        self.model = model
        self.generation = generation


class _Slot:
    """What the supervisor knows of one engine. Touched by its thread only."""

    def __init__(self, spec: EngineSpec) -> None:
        self.spec = spec
        self.generation = 0
        self.mailbox = Mailbox()
        self.ref: pykka.ActorRef[EngineActor] | None = None
        self.state: Literal["waiting", "loading", "serving", "down", "quarantined"] = "waiting"
        self.cancel_overdue: Cancel = _nothing_due
        self.deaths_ns: tuple[int, ...] = ()


class RuntimeSupervisor(SupervisedActor):
    """Handles `Infer` like the client does, the reports of its engines, and its own timers."""

    def __init__(
        self,
        specs: Sequence[EngineSpec],
        runtime: InferenceRuntime,
        routes: Routes,
        gate: DeviceGate,
        timers: Timers,
        readiness: Readiness,
        *,
        mode: Mode,
        load_timeout_s: float,
        policy: RestartPolicy,
        announce: Callable[[Message], None],
    ) -> None:
        super().__init__()
        self._slots = {spec.model: _Slot(spec) for spec in sorted(specs, key=lambda spec: spec.priority)}
        self._runtime = runtime
        self._routes = routes
        self._gate = gate
        self._timers = timers
        self._readiness = readiness
        self._mode = mode
        self._load_timeout_ns = round(load_timeout_s * NS_PER_S)
        self._policy = policy
        self._announce = announce
        self._all_loaded = False
        self._clock = routes.clock
        routes.publish(dict.fromkeys(self._slots, Refusal("engine_unavailable", "loading")))

    def open(self) -> None:
        self._load_next()
        self._sweep()

    def handle(self, message: Any) -> Any:
        match message:
            case Infer():
                return self._routes.submit(message)
            case EngineLoaded():
                self._serve(self._slots[message.model], message)
            case EngineLoadFailed() | EngineDied():
                self._bury(self._slots[message.model], message)
            case RestartDue():
                slot = self._slots[message.model]
                if slot.state == "down":
                    self._launch(slot)
            case LoadOverdue():
                self._judge_overdue(self._slots[message.model], message.generation)
            case SweepDue():
                self._sweep()
            case _:
                raise TypeError(f"a RuntimeSupervisor does not take a {type(message).__name__}")
        return None

    def leave(self, cause: str) -> None:
        if cause:
            logger.error("C7 supervisor died; cause={}", cause)
        self._routes.publish(dict.fromkeys(self._slots, Refusal("shutting_down", cause)))
        for model in self._readiness.undecided:
            self._readiness.failed_to_load(model, f"not loaded when the supervisor ended: {cause or 'it was stopped'}")
        for slot in self._slots.values():
            slot.cancel_overdue()
            slot.mailbox.refuse("shutting_down", cause)
            if slot.ref is not None:
                slot.ref.stop(block=False)
        end_ns = self._clock.monotonic_ns() + round(STOP_TIMEOUT_S * NS_PER_S)
        for model, slot in self._slots.items():
            left_s = (end_ns - self._clock.monotonic_ns()) / NS_PER_S
            if slot.ref is not None and not await_end(slot.ref, left_s):
                logger.error("C7 engine did not stop within {} s; backbone={}; left behind", STOP_TIMEOUT_S, model)
            slot.mailbox.abandon("shutting_down", cause)

    # Loading

    def _load_next(self) -> None:
        """One engine at a time, the most urgent first: it then serves while the others load."""
        if any(slot.state == "loading" for slot in self._slots.values()):
            return
        for slot in self._slots.values():
            if slot.state == "waiting":
                self._launch(slot)
                return

    def _launch(self, slot: _Slot) -> None:
        slot.generation += 1
        slot.mailbox = Mailbox()
        slot.state = "loading"
        slot.ref = EngineActor.start(
            slot.spec,
            slot.generation,
            self._runtime,
            self._gate,
            slot.mailbox,
            self._clock,
            self.post,
            self._load_timeout_ns,
        )
        overdue = LoadOverdue(slot.spec.model, slot.generation)
        slot.cancel_overdue = self._timers.after(self._load_timeout_ns, lambda: self.post(overdue))

    def _serve(self, slot: _Slot, loaded: EngineLoaded) -> None:
        if loaded.generation != slot.generation or slot.state != "loading":
            return
        slot.state = "serving"
        slot.cancel_overdue()
        self._routes.publish({loaded.model: slot.mailbox})
        logger.info(
            "C7 engine deserialised; backbone={} precision={} generation={} took={:.0f}ms",
            loaded.model,
            slot.spec.entry.build_config.precision,
            loaded.generation,
            loaded.load_ns / NS_PER_MS,
        )
        self._announce(loaded)
        self._decide(slot, "")
        self._load_next()

    def _judge_overdue(self, slot: _Slot, generation: int) -> None:
        if slot.generation != generation or slot.state != "loading":
            return
        # Its thread may still own the device: a second load of the same engine would only join it there.
        detail = overdue_detail(self._load_timeout_ns / NS_PER_S)
        slot.mailbox.refuse("engine_unavailable", detail)
        if slot.ref is not None:
            slot.ref.stop(block=False)  # should it still load, it is released again
        self._announce(EngineLoadFailed(slot.spec.model, generation, detail))
        self._quarantine(slot, detail)
        self._load_next()

    # Serving

    def _sweep(self) -> None:
        """On a tick, and not at each deadline: a timer for every request would cost every request."""
        now_ns = self._clock.monotonic_ns()
        for slot in self._slots.values():
            slot.mailbox.sweep(now_ns)
        self._timers.after(SWEEP_PERIOD_NS, lambda: self.post(SweepDue()))

    # Dying

    def _bury(self, slot: _Slot, death: EngineLoadFailed | EngineDied) -> None:
        if death.generation != slot.generation or slot.state == "quarantined":
            return
        slot.state = "down"
        slot.ref = None
        slot.cancel_overdue()
        self._routes.publish({death.model: Refusal("engine_unavailable", death.detail)})
        self._announce(death)
        if isinstance(death, EngineLoadFailed):
            logger.error("C7 engine not deserialised; backbone={}; {}", death.model, death.detail)
        else:
            logger.error("C7 engine died; backbone={}; {}", death.model, death.detail)
        if not self._all_loaded and (not death.detail or self._final(death)):
            self._decide(slot, death.detail or "it was stopped")
        elif death.detail:
            if not self._all_loaded:
                self._readiness.awaited_again(death.model)
            self._restart(slot, death.detail)
        self._load_next()

    def _final(self, death: EngineLoadFailed | EngineDied) -> bool:
        return isinstance(death, EngineLoadFailed) and self._mode == "takeoff"

    def _restart(self, slot: _Slot, detail: str) -> None:
        now_ns = self._clock.monotonic_ns()
        slot.deaths_ns = (*slot.deaths_ns, now_ns)[-self._policy.max_restarts - 1 :]
        decision = decide_restart(self._policy, slot.deaths_ns, now_ns)
        if isinstance(decision, Quarantine):
            self._quarantine(slot, f"{decision.detail}; last: {detail}")
            return
        model = slot.spec.model
        logger.info("C7 engine restarts; backbone={} attempt={}", model, decision.attempt)
        self._announce(EngineRestartScheduled(model, decision.attempt, decision.delay_ns))
        self._timers.after(decision.delay_ns, lambda: self.post(RestartDue(model)))

    def _quarantine(self, slot: _Slot, detail: str) -> None:
        slot.state = "quarantined"
        self._routes.publish({slot.spec.model: Refusal("engine_unavailable", f"quarantined: {detail}"[:1000])})
        logger.error("C7 engine quarantined; backbone={}; {}", slot.spec.model, detail)
        self._announce(EngineQuarantined(slot.spec.model, detail[:1000]))
        self._decide(slot, detail)

    def _decide(self, slot: _Slot, failure: str) -> None:
        """Tell whoever waits; the first time that every engine is decided, say so to everybody."""
        if failure:
            self._readiness.failed_to_load(slot.spec.model, failure)
        else:
            self._readiness.loaded(slot.spec.model)
        if self._all_loaded or self._readiness.undecided or (self._mode == "takeoff" and self._readiness.failed):
            return
        self._all_loaded = True
        serving = {model: slot for model, slot in self._slots.items() if slot.state == "serving"}
        logger.info("C7 ready: runtime={}, engines=[{}]", self._runtime.current_runtime_label(), _names(serving))
        self._announce(AllEnginesLoaded(tuple(serving), self._clock.monotonic_ns()))


def overdue_detail(load_timeout_s: float) -> str:
    return f"did not load within {load_timeout_s:g} s"


def _nothing_due() -> None:
    """No load is under way."""


def _names(slots: Mapping[str, _Slot]) -> str:
    return ", ".join(f"{model}@{slot.spec.entry.build_config.precision}" for model, slot in slots.items())
