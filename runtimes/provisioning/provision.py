"""F1: the plan's models become a generation of the engine store, compiled only where the store lacks them."""

from __future__ import annotations

from collections.abc import Callable

from messages.errors import (
    C7Error,
    CalibrationCacheError,
    ConfigError,
    EngineBuildError,
    EngineDeserializeError,
    OutOfMemoryError,
)
from runtimes.flight_plan import FlightPlan
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.measurements import PowerMode
from runtimes.power_mode import detect_power_mode
from runtimes.provisioning.build_child import BUILD_TIMEOUT_S
from runtimes.provisioning.build_request import RuntimeProbed
from runtimes.provisioning.builder import CHILD_BUILDER, Builder
from runtimes.provisioning.candidates import StoredEngines
from runtimes.provisioning.decision import Decision, EngineRequest, Reuse
from runtimes.provisioning.engine_request import request_for_build
from runtimes.provisioning.model_build import ModelBuild
from runtimes.provisioning.progress import ProvisionProgress as ProvisionProgress
from runtimes.store.disk import DISK, Disk
from runtimes.store.engine_store import EngineStore, Generation
from runtimes.store.staged_generation import StagedGeneration, stage_generation
from runtimes.store.store_lock import PROVISIONER_WAITS_S

_OF_ONE_MODEL = (EngineBuildError, CalibrationCacheError, ConfigError, EngineDeserializeError, OutOfMemoryError)
"""What says nothing about the other models: they are built all the same."""


def provision(
    plan: FlightPlan,
    *,
    progress: Callable[[ProvisionProgress], None],
    builder: Builder = CHILD_BUILDER,
    disk: Disk = DISK,
    detect_power: Callable[[], PowerMode | None] = detect_power_mode,
    lock_timeout_s: float = PROVISIONER_WAITS_S,
    build_timeout_s: float = BUILD_TIMEOUT_S,
) -> Generation:
    """Make the store's current generation hold exactly the plan's models, each for this host and runtime.

    Compiles one model after the other; `builder` does each in a child process of its own. Nothing is committed
    unless all succeed: the former generation stays current otherwise. What a failed or killed run had finished is
    kept in the store, and the next run takes it. Several provisioners at once wait for each other.

    `progress` is called in this thread. Raises EngineBuildError, CalibrationCacheError, OutOfMemoryError,
    EngineDeserializeError, RuntimeNotAvailableError, ConfigError or EngineStoreError.
    """
    requests = _requests(plan, detect_power)
    here = builder.probe(plan.runtime)
    store = EngineStore(plan.flight.store, disk)
    waits = 0

    def waiting() -> None:
        nonlocal waits
        waits += 1
        progress(ProvisionProgress(step="waiting"))

    with stage_generation(store, timeout_s=lock_timeout_s, waiting=waiting) as staged:
        if waits:
            requests = _requests(plan, detect_power)  # the other one may have compiled for hours
        stored = StoredEngines(store, staged)
        build = ModelBuild(plan, here, store, staged, stored, builder, build_timeout_s, progress)
        run = _Run(here, staged, stored, build, progress)
        decisions = run.decide(requests)
        if staged.former is not None and _covers(staged.former, decisions):
            staged.remove_drafts()
            progress(ProvisionProgress(step="up_to_date", generation=staged.former.number))
            return staged.former
        run.obtain(requests, decisions)
        generation = staged.commit()
    progress(ProvisionProgress(step="committed", generation=generation.number))
    return generation


def _requests(plan: FlightPlan, detect_power: Callable[[], PowerMode | None]) -> list[EngineRequest]:
    power = detect_power()  # where any mode will do as well: each engine's record names the one it was built in
    return [request_for_build(plan, model, power) for model in plan.models]


def _covers(former: Generation, decisions: dict[str, Decision]) -> bool:
    """The current generation has each of the plan's models, no other, and nothing that is damaged."""
    reused = {model: decision.entry for model, decision in decisions.items() if isinstance(decision, Reuse)}
    return reused.keys() == decisions.keys() and reused == former.entries and not former.damaged


class _Run:
    """One provisioning under the store's lock."""

    def __init__(
        self,
        here: RuntimeProbed,
        staged: StagedGeneration,
        stored: StoredEngines,
        build: ModelBuild,
        progress: Callable[[ProvisionProgress], None],
    ) -> None:
        self._here = here
        self._staged = staged
        self._stored = stored
        self._build = build
        self._progress = progress

    def decide(self, requests: list[EngineRequest]) -> dict[str, Decision]:
        decisions: dict[str, Decision] = {}
        for request in requests:
            decision = self._stored.decide(request, self._here.host, self._here.label)
            decisions[request.model] = decision
            self._progress(
                ProvisionProgress(
                    step="decided",
                    model=request.model,
                    decision="reuse" if isinstance(decision, Reuse) else "compile",
                    reason=decision.reason,
                )
            )
        return decisions

    def obtain(self, requests: list[EngineRequest], decisions: dict[str, Decision]) -> None:
        """Link or compile each model's engine into the staged generation. Raises the first error of them all."""
        failures: dict[str, C7Error] = {}
        finished: list[str] = []
        for request in requests:
            decision = decisions[request.model]
            try:
                if isinstance(decision, Reuse):
                    entry = self._staged.link(decision.entry)
                else:
                    entry = self._build.obtain(request)
                    finished.append(request.model)
            except C7Error as error:
                failures[request.model] = error
                self._progress(ProvisionProgress(step="failed", model=request.model, reason=str(error)))
                if isinstance(error, _OF_ONE_MODEL):
                    continue
                break
            self._say_ready(entry)
        if failures:
            raise _summary(failures, finished) from next(iter(failures.values()))

    def _say_ready(self, entry: EngineCacheEntry) -> None:
        self._progress(ProvisionProgress(step="ready", model=entry.model, engine=entry.path.name))


def _summary(failures: dict[str, C7Error], finished: list[str]) -> C7Error:
    """The first failure's type, with the text of all."""
    first = next(iter(failures.values()))
    kept = f"; finished and kept for the next run: {', '.join(finished)}" if finished else ""
    return type(first)(f"{'; '.join(map(str, failures.values()))}; the committed generation is untouched{kept}")
