"""What becomes of the engines, said everywhere at once: to who sends requests, who waits, who reads the log and the
recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from loguru import logger

from actors.mailbox import Refusal
from actors.readiness import Readiness
from actors.restart import Quarantine, RestartAfter
from actors.routes import Routes, Target
from messages import (
    NS_PER_MS,
    AllEnginesLoaded,
    EngineDied,
    EngineHung,
    EngineLoaded,
    EngineLoadFailed,
    EngineQuarantined,
    EngineRestartScheduled,
    FaultClass,
    Message,
    ProcessRestartNeeded,
    RejectReason,
)
from messages.errors import DETAIL_MAX_CHARS


class Announcements:
    """Used by the supervisor's thread only. It decides nothing."""

    def __init__(self, routes: Routes, readiness: Readiness, record: Callable[[Message], None]) -> None:
        self._routes = routes
        self._readiness = readiness
        self._record = record
        self._restart_needed = ""

    def turned_away(self, models: Iterable[str], reason: RejectReason, detail: str) -> None:
        """Whoever asks for these models from here on is told so at once."""
        self._routes.publish(dict.fromkeys(models, Refusal(reason, bounded(detail))))

    def expected(self, model: str) -> None:
        """An engine is to load that the flight did not begin with."""
        self._routes.ledger.add(model)
        self.turned_away([model], "engine_unavailable", "loading")

    def withdrawn(self, model: str) -> None:
        """Nobody flies this engine any more; its name is unknown again."""
        self._routes.withdraw(model)
        logger.info("C7 engine is no longer part of the flight; backbone={}", model)

    def loaded(self, fact: EngineLoaded, precision: str, target: Target) -> None:
        self._routes.publish({fact.model: target})
        logger.info(
            "C7 engine deserialised; backbone={} precision={} generation={} took={:.0f}ms",
            fact.model,
            precision,
            fact.generation,
            fact.load_ns / NS_PER_MS,
        )
        self._record(fact)

    def not_loaded_in_time(self, fact: EngineLoadFailed) -> None:
        self._record(fact)

    def ended(self, fact: EngineDied | EngineLoadFailed) -> None:
        self.turned_away([fact.model], "engine_unavailable", self._restart_needed or fact.detail)
        what = "not deserialised" if isinstance(fact, EngineLoadFailed) else "died"
        logger.error("C7 engine {}; backbone={}; {}", what, fact.model, fact.detail)
        self._record(fact)

    def hung(self, fact: EngineHung) -> None:
        logger.error("C7 engine hangs; backbone={} since={:.0f}ms", fact.model, fact.running_ns / NS_PER_MS)
        self._record(fact)

    def restarts(self, model: str, restart: RestartAfter) -> None:
        logger.info("C7 engine restarts; backbone={} attempt={}", model, restart.attempt)
        self._record(EngineRestartScheduled(model, restart.attempt, restart.delay_ns))

    def quarantined(self, model: str, quarantine: Quarantine) -> None:
        self.turned_away([model], "engine_unavailable", f"quarantined: {quarantine.detail}")
        logger.error("C7 engine quarantined; backbone={}; {}", model, quarantine.detail)
        self._record(EngineQuarantined(model, bounded(quarantine.detail), quarantine.probation_in_ns))

    def probation_began(self, model: str) -> None:
        logger.info("C7 engine on probation; backbone={}", model)

    def process_restart_needed(self, models: Iterable[str], fault: FaultClass, detail: str) -> None:
        self._restart_needed = refusal = f"process restart needed: {detail}"
        self.turned_away(models, "engine_unavailable", refusal)
        for model in self._readiness.undecided:
            self._readiness.failed_to_load(model, refusal)
        logger.error("C7 process restart needed; cause={}", detail)
        self._record(ProcessRestartNeeded(bounded(detail), fault))

    def supervisor_ended(self, models: Iterable[str], cause: str) -> None:
        if cause:
            logger.error("C7 supervisor died; cause={}", cause)
        self.turned_away(models, "shutting_down", cause)
        for model in self._readiness.undecided:
            why = f"not loaded when the supervisor ended: {cause or 'it was stopped'}"
            self._readiness.failed_to_load(model, why)

    def ready(self, runtime_label: str, precisions: dict[str, str]) -> None:
        engines = ", ".join(f"{model}@{precision}" for model, precision in precisions.items())
        logger.info("C7 ready: runtime={}, engines=[{}]", runtime_label, engines)

    def all_loaded(self, runtime_label: str, precisions: dict[str, str], now_ns: int) -> None:
        self.ready(runtime_label, precisions)
        self._record(AllEnginesLoaded(tuple(precisions), now_ns))


def bounded(detail: str) -> str:
    return detail[:DETAIL_MAX_CHARS]
