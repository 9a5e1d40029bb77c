"""Why there is no engine: TensorRT's own words, a device that is short of memory, a folder that is full."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from onnx import helper

from messages import EngineBuildError, OutOfMemoryError, RuntimeNotAvailableError
from runtimes.build_report import BuilderName
from runtimes.cuda.port import Cuda
from runtimes.tensorrt.building.network import ParsedModel
from runtimes.tensorrt.log import TensorrtLog
from tests.runtimes.tensorrt.building.builds import Bench, descriptor
from tests.runtimes.tensorrt.models import FLOAT, model

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device
    from tests.doubles.tensorrt.core import Core

MIB = 1024**2
IN_PROCESS = ["api", "polygraphy"]


@pytest.fixture
def bench(trt: ModuleType, log: TensorrtLog, cuda: Cuda, tmp_path: Path) -> Bench:
    return Bench(trt, log, cuda, tmp_path)


def require(builder: BuilderName) -> None:
    if builder == "polygraphy":
        pytest.importorskip("polygraphy", reason="Polygraphy is not installed here")


@pytest.mark.parametrize("builder", IN_PROCESS)
def test_tensorrts_own_words_say_why_there_is_no_engine(bench: Bench, core: Core, builder: BuilderName) -> None:
    require(builder)
    core.fail(
        "build_serialized_network", "Error Code 10: Internal Error (Could not find any implementation for node add.)"
    )

    with pytest.raises(EngineBuildError, match=r"/model\.onnx: TensorRT made no engine: Error Code 10.* for node add"):
        bench.build(descriptor(), builder=builder)


@pytest.mark.parametrize("builder", IN_PROCESS)
def test_memory_that_runs_out_is_an_error_of_memory(bench: Bench, core: Core, builder: BuilderName) -> None:
    require(builder)
    core.fail("build_serialized_network", "Error Code 2: OutOfMemory (Requested size was 4294967296 bytes.)")

    with pytest.raises(OutOfMemoryError, match="Requested size was 4294967296 bytes"):
        bench.build(descriptor(), builder=builder)


def test_a_tensorrt_that_says_nothing_is_said_to_say_nothing(bench: Bench, core: Core) -> None:
    core.fail("build_serialized_network", "")

    with pytest.raises(EngineBuildError, match="TensorRT made no engine: TensorRT says no reason"):
        bench.build(descriptor())


@pytest.mark.parametrize("builder", IN_PROCESS)
def test_no_builder_is_an_error_with_the_words_of_the_log(bench: Bench, core: Core, builder: BuilderName) -> None:
    require(builder)
    core.fail(
        "Builder", "createInferBuilder: Error Code 6: API Usage Error (CUDA initialization failure with error: 2)"
    )

    with pytest.raises(EngineBuildError, match="CUDA initialization failure with error: 2"):
        bench.build(descriptor(), builder=builder)


def test_no_network_is_an_error(bench: Bench, core: Core) -> None:
    core.fail("create_network", "Error Code 3: API Usage Error (flags)")

    with pytest.raises(EngineBuildError, match=r"model\.onnx: TensorRT made no network with flags 0x0"):
        bench.build(descriptor())


@pytest.mark.parametrize("builder", IN_PROCESS)
def test_an_operation_that_tensorrt_does_not_know_is_named_in_the_error_alone(
    bench: Bench, builder: BuilderName, capfd: pytest.CaptureFixture[str]
) -> None:
    require(builder)
    nodes = [helper.make_node("Celu", ["x"], ["y"], name="odd")]
    data = model(nodes, [("x", FLOAT, [2])], [("y", FLOAT, [2])])

    with pytest.raises(EngineBuildError, match=r"(Celu|odd).*Plugin not found, .*; export the model in operations"):
        bench.build(data, builder=builder, profile=())
    assert capfd.readouterr() == ("", "")


def test_a_file_that_is_no_model_is_told_in_the_words_of_the_log(bench: Bench) -> None:
    with pytest.raises(EngineBuildError, match="cannot parse the model: Failed to parse ONNX model from file"):
        ParsedModel(bench.trt, bench.log, bench.save(b"not a model"), strongly_typed=False)


def test_a_tactic_beyond_the_workspace_is_counted(bench: Bench, core: Core) -> None:
    core.tactic_bytes = 2304 * MIB

    report = bench.build(descriptor(), workspace_mb=1024).report
    assert report.skipped_tactics == 1
    assert report.warnings[0].startswith("Tactic Device request: 2304MB Available: 1024MB.")


@pytest.mark.parametrize("builder", IN_PROCESS)
def test_a_tactic_left_out_because_the_device_was_short_of_memory_is_fatal(
    bench: Bench, core: Core, device: Device, cuda: Cuda, builder: BuilderName
) -> None:
    require(builder)
    core.tactic_bytes = 900 * MIB
    busy = cuda.allocate(device.memory.total_bytes - device.memory.used_bytes - 300 * MIB)

    with pytest.raises(EngineBuildError, match=r"the device was short of memory during the build.*request: 900MB"):
        bench.build(descriptor(), builder=builder, workspace_mb=1024)
    busy.free()
    assert bench.build(descriptor(), builder=builder, workspace_mb=1024).report.skipped_tactics == 0


def test_a_workspace_that_is_larger_than_the_device_is_told_with_what_tensorrt_took(
    bench: Bench, device: Device
) -> None:
    too_much_mb = device.memory.total_bytes // MIB + 1

    with pytest.raises(
        EngineBuildError, match=rf"a workspace of {too_much_mb * MIB} bytes, found that TensorRT keeps 8589934592,"
    ):
        bench.build(descriptor(), workspace_mb=too_much_mb)


def test_a_full_disk_is_told_with_the_folder_and_what_needs_room_there(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    path = bench.save(descriptor())
    monkeypatch.setattr(Bench, "save", lambda self, data: path)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(EngineBuildError, match=r"c7-tensorrt-.* cannot be used: No space left on device; .*TMPDIR"):
        bench.build(descriptor())


def test_polygraphy_that_is_missing_is_refused_by_name(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("runtimes.tensorrt.building.with_polygraphy.importlib.import_module", missing)
    with pytest.raises(RuntimeNotAvailableError, match="install c7-inference with its extra"):
        bench.build(descriptor(), builder="polygraphy")


def test_an_engine_that_does_not_say_what_it_is_is_refused(bench: Bench, core: Core) -> None:
    core.fail("create_engine_inspector", "no inspector")

    with pytest.raises(EngineBuildError, match="TensorRT made no inspector of the engine"):
        bench.build(descriptor())


def test_nothing_of_a_build_is_left_in_the_temporary_folder(
    bench: Bench, core: Core, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    bench.build(descriptor())
    core.fail("build_serialized_network", "Error Code 10")
    with pytest.raises(EngineBuildError):
        bench.build(descriptor())

    assert [*scratch.iterdir()] == []
