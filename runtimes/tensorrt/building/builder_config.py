"""The flags of a recipe on TensorRT's own configuration object: set, and read back.

Every builder in this process is checked with it, because a flag that a tool adds or forgets weakens the engine in
silence: Polygraphy has defaults of its own, and they differ between its versions.
"""

from __future__ import annotations

from types import ModuleType

from messages import EngineBuildError
from runtimes.tensorrt.building.network import Builder, BuilderConfig, OptimizationProfile
from runtimes.tensorrt.building.recipe import EngineRecipe

DECIDED_FLAGS = (
    "BF16",
    "FP16",
    "FP8",
    "GPU_FALLBACK",
    "INT4",
    "INT8",
    "OBEY_PRECISION_CONSTRAINTS",
    "PREFER_PRECISION_CONSTRAINTS",
    "REFIT",
    "SPARSE_WEIGHTS",
    "STRIP_PLAN",
    "TF32",
    "VERSION_COMPATIBLE",
    "WEIGHT_STREAMING",
)
"""A recipe decides each of these: where it does not set one, it is off."""


def configure(trt: ModuleType, config: BuilderConfig, recipe: EngineRecipe) -> None:
    """All of the recipe but profile, calibrator and timings."""
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, recipe.workspace_bytes)
    for name in recipe.set_flags:
        config.set_flag(getattr(trt.BuilderFlag, name))
    for name in recipe.cleared_flags:
        config.clear_flag(getattr(trt.BuilderFlag, name))
    config.builder_optimization_level = recipe.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED


def add_profile(builder: Builder, config: BuilderConfig, recipe: EngineRecipe) -> OptimizationProfile | None:
    """The recipe's profile, added; None where it has none. Raises EngineBuildError where TensorRT refuses it."""
    if not recipe.profile:
        return None
    profile = builder.create_optimization_profile()
    for name, smallest, best, largest in recipe.profile:
        profile.set_shape(name, smallest, best, largest)
    # The object is false until it is complete; an index below zero says that the configuration did not take it.
    if not profile or config.add_optimization_profile(profile) < 0:
        raise EngineBuildError(f"TensorRT refuses the optimisation profile {recipe.profile}; its log says why")
    return profile


def flags_of(trt: ModuleType, config: BuilderConfig) -> tuple[str, ...]:
    return tuple(name for name in DECIDED_FLAGS if config.get_flag(getattr(trt.BuilderFlag, name)))


def refuse_another_recipe(trt: ModuleType, config: BuilderConfig, recipe: EngineRecipe, tool: str) -> None:
    """Raises EngineBuildError where what `tool` configured is not what the recipe says."""
    workspace_bytes = config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)
    if workspace_bytes != recipe.workspace_bytes:
        raise EngineBuildError(
            f"{tool}: expected a workspace of {recipe.workspace_bytes} bytes, found that TensorRT keeps"
            f" {workspace_bytes}, which it does where it was given more than the device has; lower workspace_mb"
        )
    expected: tuple[object, ...] = (recipe.set_flags, recipe.optimization_level, recipe.calibrated)
    found: tuple[object, ...] = (
        flags_of(trt, config),
        config.builder_optimization_level,
        config.int8_calibrator is not None,
    )
    if found != expected or (recipe.profile and config.num_optimization_profiles != 1):
        raise EngineBuildError(
            f"{tool}: expected flags, optimisation level and calibrator {expected} with"
            f" {1 if recipe.profile else 'any'} profile, found {found} with {config.num_optimization_profiles}; build"
            ' with [runtime.tensorrt] builder = "api"'
        )
