"""F2: from committed engines on disk to resident ones, or a refusal that names the model."""

from __future__ import annotations

from messages.errors import EngineBuildError, EngineDeserializeError
from runtimes.config import RuntimeName
from runtimes.flight_plan import FlightPlan, ModelSection
from runtimes.inference_factory import SOURCE_SUFFIX
from runtimes.inference_runtime import EngineCacheEntry, EngineHandle, InferenceRuntime
from runtimes.provisioning.decision import Compile, EngineRequest, decide
from runtimes.source_model import read_source
from runtimes.store.engine_store import Generation


def deserialize_cached_engine(runtime: InferenceRuntime, entry: EngineCacheEntry) -> EngineHandle:
    """Verify and load one engine. The runtime reads the file once and loads the bytes that it hashed.

    Raises EngineDeserializeError naming the model, the file, expected and found, and what to do; OutOfMemoryError.
    """
    label = runtime.current_runtime_label()
    if entry.runtime_label != label:
        raise EngineDeserializeError(
            f"{entry.model} does not take off: {entry.path.name} was compiled by {entry.runtime_label}, configured is"
            f" {label}; compile it again (c7 provision FLIGHT.toml) or configure {entry.runtime_label}"
        )
    try:
        return runtime.deserialize_engine(entry)
    except EngineDeserializeError as error:
        raise EngineDeserializeError(f"{entry.model} does not take off: {error}") from error


def outdated_models(plan: FlightPlan, generation: Generation) -> dict[str, str]:
    """The plan's models that `generation` has no fitting engine for, each with the reason.

    Compares the build configuration, and the source's hash where the source is on this machine (a drone may fly
    without it; the engine's own record stands then). Host and runtime are compared when the engine is loaded.
    """
    outdated: dict[str, str] = {}
    for model, section in plan.models.items():
        entry = generation.entries.get(model)
        reason = (
            generation.damaged.get(model, f"generation {generation.number} has no engine of it")
            if entry is None
            else _why_outdated(section, entry, plan.runtime.runtime)
        )
        if reason:
            outdated[model] = reason
    return outdated


def _why_outdated(section: ModelSection, entry: EngineCacheEntry, runtime: RuntimeName) -> str:
    sha256 = entry.source_sha256
    if section.source.exists():
        try:
            sha256 = read_source(section.source, suffix=SOURCE_SUFFIX[runtime]).sha256
        except EngineBuildError as error:
            return str(error)
    request = EngineRequest(
        model=entry.model, source=section.source, source_sha256=sha256, build_config=section.build_config()
    )
    decision = decide(request, entry, entry.host, entry.runtime_label)
    return decision.reason if isinstance(decision, Compile) else ""
