"""trtexec's process: its words read, its time bounded, and nothing of it left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from messages import EngineBuildError
from runtimes.tensorrt.building.trtexec_output import ERRORS_MAX, LINES_MAX, TrtexecLine, TrtexecOutput
from runtimes.tensorrt.building.trtexec_process import run_trtexec

WAIT_S = 20.0


def script(folder: Path, *lines: str) -> str:
    path = folder / "trtexec"
    path.write_text("#!" + sys.executable + "\n" + "\n".join(("import os, sys, time", *lines)) + "\n")
    path.chmod(0o755)
    return str(path)


def is_gone(pid: int) -> bool:
    """Ended; what nobody waited for yet counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_gone(pid: int) -> bool:
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end and not is_gone(pid):
        time.sleep(0.01)
    return is_gone(pid)


def test_a_verdict_a_version_and_tensorrts_own_lines_are_read() -> None:
    output = TrtexecOutput()
    for line in (
        "&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=m.onnx",
        "[11/24/2026-08:37:49] [I] TensorRT version: 10.3.0",
        "[11/24/2026-08:37:50] [W] [TRT] Tactic Device request: 9MB Available: 8MB.",
        "[11/24/2026-08:37:50] [I] [TRT] [MemUsageChange] Init CUDA",
        "[11/24/2026-08:37:51] [E] Engine could not be created from network",
        "[11/24/2026-08:37:51] [F] [TRT] [engine.cpp::f::1] Error Code 1: Internal",
        "&&&& FAILED TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=m.onnx",
    ):
        output.take(line + "\n")

    assert (output.verdict, output.version) == ("FAILED", "10.3.0")
    assert output.lines == [
        TrtexecLine("WARNING", "Tactic Device request: 9MB Available: 8MB."),
        TrtexecLine("ERROR", "Engine could not be created from network"),
        TrtexecLine("INTERNAL_ERROR", "[engine.cpp::f::1] Error Code 1: Internal"),
    ]


def test_only_so_many_lines_are_kept() -> None:
    output = TrtexecOutput()
    for number in range(LINES_MAX + 3):
        output.take(f"[11/24/2026-08:37:50] [W] [TRT] {number} {'x' * 10_000 if number < 10 else ''}")

    assert len(output.lines) == LINES_MAX
    assert output.left_out == 3
    assert max(len(line.text) for line in output.lines) < 2_001


def test_the_error_that_ends_a_build_is_kept_however_much_was_said_before() -> None:
    output = TrtexecOutput()
    for number in range(LINES_MAX + 3):
        output.take(f"[11/24/2026-08:37:50] [W] [TRT] {number}")
    for number in range(ERRORS_MAX + 2):
        output.take(f"[11/24/2026-08:37:51] [E] [TRT] {number}")

    assert [line.text for line in output.lines[LINES_MAX:]] == [str(number) for number in range(ERRORS_MAX)]
    assert output.left_out == 5


def test_arguments_output_and_exit_code_come_through(tmp_path: Path) -> None:
    command = script(
        tmp_path,
        "print('[11/24/2026-08:37:50] [W] [TRT] ' + '|'.join(sys.argv[1:]))",
        "print('&&&& PASSED TensorRT.trtexec', end='', flush=True)",
        "sys.exit(3)",
    )
    code, output = run_trtexec([command, "--a=b c", "--d"], timeout_s=WAIT_S)

    assert code == 3
    assert output.verdict == "PASSED", "a last line without an end counts"
    assert output.lines == [TrtexecLine("WARNING", "--a=b c|--d")]


def test_one_that_takes_too_long_ends_with_all_that_it_started(tmp_path: Path) -> None:
    command = script(
        tmp_path,
        "import subprocess",
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])",
        f"open({str(tmp_path / 'pids')!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')",
        "print('still at it', flush=True)",
        "time.sleep(600)",
    )
    with pytest.raises(EngineBuildError, match=r"did not end in 3 s; its last line: still at it"):
        run_trtexec([command], timeout_s=3)

    assert all(wait_until_gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_one_that_is_no_longer_wanted_ends(tmp_path: Path) -> None:
    began = tmp_path / "began"
    command = script(tmp_path, f"open({str(began)!r}, 'w').close()", "time.sleep(600)")

    with pytest.raises(EngineBuildError, match="the build was ended: the landing"):
        run_trtexec([command], timeout_s=WAIT_S, cancelled=lambda: "the landing" if began.exists() else "")


def test_one_that_cannot_be_run_is_an_error_by_name(tmp_path: Path) -> None:
    code, output = run_trtexec([str(tmp_path / "none")], timeout_s=WAIT_S)

    assert code != 0
    assert "No such file" in output.last


def test_a_builder_that_is_killed_takes_its_trtexec_with_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    command = script(
        tmp_path,
        f"open({str(pid_file)!r} + '.new', 'w').write(str(os.getpid()))",
        f"os.rename({str(pid_file)!r} + '.new', {str(pid_file)!r})",
        "time.sleep(600)",
    )
    builder = subprocess.Popen(  # noqa: S603 - this interpreter
        [
            sys.executable,
            "-c",
            "from runtimes.tensorrt.building.trtexec_process import run_trtexec;"
            f" run_trtexec([{command!r}], timeout_s=600)",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        end = time.monotonic() + WAIT_S
        while not pid_file.exists() and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        builder.send_signal(signal.SIGKILL)
        builder.wait(WAIT_S)

    assert wait_until_gone(int(pid_file.read_text()))
