"""Polygraphy over NVIDIA's bindings, with the very arguments of `with_polygraphy.py`.

It makes its loaders without a word of what they will not take, so they are also called: with a builder that is a
record of what it was told, because the stub makes none.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from messages import EngineBuildError
from runtimes.inference_runtime import BuildConfig
from runtimes.onnx_types import OnnxTypes
from runtimes.tensorrt.building.build_job import BuildJob
from runtimes.tensorrt.building.builder_config import refuse_another_recipe
from runtimes.tensorrt.building.calibrator import Calibrator
from runtimes.tensorrt.building.network import Builder, Network
from runtimes.tensorrt.building.progress import progress_monitor
from runtimes.tensorrt.building.recipe import engine_recipe
from runtimes.tensorrt.building.with_polygraphy import _config_loader, build_with_polygraphy, import_polygraphy
from runtimes.tensorrt.log import process_log
from tests.bindings.callbacks import Core

EXPECTED_VERSION = os.environ.get("POLYGRAPHY_OVER_STUB", "")
PROFILE = (("image", (1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8)),)
DELICATE = OnnxTypes(delicate=("norm",))
FP16 = OnnxTypes(narrow=("fp16",))

if not EXPECTED_VERSION:
    pytest.skip("the runs of Polygraphy are others", allow_module_level=True)


@pytest.fixture
def polygraphy(trt: ModuleType) -> ModuleType:
    assert importlib.import_module("polygraphy").__version__ == EXPECTED_VERSION
    return import_polygraphy()


def job_of(trt: ModuleType, build_config: BuildConfig, types: OnnxTypes, timings: bytes = b"") -> BuildJob:
    recipe = engine_recipe("model.onnx", build_config, types)
    calibrator = object() if recipe.calibrated else None
    return BuildJob(
        trt=trt,
        log=process_log(trt),
        recipe=recipe,
        onnx=Path("model.onnx"),
        monitor=progress_monitor(trt),
        calibrator=cast("Calibrator | None", calibrator),
        timings=timings,
    )


@pytest.fixture(
    params=[
        ("fp16", OnnxTypes(), None, b""),
        ("fp16", FP16, None, b"timings"),
        ("int8", OnnxTypes(), Path("batches"), b""),
        ("mixed", DELICATE, None, b""),
        ("mixed", DELICATE, Path("batches"), b"timings"),
    ],
    ids=["fp16", "strongly typed", "int8", "mixed", "mixed with a dataset"],
)
def job(trt: ModuleType, request: pytest.FixtureRequest) -> BuildJob:
    precision, types, dataset, timings = request.param
    build_config = BuildConfig(precision=precision, calibration_dataset=dataset, optimization_profiles=PROFILE)
    return job_of(trt, build_config, types, timings)


class RecordingConfig:
    """What it was told, with TensorRT's own default: TF32 on."""

    def __init__(self, trt: ModuleType) -> None:
        self.flags = {trt.BuilderFlag.TF32}
        self.pools: dict[object, int] = {}
        self.profiles: list[object] = []
        self.timings: list[bytes] = []
        self.int8_calibrator: object = None
        self.progress_monitor: object = None
        self.profiling_verbosity: object = None
        self.builder_optimization_level = 3

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    def set_flag(self, flag: object) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: object) -> None:
        self.flags.discard(flag)

    def get_flag(self, flag: object) -> bool:
        return flag in self.flags

    def set_memory_pool_limit(self, pool: object, pool_size: int) -> None:
        self.pools[pool] = pool_size

    def get_memory_pool_limit(self, pool: object) -> int:
        return self.pools[pool]

    def add_optimization_profile(self, profile: object) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_calibration_profile(self, profile: object) -> bool:
        return True

    def create_timing_cache(self, serialized_timing_cache: bytes) -> object:
        self.timings.append(bytes(serialized_timing_cache))
        return object()

    def set_timing_cache(self, cache: object, ignore_mismatch: bool) -> bool:
        return not ignore_mismatch


class RecordingProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        self.shapes[name] = [tuple(shape) for shape in shapes]

    def get_shape(self, name: str) -> list[tuple[int, ...]]:
        return self.shapes[name]


class OneInput:
    """A network of one input and no layer."""

    num_inputs = 1
    num_layers = 0

    def __init__(self, trt: ModuleType) -> None:
        self._input = SimpleNamespace(name="image", shape=(-1, 3, 8, 8), dtype=trt.float32, is_shape_tensor=False)

    def get_input(self, index: int) -> object:
        return self._input

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


def configured(polygraphy: ModuleType, job: BuildJob) -> RecordingConfig:
    builder = SimpleNamespace(
        create_builder_config=lambda: RecordingConfig(job.trt),
        create_optimization_profile=RecordingProfile,
        platform_has_fast_fp16=True,
        platform_has_fast_int8=True,
    )
    loader = _config_loader(polygraphy, job)
    return cast("RecordingConfig", loader(cast("Builder", builder), cast("Network", OneInput(job.trt))))


def test_its_configuration_is_the_recipe(polygraphy: ModuleType, job: BuildJob) -> None:
    config = configured(polygraphy, job)

    refuse_another_recipe(job.trt, cast("Any", config), job.recipe, "polygraphy")
    assert config.int8_calibrator is job.calibrator
    assert config.progress_monitor is job.monitor
    assert config.profiling_verbosity == job.trt.ProfilingVerbosity.DETAILED


def test_its_one_profile_has_our_shapes_and_the_timings_are_ours(polygraphy: ModuleType, job: BuildJob) -> None:
    config = configured(polygraphy, job)

    [profile] = config.profiles
    assert cast("RecordingProfile", profile).shapes == {"image": list(PROFILE[0][1:])}
    assert config.timings == [job.timings]


def test_a_flag_more_than_the_recipe_has_is_seen(polygraphy: ModuleType, job: BuildJob) -> None:
    config = configured(polygraphy, job)
    config.set_flag(job.trt.BuilderFlag.REFIT)
    with pytest.raises(EngineBuildError, match="REFIT"):
        refuse_another_recipe(job.trt, cast("Any", config), job.recipe, "polygraphy")


def test_tensorrt_is_given_our_logger_and_polygraphys_own_comes_back(
    trt: ModuleType, polygraphy: ModuleType, job: BuildJob, core: Core, capfd: pytest.CaptureFixture[str]
) -> None:
    its_logger = importlib.import_module("polygraphy.logger").G_LOGGER
    former = polygraphy.util.TRT_LOGGER, its_logger.module_severity.get()
    core.will_say(1, "no device for a builder")

    with process_log(trt).listening() as heard, pytest.raises(TypeError, match="factory function returned nullptr"):
        build_with_polygraphy(job)

    assert core.last_logger() == core.address(job.log)
    assert [line.text for line in heard.errors] == ["no device for a builder"]
    assert (polygraphy.util.TRT_LOGGER, its_logger.module_severity.get()) == former
    assert capfd.readouterr() == ("", "")
