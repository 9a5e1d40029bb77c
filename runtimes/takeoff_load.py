"""F2: from committed engines on disk to resident ones, or a refusal that names the model."""

from __future__ import annotations

from collections.abc import Callable

from messages.errors import ConfigError, EngineBuildError, EngineDeserializeError
from runtimes.flight_plan import FlightPlan
from runtimes.inference_runtime import EngineCacheEntry, EngineHandle, InferenceRuntime
from runtimes.measurements import PowerMode
from runtimes.power_mode import detect_power_mode
from runtimes.provisioning.decision import differences, power_difference
from runtimes.provisioning.engine_request import request_at_takeoff
from runtimes.store.engine_store import Generation


def deserialize_cached_engine(runtime: InferenceRuntime, entry: EngineCacheEntry) -> EngineHandle:
    """Verify and load one engine. The runtime reads the file once and loads the bytes that it hashed.

    Raises EngineDeserializeError, or the kind of it that the runtime raised, naming the model, the file, expected and
    found, and what to do; OutOfMemoryError.
    """
    label = runtime.current_runtime_label()
    if entry.runtime_label != label:
        raise EngineDeserializeError(
            f"{refusal_prefix(entry.model)}{entry.path.name} was compiled by {entry.runtime_label}, configured is"
            f" {label}; compile it again (c7 provision FLIGHT.toml) or configure {entry.runtime_label}"
        )
    try:
        return runtime.deserialize_engine(entry)
    except EngineDeserializeError as error:
        raise type(error)(f"{refusal_prefix(entry.model)}{error}") from error


def refusal_prefix(model: str) -> str:
    """How the text of a refused engine begins."""
    return f"{model} does not take off: "


def outdated_models(
    plan: FlightPlan,
    generation: Generation,
    *,
    detect_power: Callable[[], PowerMode | None] = detect_power_mode,
) -> dict[str, str]:
    """The plan's models that `generation` has no fitting engine for, each with the reason.

    Compares everything that provisioning compares: the build configuration, what the engine was signed off on, the
    board's power mode, and the hashes of source, calibration data and samples where these are on this machine (a
    drone may fly without them; the engine's own record stands then). Host and runtime are compared when the engine
    is loaded. Raises RuntimeNotAvailableError where a Jetson's power mode cannot be read.
    """
    power = None if plan.flight.allow_other_power_mode else detect_power()
    outdated: dict[str, str] = {}
    for model in plan.models:
        entry = generation.entries.get(model)
        reason = (
            generation.damaged.get(model, f"generation {generation.number} has no engine of it")
            if entry is None
            else _why_outdated(plan, entry, power)
        )
        if reason:
            outdated[model] = reason
    return outdated


def _why_outdated(plan: FlightPlan, entry: EngineCacheEntry, power: PowerMode | None) -> str:
    try:
        request = request_at_takeoff(plan, entry, power)
    except (EngineBuildError, ConfigError) as error:
        return str(error)
    found = differences(request, entry, entry.host, entry.runtime_label)
    if power_difference(request, entry):
        found.append(
            "set the engine's power mode again (sudo nvpmodel -m N), or say allow_other_power_mode = true in [flight]"
        )
    return "; ".join(found)
