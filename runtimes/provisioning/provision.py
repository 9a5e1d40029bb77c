"""F1: the plan's models become a generation of the engine store, compiled only where the store lacks them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import msgspec

from messages.errors import C7Error, EngineBuildError, EngineDeserializeError
from runtimes.config import C7InferenceConfig
from runtimes.flight_plan import FlightPlan
from runtimes.inference_factory import SOURCE_SUFFIX
from runtimes.inference_runtime import EngineCacheEntry, HostTuple
from runtimes.provisioning.build_child import BUILD_TIMEOUT_S
from runtimes.provisioning.build_request import BuildEngine
from runtimes.provisioning.builder import CHILD_BUILDER, Builder
from runtimes.provisioning.decision import Decision, EngineRequest, Reuse, decide
from runtimes.source_model import read_source
from runtimes.store.engine_artifact import read_entry, read_verified
from runtimes.store.engine_store import LOCK_TIMEOUT_S, EngineStore, Generation
from runtimes.store.staged_generation import StagedGeneration, stage_generation

Step = Literal["waiting", "decided", "compiling", "ready", "committed", "up_to_date"]


class ProvisionProgress(msgspec.Struct, frozen=True, kw_only=True):
    """What provisioning is doing.

    `waiting` for another provisioner; `decided` (`decision` and `reason`) for each model first; `compiling` once a
    second with `elapsed_ns` and, where the store knew the model before, `former_build_ns`; `ready` for each model
    with its engine file; at the end `committed` or `up_to_date` with the generation's number.
    """

    step: Step
    model: str = ""
    decision: Literal["reuse", "compile", ""] = ""
    reason: str = ""
    engine: str = ""
    elapsed_ns: int = 0
    former_build_ns: int | None = None
    generation: int = 0


def provision(
    plan: FlightPlan,
    *,
    progress: Callable[[ProvisionProgress], None],
    builder: Builder = CHILD_BUILDER,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    build_timeout_s: float = BUILD_TIMEOUT_S,
) -> Generation:
    """Make the store's current generation hold exactly the plan's models, each for this host and runtime.

    Compiles one model after the other; `builder` does each in a child process of its own. Nothing is committed
    unless all succeed: the former generation stays current otherwise. Raises EngineBuildError,
    CalibrationCacheError, RuntimeNotAvailableError, ConfigError or EngineStoreError.
    """
    requests = [_request(name, plan) for name in plan.models]
    here = builder.probe(plan.runtime)
    store = EngineStore(plan.flight.store)
    with stage_generation(
        store, timeout_s=lock_timeout_s, waiting=lambda: progress(ProvisionProgress(step="waiting"))
    ) as staged:
        decisions = {request.model: _decide(request, staged, here.host, here.label) for request in requests}
        for model, decision in decisions.items():
            word: Literal["reuse", "compile"] = "reuse" if isinstance(decision, Reuse) else "compile"
            progress(ProvisionProgress(step="decided", model=model, decision=word, reason=decision.reason))
        if staged.former is not None and _covers(staged.former, decisions):
            progress(ProvisionProgress(step="up_to_date", generation=staged.former.number))
            return staged.former
        for request in requests:
            entry = _obtain(request, decisions[request.model], staged, plan.runtime, builder, build_timeout_s, progress)
            progress(ProvisionProgress(step="ready", model=entry.model, engine=entry.path.name))
        generation = staged.commit()
    progress(ProvisionProgress(step="committed", generation=generation.number))
    return generation


def _request(model: str, plan: FlightPlan) -> EngineRequest:
    """Read and hash one source. Raises EngineBuildError naming the model."""
    section = plan.models[model]
    try:
        read = read_source(section.source.absolute(), suffix=SOURCE_SUFFIX[plan.runtime.runtime])
    except EngineBuildError as error:
        raise EngineBuildError(f"[models.{model}] source: {error}") from error
    return EngineRequest(model=model, source=read.path, source_sha256=read.sha256, build_config=section.build_config())


def _decide(request: EngineRequest, staged: StagedGeneration, host: HostTuple, label: str) -> Decision:
    """The decision on what really lies in the store: an engine is used again only after all of it was hashed."""
    if staged.former is None:
        return decide(request, None, host, label, damage=staged.former_damage)
    entry = staged.former.entries.get(request.model)
    decision = decide(request, entry, host, label, damage=staged.former.damaged.get(request.model, ""))
    if isinstance(decision, Reuse):
        try:
            read_verified(decision.entry)
        except EngineDeserializeError as error:
            return decide(request, None, host, label, damage=str(error))
    return decision


def _covers(former: Generation, decisions: dict[str, Decision]) -> bool:
    reused = {model for model, decision in decisions.items() if isinstance(decision, Reuse)}
    return reused == decisions.keys() == former.entries.keys() and not former.damaged


def _obtain(
    request: EngineRequest,
    decision: Decision,
    staged: StagedGeneration,
    config: C7InferenceConfig,
    builder: Builder,
    timeout_s: float,
    progress: Callable[[ProvisionProgress], None],
) -> EngineCacheEntry:
    if isinstance(decision, Reuse):
        return staged.link(decision.entry)
    former = staged.former.entries.get(request.model) if staged.former is not None else None

    def report(elapsed_ns: int) -> None:
        progress(
            ProvisionProgress(
                step="compiling",
                model=request.model,
                elapsed_ns=elapsed_ns,
                former_build_ns=None if former is None else former.build_ns,
            )
        )

    report(0)
    scratch = staged.scratch / request.model
    scratch.mkdir()
    began_ns = time.monotonic_ns()
    try:
        built = builder.build(
            BuildEngine(
                config=config,
                model=request.model,
                source=request.source,
                source_sha256=request.source_sha256,
                build_config=request.build_config,
                directory=staged.directory,
                scratch=scratch,
            ),
            timeout_s=timeout_s,
            heartbeat=report,
        )
    except C7Error as error:
        after_s = (time.monotonic_ns() - began_ns) / 1e9
        raise type(error)(
            f"{request.model} was not compiled ({after_s:.0f} s): {error}; the committed generation is untouched"
        ) from error
    return read_entry(staged.directory / built.engine)
