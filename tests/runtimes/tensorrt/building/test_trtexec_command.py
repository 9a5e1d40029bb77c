"""trtexec's command line for every kind of recipe, by the options of samples/common/sampleOptions.cpp, tag v10.3.0."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import cast

import msgspec
import pytest

from messages import EngineBuildError, RuntimeNotAvailableError
from runtimes.inference_runtime import BuildConfig, Precision, ProfileRange
from runtimes.onnx_types import OnnxTypes
from runtimes.tensorrt.building import with_trtexec
from runtimes.tensorrt.building.build_job import BuildJob
from runtimes.tensorrt.building.progress import BuildProgress
from runtimes.tensorrt.building.recipe import engine_recipe
from runtimes.tensorrt.building.with_trtexec import find_trtexec, trtexec_command
from runtimes.tensorrt.log import Loudspeaker, TensorrtLog

TRTEXEC = Path("/usr/src/tensorrt/bin/trtexec")
ALWAYS = (
    "/usr/src/tensorrt/bin/trtexec",
    "--onnx=/w/model.onnx",
    "--saveEngine=/w/engine.plan",
    "--timingCacheFile=/w/tensorrt.timing",
    "--memPoolSize=workspace:1024M",
    "--builderOptimizationLevel=3",
    "--profilingVerbosity=detailed",
    "--skipInference",
    "--device=0",
    "--noTF32",
)


class NoMonitor:
    def __init__(self) -> None:
        self.progress = BuildProgress()
        self.ended_because = ""
        self.failure: BaseException | None = None


def job(
    precision: Precision = "fp16",
    types: OnnxTypes | None = None,
    dataset: Path | None = None,
    profile: tuple[ProfileRange, ...] = (),
) -> BuildJob:
    config = BuildConfig(precision=precision, calibration_dataset=dataset, optimization_profiles=profile)
    return BuildJob(
        trt=ModuleType("tensorrt"),
        log=cast("TensorrtLog", Loudspeaker()),
        recipe=engine_recipe("m", config, types or OnnxTypes()),
        onnx=Path("/w/model.onnx"),
        monitor=NoMonitor(),
    )


def test_fp16_of_an_fp32_model_is_the_permission() -> None:
    assert trtexec_command(job(), TRTEXEC) == (*ALWAYS, "--fp16")


def test_a_model_that_says_its_types_is_strongly_typed_and_gets_no_precision() -> None:
    assert trtexec_command(job(types=OnnxTypes(narrow=("fp16",))), TRTEXEC) == (*ALWAYS, "--stronglyTyped")


def test_int8_is_never_without_a_table() -> None:
    command = trtexec_command(job("int8", dataset=Path("d")), TRTEXEC)

    assert command == (*ALWAYS, "--fp16", "--int8", "--calib=/w/scales.cache")
    with pytest.raises(EngineBuildError, match="no INT8 build without scales: it would make them up"):
        with_trtexec.build_with_trtexec(job("int8", dataset=Path("d")))


def test_layers_are_held_to_fp32_by_name_and_trtexec_must_obey() -> None:
    mixed = job("mixed", OnnxTypes(delicate=("a", "b")))

    assert trtexec_command(mixed, TRTEXEC, ("/block.0/a", "b:1"))[-2:] == (
        "--precisionConstraints=obey",
        "--layerPrecisions=/block.0/a:fp32,b:1:fp32",
    )


def test_the_profile_is_three_lists_of_shapes() -> None:
    profile = (("image", (1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8)), ("bias:0", (1,), (2,), (4,)), ("n", (), (), ()))

    assert trtexec_command(job(profile=profile), TRTEXEC)[-3:] == (
        "--minShapes=image:1x3x8x8,bias:0:1,n:scalar",
        "--optShapes=image:2x3x8x8,bias:0:2,n:scalar",
        "--maxShapes=image:4x3x8x8,bias:0:4,n:scalar",
    )


@pytest.mark.parametrize("name", ["a,b", "it's", "every*", "new\nline"])
def test_a_name_that_means_something_to_trtexec_is_refused(name: str) -> None:
    with pytest.raises(EngineBuildError, match="trtexec's options cannot take the names"):
        trtexec_command(job(profile=((name, (1,), (1,), (1,)),)), TRTEXEC)
    with pytest.raises(EngineBuildError, match="trtexec's options cannot take the names"):
        trtexec_command(job(), TRTEXEC, (name,))


def test_a_command_line_that_is_too_long_to_be_kept_is_refused() -> None:
    with pytest.raises(EngineBuildError, match="of which 65536 are kept"):
        trtexec_command(job(), TRTEXEC, [f"{'x' * 1000}{number}" for number in range(70)])


def test_device_and_effort_are_those_of_the_job() -> None:
    other = job()
    other = msgspec.structs.replace(
        other, device_index=1, recipe=msgspec.structs.replace(other.recipe, optimization_level=5)
    )

    command = trtexec_command(other, TRTEXEC)
    assert "--device=1" in command
    assert "--builderOptimizationLevel=5" in command


def test_a_machine_without_trtexec_is_told_where_it_was_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(with_trtexec, "JETPACK_TRTEXEC", tmp_path / "jetpack")
    with pytest.raises(RuntimeNotAvailableError, match="expected trtexec on the PATH or as"):
        find_trtexec()

    (tmp_path / "jetpack").touch()
    assert find_trtexec() == tmp_path / "jetpack"
