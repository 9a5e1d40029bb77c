"""What a flight plan asks for each model, with the hashes of everything that goes into its engine."""

from __future__ import annotations

from pathlib import Path

from messages.errors import ConfigError, EngineBuildError
from messages.lifecycle import Sha256
from runtimes.flight_plan import FlightPlan
from runtimes.inference_factory import SOURCE_SUFFIX, is_calibrated
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.measurements import PowerMode
from runtimes.provisioning.decision import EngineRequest
from runtimes.samples import Samples
from runtimes.source_model import read_source


def request_for_build(plan: FlightPlan, model: str, power: PowerMode | None) -> EngineRequest:
    """Read and hash source, calibration data and samples of one model. `power` is the board's present mode.

    Raises EngineBuildError for the source and ConfigError for the data, each naming the model and the key.
    """
    section = plan.models[model]
    try:
        source = read_source(section.source.absolute(), suffix=SOURCE_SUFFIX[plan.runtime.runtime])
    except EngineBuildError as error:
        raise EngineBuildError(f"[models.{model}] source: {error}") from error
    return EngineRequest(
        model=model,
        source=source.path,
        source_sha256=source.sha256,
        build_config=section.build_config(),
        dataset_sha256=_hashed(calibration_data(plan, model), f"[models.{model}] calibration_dataset"),
        samples_sha256=_hashed(section.samples, f"[models.{model}] samples"),
        accuracy_tolerance=section.accuracy_tolerance,
        power=power,
        any_power_mode=plan.flight.allow_other_power_mode,
        optimization_level=_optimization_level(plan),
    )


def request_at_takeoff(plan: FlightPlan, engine: EngineCacheEntry, power: PowerMode | None) -> EngineRequest:
    """What the plan asks for the model of `engine`, where the aircraft may lack what the engine was made from.

    A source, dataset or samples that are not on this machine cannot have changed on it: the engine's own record
    stands for them. Raises as `request_for_build` does for those that are here and cannot be read.
    """
    section = plan.models[engine.model]
    samples = section.samples
    dataset = calibration_data(plan, engine.model)
    where = f"[models.{engine.model}]"
    recorded = None if engine.accuracy is None else engine.accuracy.samples_sha256
    return EngineRequest(
        model=engine.model,
        source=section.source,
        source_sha256=(
            read_source(section.source, suffix=SOURCE_SUFFIX[plan.runtime.runtime]).sha256
            if section.source.exists()
            else engine.source_sha256
        ),
        build_config=section.build_config(),
        dataset_sha256=engine.dataset_sha256 if _absent(dataset) else _hashed(dataset, f"{where} calibration_dataset"),
        samples_sha256=recorded if _absent(samples) else _hashed(samples, f"{where} samples"),
        accuracy_tolerance=section.accuracy_tolerance,
        power=power,
        any_power_mode=plan.flight.allow_other_power_mode,
        optimization_level=_optimization_level(plan),
    )


def calibration_data(plan: FlightPlan, model: str) -> Path | None:
    """The dataset where the build uses it; no other build reads it, and no other engine records it."""
    section = plan.models[model]
    return section.calibration_dataset if is_calibrated(section.precision, plan.runtime.runtime) else None


def _optimization_level(plan: FlightPlan) -> int | None:
    return plan.runtime.tensorrt.optimization_level if plan.runtime.runtime == "tensorrt" else None


def _absent(path: Path | None) -> bool:
    return path is not None and not path.exists()


def _hashed(path: Path | None, key: str) -> Sha256 | None:
    if path is None:
        return None
    try:
        return Samples.open(path.absolute()).sha256
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error
