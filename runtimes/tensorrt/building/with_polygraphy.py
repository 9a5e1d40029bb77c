"""The recipe carried out by NVIDIA's Polygraphy, from 0.49 on.

Its ways to weaken an engine in silence, by its sources of 0.49.26 and 0.53.6, and what is done about each:

- A name in a profile is a pattern of `fnmatch`, and one with `*`, `?` or `[` in it would match others: refused here.
- An input without a range gets 1 for its dynamic dimensions: the runtime refuses such a profile before.
- Timings of another device are dropped without a word, the result of `set_timing_cache` is not looked at, a file of
  timings is waited for without end, and former timings are merged with `ignore_mismatch=True`: it is given timings
  that fit, in memory, and the new ones are taken from the configuration.
- INT8 without a calibrator only warns: the recipe is compared with the configuration before the build.
- It logs to a logger and to stdout of its own: TensorRT keeps one logger per process, so it is given ours.
- `POLYGRAPHY_*` variables turn it to another library, or let it install packages: refused by name.
"""

from __future__ import annotations

import importlib
import io
import os
from collections.abc import Callable, Mapping
from types import ModuleType

from messages import ConfigError, EngineBuildError, RuntimeNotAvailableError
from messages.errors import printable
from runtimes.tensorrt.building.build_job import BuildJob, BuiltPlan
from runtimes.tensorrt.building.builder_config import flags_of, refuse_another_recipe
from runtimes.tensorrt.building.network import (
    PARSER_REMEDY,
    Builder,
    BuilderConfig,
    Network,
    hold_to_fp32,
    refuse_shape_inputs,
)
from runtimes.tensorrt.building.timings import timings_of
from runtimes.tensorrt.faults import words_of

_PATTERNS = "*?["
_INTRUDERS = ("POLYGRAPHY_AUTOINSTALL_DEPS", "POLYGRAPHY_USE_TENSORRT_RTX")
_TEXT_MAX_CHARS = 500


def import_polygraphy() -> ModuleType:
    """`polygraphy.backend.trt`. Raises RuntimeNotAvailableError naming the extra to install."""
    try:
        return importlib.import_module("polygraphy.backend.trt")
    except ImportError as error:
        raise RuntimeNotAvailableError(
            f"tensorrt builds with Polygraphy, which cannot be imported ({error}); install c7-inference with its extra"
            ' `tensorrt-tools`, or set [runtime.tensorrt] builder = "api"'
        ) from error


def refuse_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Raises ConfigError naming the variables that change what Polygraphy does."""
    intruders = [name for name in _INTRUDERS if environment.get(name, "0") != "0"]
    if intruders:
        raise ConfigError(f"{', '.join(intruders)}: expected none of them in the environment; unset them")


def build_with_polygraphy(job: BuildJob) -> BuiltPlan:
    """Raises EngineBuildError for what Polygraphy or TensorRT refuses, with their words."""
    refuse_environment()
    _refuse_patterns(job)
    polygraphy = import_polygraphy()
    refused = importlib.import_module("polygraphy.exception").PolygraphyException
    its_logger = importlib.import_module("polygraphy.logger").G_LOGGER
    configured: list[tuple[BuilderConfig, Builder]] = []  # a configuration lives no longer than its builder

    def constrain(network: Network) -> None:
        refuse_shape_inputs(network)
        hold_to_fp32(job.trt, network, job.recipe.fp32_nodes)

    def configure(builder: Builder, network: Network) -> BuilderConfig:
        config = _config_loader(polygraphy, job)(builder, network)
        refuse_another_recipe(job.trt, config, job.recipe, "polygraphy")
        configured.append((config, builder))
        return config

    parsed = polygraphy.NetworkFromOnnxPath(str(job.onnx), strongly_typed=job.recipe.strongly_typed)
    held = polygraphy.PostprocessNetwork(parsed, constrain)
    former_logger = polygraphy.util.TRT_LOGGER
    polygraphy.util.TRT_LOGGER = job.log
    try:
        # Above its gravest: what it prints of an error, a hint to install `colored` with it, lands in our JSON.
        with its_logger.verbosity(its_logger.CRITICAL + 1), job.log.listening("ERROR", this_thread_only=True) as heard:
            plan = polygraphy.EngineBytesFromNetwork(held, config=configure)()
    except refused as error:
        if configured:
            # It raises for the None of a failed build, of which TensorRT's log knows more.
            return BuiltPlan(flags=flags_of(job.trt, configured[0][0]))
        # Of a model that cannot be parsed it raises no word of the parser's; TensorRT's log has them.
        said = printable(" ".join(str(error).split()), _TEXT_MAX_CHARS)
        words = f": {words_of(heard.lines)}" if heard.lines else ""
        raise EngineBuildError(f"{job.onnx}: Polygraphy cannot build it: {said}{words}; {PARSER_REMEDY}") from error
    finally:
        polygraphy.util.TRT_LOGGER = former_logger
    return BuiltPlan(
        data=bytes(memoryview(plan)), timings=timings_of(configured[0][0]), flags=flags_of(job.trt, configured[0][0])
    )


def _config_loader(polygraphy: ModuleType, job: BuildJob) -> Callable[[Builder, Network], BuilderConfig]:
    """The recipe in Polygraphy's words: a callable that takes builder and network and gives the configuration."""
    recipe, trt = job.recipe, job.trt
    profile = polygraphy.Profile()
    for name, smallest, best, largest in recipe.profile:
        profile.add(name, smallest, best, largest)
    loader: Callable[[Builder, Network], BuilderConfig] = polygraphy.CreateConfig(
        fp16="FP16" in recipe.set_flags,
        int8="INT8" in recipe.set_flags,
        tf32=False,
        calibrator=job.calibrator,
        profiles=[profile],
        memory_pool_limits={trt.MemoryPoolType.WORKSPACE: recipe.workspace_bytes},
        load_timing_cache=_TimingsFile(job.timings) if job.timings else None,
        progress_monitor=job.monitor,
        profiling_verbosity=trt.ProfilingVerbosity.DETAILED,
        builder_optimization_level=recipe.optimization_level,
        precision_constraints="obey" if "OBEY_PRECISION_CONSTRAINTS" in recipe.set_flags else None,
    )
    return loader


class _TimingsFile(io.BytesIO):
    """Polygraphy asks a file in memory for its mode too, and takes one without for a TensorRT that has no timing cache
    (polygraphy/util/util.py, warn_if_wrong_mode, 0.49.26 and 0.53.6)."""

    mode = "rb"


def _refuse_patterns(job: BuildJob) -> None:
    strange = [name for name, *_ in job.recipe.profile if any(mark in name for mark in _PATTERNS)]
    if strange:
        raise EngineBuildError(
            f"{job.onnx}: Polygraphy takes the input names {', '.join(strange)} for patterns; build with"
            ' [runtime.tensorrt] builder = "api", or rename them in the model'
        )
