"""trtexec as a process: the one that is missing, another one, one that hangs or prints garbage, and its own words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from messages import EngineBuildError, OutOfMemoryError, RuntimeNotAvailableError
from runtimes.build_report import BuilderName
from runtimes.cuda.port import Cuda
from runtimes.tensorrt.building import trtexec_output, with_trtexec
from runtimes.tensorrt.log import TensorrtLog
from tests.runtimes.tensorrt.building.builds import TRTEXEC_FOLDER, Bench, descriptor, put_trtexec_first

if TYPE_CHECKING:
    from tests.doubles.tensorrt.core import Core

MIB = 1024**2


@pytest.fixture
def bench(trt: ModuleType, log: TensorrtLog, cuda: Cuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    put_trtexec_first(monkeypatch)
    return Bench(trt, log, cuda, tmp_path)


def tell_child(monkeypatch: pytest.MonkeyPatch, **told: object) -> None:
    monkeypatch.setenv("TENSORRT_DOUBLE", json.dumps(told))


def put_script_first(monkeypatch: pytest.MonkeyPatch, folder: Path, *lines: str) -> None:
    place = folder / "bin"
    place.mkdir()
    path = place / "trtexec"
    path.write_text("#!" + sys.executable + "\nimport os, sys, time\n" + "\n".join(lines) + "\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The double's program by itself."""
    command = [sys.executable, str(TRTEXEC_FOLDER / "trtexec"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - this interpreter


def test_a_machine_without_trtexec_is_told_so(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(with_trtexec, "JETPACK_TRTEXEC", tmp_path / "none")

    with pytest.raises(RuntimeNotAvailableError, match="expected trtexec on the PATH or as"):
        bench.build(descriptor(), builder="trtexec")


def test_the_trtexec_of_another_tensorrt_is_refused_by_both_versions(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_child(monkeypatch, version=[10, 4, 0, 11])

    with pytest.raises(EngineBuildError, match=r"expected the trtexec of TensorRT 10\.3\.0, found 10\.4\.0"):
        bench.build(descriptor(), builder="trtexec")


def test_one_that_hangs_is_ended_after_its_time(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put_script_first(monkeypatch, tmp_path, "print('timing', flush=True)", "time.sleep(600)")

    with pytest.raises(EngineBuildError, match=r"trtexec did not end in 2 s; its last line: timing"):
        bench.build(descriptor(), builder="trtexec", trtexec_timeout_s=2.0)


def test_one_that_is_no_longer_wanted_ends(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    began = tmp_path / "began"
    put_script_first(monkeypatch, tmp_path, f"open({str(began)!r}, 'w').close()", "time.sleep(600)")

    with pytest.raises(EngineBuildError, match="the build was ended: the landing"):
        bench.build(descriptor(), builder="trtexec", cancelled=lambda: "the landing" if began.exists() else "")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["print('\\x00\\xff' * 9)"], "trtexec ended with exit code 0 and verdict none"),
        (["sys.exit(139)"], "exit code 139 and verdict none; its last line: none"),
        (["print('&&&& PASSED TensorRT.trtexec')", "sys.exit(1)"], "exit code 1 and verdict PASSED"),
        (["print('&&&& PASSED TensorRT.trtexec')"], r"engine\.plan: trtexec says that it passed, and its file cannot"),
        (
            ["print('&&&& PASSED TensorRT.trtexec')", "open(sys.argv[2].partition('=')[2], 'w').write('no plan')"],
            "expected a TensorRT engine, found 7 bytes",
        ),
    ],
)
def test_one_that_prints_or_writes_garbage_is_never_believed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: list[str], words: str
) -> None:
    put_script_first(monkeypatch, tmp_path, *lines)

    with pytest.raises(Exception, match=words) as raised:
        bench.build(descriptor(), builder="trtexec")
    assert type(raised.value).__module__ == "messages.errors"


def test_tensorrts_own_words_come_through(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "Error Code 10: Internal Error (Could not find any implementation for node add.)"
    tell_child(monkeypatch, fail=[["build_serialized_network", words, "UNSUPPORTED_STATE"]])

    with pytest.raises(EngineBuildError, match=r"/model\.onnx: TensorRT made no engine: .*for node add"):
        bench.build(descriptor(), builder="trtexec")


def test_memory_that_runs_out_is_an_error_of_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "Error Code 2: OutOfMemory (Requested size was 4294967296 bytes.)"
    tell_child(monkeypatch, fail=[["build_serialized_network", words]])

    with pytest.raises(OutOfMemoryError, match="Requested size was 4294967296 bytes"):
        bench.build(descriptor(), builder="trtexec")


def test_tactics_that_its_process_skipped_are_counted_or_fatal(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_child(monkeypatch, tactic_bytes=2304 * MIB)
    assert bench.build(descriptor(), builder="trtexec").report.skipped_tactics == 1

    monkeypatch.setenv("CUDA_DOUBLE", json.dumps({"total_bytes": 1536 * MIB}))
    tell_child(monkeypatch, tactic_bytes=1800 * MIB)
    with pytest.raises(EngineBuildError, match="the device was short of memory during the build"):
        bench.build(descriptor(), builder="trtexec", workspace_mb=2048)


@pytest.mark.parametrize("builder", ["api", "trtexec"])
def test_a_line_that_found_no_room_is_read_all_the_same(
    bench: Bench, core: Core, monkeypatch: pytest.MonkeyPatch, builder: BuilderName
) -> None:
    core.tactic_bytes = 2304 * MIB
    tell_child(monkeypatch, tactic_bytes=core.tactic_bytes)
    monkeypatch.setattr("runtimes.tensorrt.log.LINES_MAX", 0)
    monkeypatch.setattr(trtexec_output, "LINES_MAX", 0)

    assert bench.build(descriptor(), builder=builder).report.skipped_tactics == 1


def test_a_process_that_sees_no_device_says_so_in_its_last_line(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_DOUBLE", json.dumps({"device_count": 0}))

    with pytest.raises(EngineBuildError, match=r"exit code 1 and verdict none; .*Cannot find any available devices"):
        bench.build(descriptor(), builder="trtexec")


def test_a_plan_that_cannot_be_saved_is_told_in_its_words(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(with_trtexec, "PLAN_FILE", "no such folder/engine.plan")

    with pytest.raises(EngineBuildError, match="Saving engine to file failed"):
        bench.build(descriptor(), builder="trtexec")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--fp17", "Unknown option: --fp17"),
        ("--useSpinWait", "No part of this double: --useSpinWait"),
        ("--memPoolSize=workspace:1024X", "failed to parse --memPoolSize"),
        ("--memPoolSize=scratch:1M", "Unknown memory pool: scratch"),
        ("--precisionConstraints=force", "Unknown precision constraints: force"),
        ("--layerPrecisions=a:fp33", "Invalid DataType fp33"),
        ("--profilingVerbosity=all", "Unknown profilingVerbosity: all"),
        ("--device=first", "stoi"),
        ("--onnx=again.onnx", "Unknown option: --onnx"),
    ],
)
def test_an_option_that_the_real_one_does_not_take_fails(option: str, words: str) -> None:
    done = run("--onnx=m.onnx", option)

    assert done.returncode == 1
    assert words in done.stderr
    assert done.stdout.splitlines()[-1].startswith("&&&& FAILED TensorRT.trtexec [TensorRT v100300] # ")


def test_int8_without_a_table_is_built_on_ranges_that_nobody_measured(tmp_path: Path) -> None:
    """Which is why it is never asked for so: the real one says PASSED."""
    (tmp_path / "m.onnx").write_bytes(descriptor())
    done = run(
        f"--onnx={tmp_path / 'm.onnx'}",
        "--int8",
        "--skipInference",
        "--minShapes=image:1x3x8x8",
        "--optShapes=image:2x3x8x8",
        "--maxShapes=image:4x3x8x8",
    )

    assert done.returncode == 0, done.stderr
    assert "[W] [TRT] Calibrator is not being used." in done.stdout
    assert "&&&& PASSED TensorRT.trtexec [TensorRT v100300] # " in done.stdout
