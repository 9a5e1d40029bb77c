"""Builds on a device: three builders and one engine, scales that are kept, timings that are used again."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from messages import RuntimeNotAvailableError
from runtimes.build_report import BuilderName, BuildReport
from runtimes.config import C7InferenceConfig, TensorrtSection
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry
from runtimes.sign_off.accuracy import compare
from runtimes.tensorrt.building.layer_audit import MOVED, UNTOLD
from runtimes.tensorrt.building.timings import TIMING_FILE
from runtimes.tensorrt.building.with_polygraphy import import_polygraphy
from runtimes.tensorrt.building.with_trtexec import find_trtexec
from runtimes.tensorrt_runtime import TensorrtRuntime
from tests.runtimes.tensorrt import models
from tests.runtimes.tensorrt.on_a_device import networks
from tests.runtimes.tensorrt.on_a_device.arrays import assert_near, rows
from tests.runtimes.tensorrt.on_a_device.conftest import Built, MakeRuntime
from tests.runtimes.tensorrt.on_a_device.networks import FP16_ROWS

pytestmark = pytest.mark.tensorrt

INT8_TOLERANCE = 0.1
"""Of the relative error of four convolutions whose scales come from a dozen pictures of noise."""


def require_builder(builder: BuilderName) -> None:
    try:
        if builder == "trtexec":
            find_trtexec()
        elif builder == "polygraphy":
            import_polygraphy()
    except RuntimeNotAvailableError as error:
        pytest.skip(str(error))


def recipe_part(report: BuildReport | None) -> BuildReport:
    """What of a report the recipe decides: not how many layers the fastest tactics made of it."""
    assert report is not None
    return msgspec.structs.replace(
        report,
        builder="api",
        command=(),
        warnings=(),
        activation_bytes=(),
        skipped_tactics=0,
        layer_precisions={name: 1 for name in report.layer_precisions if name != MOVED},
    )


@pytest.mark.parametrize("builder", ["polygraphy", "trtexec"])
def test_each_builder_makes_the_engine_that_tensorrts_own_classes_make(
    built: Built, make_runtime: MakeRuntime, builder: BuilderName
) -> None:
    require_builder(builder)
    data = networks.scaled_rows()
    ours, theirs = built("scaled", data, FP16_ROWS), built("scaled", data, FP16_ROWS, builder=builder)
    assert (theirs.inputs, theirs.outputs) == (ours.inputs, ours.outputs)
    assert recipe_part(theirs.build) == recipe_part(ours.build)
    assert theirs.build is not None
    assert theirs.build.builder == builder
    runtime = make_runtime()
    handle = runtime.deserialize_engine(theirs)
    assert_near(runtime.infer(handle, rows(3)), models.answers(data, rows(3)))
    runtime.release_engine(handle)


def test_every_layer_of_a_strongly_typed_model_computes_in_its_type(built: Built) -> None:
    report = built("scaled", networks.scaled_rows(), FP16_ROWS).build
    assert report is not None
    assert report.strongly_typed
    assert report.layer_precisions.get("fp16", 0) >= 1
    assert {"fp32", "int8", "bf16"} & report.layer_precisions.keys() == set()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, picture in enumerate(networks.pictures(12)):
        np.savez(folder / f"{index:03}.npz", image=picture)
    return folder


@pytest.mark.parametrize("builder", ["api", "polygraphy", "trtexec"])
def test_an_int8_engine_is_calibrated_once_near_its_model_and_says_what_it_was_made_from(
    make_runtime: MakeRuntime, dataset: Path, tmp_path: Path, builder: BuilderName
) -> None:
    require_builder(builder)
    data = networks.calibrated()
    source = tmp_path / "calibrated.onnx"
    source.write_bytes(data)
    config = BuildConfig(precision="int8", calibration_dataset=dataset)
    runtime = make_runtime(builder=builder)
    entry = runtime.compile_engine(source, config)
    assert entry.build is not None
    assert entry.build.layer_precisions.get("int8", 0) >= 1
    assert entry.build.missing_scales == 0
    assert {"FP16", "INT8"} <= set(entry.build.flags)
    assert entry.calibration_sha256 is not None
    worst = relative_error(runtime, entry, data)
    assert worst <= INT8_TOLERANCE
    again = runtime.compile_engine(source, config)
    assert (again.calibration_sha256, again.dataset_sha256) == (entry.calibration_sha256, entry.dataset_sha256)


def relative_error(runtime: TensorrtRuntime, entry: EngineCacheEntry, data: bytes) -> float:
    handle = runtime.deserialize_engine(entry)
    pairs = []
    for picture in networks.pictures(4):
        found = {name: np.asarray(array) for name, array in runtime.infer(handle, {"image": picture}).items()}
        pairs.append((found, models.answers(data, {"image": picture})))
    runtime.release_engine(handle)
    return max(error.relative_rms for error in compare(pairs).values())


def test_operations_that_mixed_holds_to_fp32_are_built_and_give_what_the_model_gives(
    built: Built, make_runtime: MakeRuntime
) -> None:
    data = networks.delicate()
    profile = (("x", (1, 256), (4, 256), (8, 256)),)
    entry = built("delicate", data, BuildConfig(precision="mixed", optimization_profiles=profile))
    assert entry.build is not None
    assert "OBEY_PRECISION_CONSTRAINTS" in entry.build.flags
    assert UNTOLD not in entry.build.layer_precisions
    runtime = make_runtime()
    handle = runtime.deserialize_engine(entry)
    x = np.random.default_rng(2).normal(size=(5, 256)).astype(np.float32)
    assert_near(runtime.infer(handle, {"x": x}), models.answers(data, {"x": x}))
    runtime.release_engine(handle)


@pytest.mark.parametrize("builder", ["api", "polygraphy", "trtexec"])
def test_what_a_build_timed_is_kept_for_the_next_one_which_adds_to_it(
    hardware: object, tmp_path: Path, builder: BuilderName
) -> None:
    require_builder(builder)
    source = tmp_path / "scaled.onnx"
    source.write_bytes(networks.scaled_rows())
    timings = tmp_path / "timings"
    runtime = TensorrtRuntime(
        C7InferenceConfig(runtime="tensorrt", timing_cache_dir=timings, tensorrt=TensorrtSection(builder=builder))
    )
    first = runtime.compile_engine(source, FP16_ROWS)
    assert first.timing_cache_sha256 is not None
    kept = (timings / TIMING_FILE).stat().st_size
    assert kept > 0
    second = runtime.compile_engine(source, FP16_ROWS)
    assert (timings / TIMING_FILE).stat().st_size >= kept
    assert second.build is not None
    assert [line for line in second.build.warnings if TIMING_FILE in line] == []
