"""Whether the engines of a generation are still what the flight plan asks for, before any of them is loaded."""

from __future__ import annotations

from runtimes.engine_store import Generation
from runtimes.flight_plan import FlightPlan, ModelSection
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.provision_decision import EngineRequest, Reuse, decide
from runtimes.provisioning import engine_request


def outdated_models(plan: FlightPlan, generation: Generation) -> dict[str, str]:
    """Model -> why its engine is not the one that the plan asks for; empty where all are.

    A source that lies beside the plan is hashed and compared: a model that was trained again under the same name is
    outdated. A source that is not on this machine cannot have changed here, and the engine's own record stands. The
    host and the runtime are compared when the engine is loaded.
    """
    reasons: dict[str, str] = {}
    for model, section in plan.models.items():
        entry = generation.entries.get(model)
        if entry is None:
            reasons[model] = generation.damaged.get(model, "no engine")
            continue
        decision = decide(_request(plan, model, section, entry), entry, entry.host, entry.runtime_label)
        if not isinstance(decision, Reuse):
            reasons[model] = decision.reason
    return reasons


def _request(plan: FlightPlan, model: str, section: ModelSection, entry: EngineCacheEntry) -> EngineRequest:
    if section.source.exists():
        return engine_request(model, section.source, section.build_config(), plan.runtime)
    return EngineRequest(
        model=model,
        source=section.source,
        source_sha256=entry.source_sha256,
        build_config=section.build_config(),
    )
