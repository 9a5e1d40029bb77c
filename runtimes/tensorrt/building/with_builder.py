"""The recipe carried out by TensorRT's own classes alone."""

from __future__ import annotations

from messages import EngineBuildError
from runtimes.tensorrt.building.build_job import BuildJob, BuiltPlan
from runtimes.tensorrt.building.builder_config import add_profile, configure, flags_of, refuse_another_recipe
from runtimes.tensorrt.building.network import Builder, BuilderConfig, ParsedModel, hold_to_fp32, refuse_shape_inputs
from runtimes.tensorrt.building.timings import attach_timings, timings_of


def build_with_api(job: BuildJob) -> BuiltPlan:
    """Raises EngineBuildError for what TensorRT refuses before it builds."""
    model = ParsedModel(job.trt, job.log, job.onnx, strongly_typed=job.recipe.strongly_typed)
    refuse_shape_inputs(model.network)
    hold_to_fp32(job.trt, model.network, job.recipe.fp32_nodes)
    config = configured(job, model.builder)
    cache = attach_timings(config, job.timings)
    refuse_another_recipe(job.trt, config, job.recipe, "tensorrt")
    plan = model.builder.build_serialized_network(model.network, config)
    flags = flags_of(job.trt, config)
    if plan is None:
        return BuiltPlan(flags=flags)
    built = BuiltPlan(data=bytes(memoryview(plan)), timings=timings_of(config), flags=flags)
    del cache  # TensorRT's configuration refers to it until here
    return built


def configured(job: BuildJob, builder: Builder) -> BuilderConfig:
    """All of the recipe but the timing cache, which its maker must hold. Raises EngineBuildError."""
    config = builder.create_builder_config()
    configure(job.trt, config, job.recipe)
    profile = add_profile(builder, config, job.recipe)
    if job.calibrator is not None:
        config.int8_calibrator = job.calibrator
        if profile is not None and not config.set_calibration_profile(profile):
            raise EngineBuildError(
                f"TensorRT refuses to calibrate in the profile {job.recipe.profile}; its log says why"
            )
    config.progress_monitor = job.monitor
    return config
