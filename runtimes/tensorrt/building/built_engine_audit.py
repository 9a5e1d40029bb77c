"""What was built, held against what was asked for: log, inspector and memory of a new engine become its report."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from messages import EngineBuildError
from runtimes.build_report import WARNINGS_MAX, BuilderName, BuildReport
from runtimes.tensorrt.bindings import Engine
from runtimes.tensorrt.building.build_findings import BuildFindings, why_weakened
from runtimes.tensorrt.building.build_job import BuiltPlan
from runtimes.tensorrt.building.layer_audit import UNTOLD, count_precisions, why_not_built_as
from runtimes.tensorrt.building.recipe import EngineRecipe


def audited_report(
    trt: ModuleType,
    engine: Engine,
    recipe: EngineRecipe,
    built: BuiltPlan,
    *,
    subject: str,
    builder: BuilderName,
    findings: BuildFindings,
    notes: Sequence[str] = (),
) -> BuildReport:
    """Raises EngineBuildError where the engine is weaker than the recipe, or does not say what it is."""
    precisions = _layer_precisions(trt, engine, subject)
    weaker = why_weakened(findings, recipe) or why_not_built_as(recipe.precision, precisions)
    if weaker:
        raise EngineBuildError(f"{subject}: {weaker}")
    untold = precisions.get(UNTOLD, 0)
    if untold:
        notes = (*notes, f"the inspector tells no type of {untold} layers, so their precision is not audited")
    return BuildReport(
        builder=builder,
        tensorrt=str(trt.__version__),
        strongly_typed=recipe.strongly_typed,
        optimization_level=recipe.optimization_level,
        flags=built.flags,
        command=built.command,
        layer_precisions=precisions,
        skipped_tactics=findings.skipped_tactics,
        missing_scales=findings.missing_scales,
        warnings=(*notes, *findings.warnings)[:WARNINGS_MAX],
        activation_bytes=tuple(
            engine.get_device_memory_size_for_profile_v2(index) for index in range(engine.num_optimization_profiles)
        ),
    )


def _layer_precisions(trt: ModuleType, engine: Engine, subject: str) -> dict[str, int]:
    inspector = engine.create_engine_inspector()
    if inspector is None:
        raise EngineBuildError(f"{subject}: TensorRT made no inspector of the engine; its log says why")
    try:
        return count_precisions(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    except ValueError as error:
        raise EngineBuildError(f"{subject}: the engine's layers cannot be audited: {error}") from error
