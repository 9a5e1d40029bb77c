"""One recipe, three builders: the same engine, byte for byte, and the same report of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import msgspec
import pytest

from runtimes.build_report import BuilderName, BuildReport
from runtimes.cuda.port import Cuda
from runtimes.inference_runtime import Precision, ProfileRange
from runtimes.tensorrt.building.build import TensorrtBuild
from runtimes.tensorrt.log import TensorrtLog
from tests.runtimes.tensorrt.building.builds import Bench, descriptor, half_descriptor, put_trtexec_first, quantized
from tests.runtimes.tensorrt.models import static


class Case(NamedTuple):
    model: Callable[[], bytes]
    precision: Precision
    is_calibrated: bool
    flags: tuple[str, ...]
    precisions: dict[str, int]
    is_typed: bool = False


BUILDERS: tuple[BuilderName, ...] = ("api", "trtexec")
MIXED = ("FP16", "OBEY_PRECISION_CONSTRAINTS")
CASES = {
    "fp16": Case(descriptor, "fp16", False, ("FP16",), {"fp16": 3, "moved": 3}),
    "int8": Case(descriptor, "int8", True, ("FP16", "INT8"), {"fp16": 1, "int8": 2, "moved": 5}),
    "mixed": Case(descriptor, "mixed", False, MIXED, {"fp16": 2, "fp32": 1, "moved": 5}),
    "mixed with int8": Case(descriptor, "mixed", True, ("FP16", "INT8", MIXED[1]), {"fp32": 1, "int8": 2, "moved": 5}),
    "typed fp16": Case(half_descriptor, "fp16", False, (), {"fp16": 3}, is_typed=True),
    "quantized": Case(quantized, "int8", False, (), {"int8": 1, "moved": 1}, is_typed=True),
}


@pytest.fixture
def bench(trt: ModuleType, log: TensorrtLog, cuda: Cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    put_trtexec_first(monkeypatch)
    return Bench(trt, log, cuda, tmp_path)


def built(bench: Bench, case: Case, builder: BuilderName) -> TensorrtBuild:
    dataset = bench.dataset() if case.is_calibrated else None
    return bench.build(case.model(), case.precision, builder, dataset=dataset)


def without_tool(report: BuildReport) -> BuildReport:
    return msgspec.structs.replace(report, builder="api", command=())


@pytest.mark.parametrize("name", CASES)
def test_tensorrts_own_classes_carry_the_recipe_out(bench: Bench, name: str) -> None:
    case = CASES[name]
    report = built(bench, case, "api").report

    assert report.flags == case.flags
    assert report.layer_precisions == case.precisions
    assert report.strongly_typed == case.is_typed
    assert (report.tensorrt, report.builder, report.command, report.warnings) == ("10.3.0", "api", (), ())
    assert report.activation_bytes[0] > 0


@pytest.mark.parametrize("name", CASES)
def test_trtexec_builds_the_same_engine_and_reports_the_same(bench: Bench, name: str) -> None:
    expected, found = (built(bench, CASES[name], builder) for builder in BUILDERS)

    assert found.data == expected.data
    assert without_tool(found.report) == expected.report
    assert found.report.command[0].endswith("/trtexec")
    assert found.calibration_cache == expected.calibration_cache
    assert found.dataset_sha256 == expected.dataset_sha256


@pytest.mark.parametrize("name", CASES)
def test_polygraphy_builds_the_same_engine_and_reports_the_same(bench: Bench, name: str) -> None:
    pytest.importorskip("polygraphy", reason="Polygraphy is not installed here")
    expected, found = built(bench, CASES[name], "api"), built(bench, CASES[name], "polygraphy")

    assert found.data == expected.data
    assert without_tool(found.report) == expected.report
    assert found.calibration_cache == expected.calibration_cache


def test_a_model_of_fixed_shapes_is_built_alike_whether_or_not_its_shapes_are_given(bench: Bench) -> None:
    """trtexec refuses shapes for it ("Static model does not take explicit shapes"), TensorRT's classes take them."""
    given: tuple[ProfileRange, ...] = (("image", (1, 3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 8)),)

    plans = {
        bench.build(static(), builder=builder, profile=profile).data
        for builder, profile in itertools.product(BUILDERS, ((), given))
    }
    assert len(plans) == 1


def test_trtexec_is_given_each_input_of_a_calibration_and_no_file_that_it_would_warn_of(bench: Bench) -> None:
    """ "Calibration profile for tensor bias cannot be found!" ends it else, and a file of timings that is not there is
    a warning with the path of the build's folder in it.
    """
    report = bench.build(descriptor(), "int8", "trtexec", dataset=bench.dataset()).report

    assert "--optShapes=image:2x3x8x8,bias:4" in report.command
    assert report.warnings == ()


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "densenet121"])
def test_a_whole_topology_is_built_alike_with_its_softmax_in_fp32(
    bench: Bench, light_onnx: Callable[[str], Path], name: str
) -> None:
    data = light_onnx(name).read_bytes()
    expected, found = (bench.build(data, "mixed", builder, profile=()) for builder in BUILDERS)

    assert found.data == expected.data
    assert without_tool(found.report) == expected.report
    assert expected.report.layer_precisions["fp16"] > 30
    assert expected.report.layer_precisions.get("fp32", 0) == data.count(b"Softmax")
