"""What we say where TensorRT makes neither a runtime nor a builder: typed errors, with TensorRT's own words."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from messages import EngineBuildError, OutOfMemoryError, RuntimeNotAvailableError
from runtimes.build_report import BuilderName
from runtimes.cuda.port import Cuda
from runtimes.inference_runtime import BuildConfig
from runtimes.onnx_model import AuditedModel
from runtimes.onnx_types import OnnxTypes
from runtimes.source_model import SourceModel
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.tensorrt.bindings import Engine
from runtimes.tensorrt.building.build import TensorrtBuild, build_engine
from runtimes.tensorrt.building.recipe import engine_recipe
from runtimes.tensorrt.building.timings import TIMING_FILE
from runtimes.tensorrt.inference.engine import EngineLoader
from runtimes.tensorrt.library import import_tensorrt
from runtimes.tensorrt.log import process_log
from tests.bindings.callbacks import Core

OUT_OF_MEMORY = "Error Code 2: OutOfMemory (Requested size was 4096 bytes.)"
API_USAGE = "createInferBuilder: Error Code 6: API Usage Error (CUDA initialization failure)"


def never_opened(plan: bytes) -> Engine:
    raise AssertionError("there is no plan to open")


def build(
    trt: ModuleType, cuda: Cuda, folder: Path, builder: BuilderName, timing_cache_dir: Path | None = None
) -> TensorrtBuild:
    data, config = b"no model, because nothing gets as far as reading it", BuildConfig(precision="fp16")
    return build_engine(
        trt,
        process_log(trt),
        cuda,
        engine_recipe("model.onnx", config, OnnxTypes()),
        SourceModel(folder / "model.onnx", data, sha256_of(data)),
        AuditedModel(data, {}),
        config,
        builder=builder,
        open_engine=never_opened,
        timing_cache_dir=timing_cache_dir,
    )


def test_the_bindings_are_taken(trt: ModuleType) -> None:
    assert import_tensorrt() is trt


def test_a_runtime_that_is_not_made_is_told_with_tensorrts_words(trt: ModuleType, core: Core, cuda: Cuda) -> None:
    core.will_say(1, API_USAGE)
    with pytest.raises(RuntimeNotAvailableError) as refused:
        EngineLoader(trt, process_log(trt), cuda)
    for words in (
        f"TensorRT {trt.__version__} makes no runtime on cuda:0",
        API_USAGE,
        "put its library and the driver",
    ):
        assert words in str(refused.value)


def test_a_runtime_that_is_not_made_without_a_word_is_told_too(trt: ModuleType, cuda: Cuda) -> None:
    with pytest.raises(RuntimeNotAvailableError, match="TensorRT says no reason"):
        EngineLoader(trt, process_log(trt), cuda)


@pytest.fixture(params=["api", "polygraphy"])
def builder(request: pytest.FixtureRequest) -> BuilderName:
    found: BuilderName = request.param
    return found


def test_a_builder_that_is_not_made_is_told_with_the_model_and_tensorrts_words(
    trt: ModuleType, core: Core, cuda: Cuda, tmp_path: Path, builder: BuilderName
) -> None:
    core.will_say(1, API_USAGE)
    with pytest.raises(EngineBuildError) as refused:
        build(trt, cuda, tmp_path, builder)
    assert str(tmp_path / "model.onnx") in str(refused.value)
    assert f"TensorRT made no engine: {API_USAGE}" in str(refused.value)


def test_a_builder_that_is_not_made_for_want_of_memory_is_that(
    trt: ModuleType, core: Core, cuda: Cuda, tmp_path: Path, builder: BuilderName
) -> None:
    core.will_say(1, OUT_OF_MEMORY)
    with pytest.raises(OutOfMemoryError, match="Requested size was 4096 bytes"):
        build(trt, cuda, tmp_path, builder)


def test_a_builder_that_is_not_made_for_the_timings_of_former_builds_is_told_alike(
    trt: ModuleType, core: Core, cuda: Cuda, tmp_path: Path, builder: BuilderName
) -> None:
    (tmp_path / TIMING_FILE).write_bytes(b"of a former build")
    core.will_say(1, API_USAGE)
    with pytest.raises(EngineBuildError) as refused:
        build(trt, cuda, tmp_path, builder, timing_cache_dir=tmp_path)
    assert f"{tmp_path / 'model.onnx'}: TensorRT made no engine: {API_USAGE}" in str(refused.value)
