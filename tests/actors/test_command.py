"""The command as a person meets it: exit codes, errors that say what to do, and one JSON document where asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest

from actors.__main__ import c7, exit_code, main
from actors.demo.story import MARKER
from actors.flight.process import RestartNeededError
from messages import ConfigError, EngineBuildError, JournalError, TakeoffRefusedError

PLAN = """
[flight]
name = "test"
[runtime]
runtime = "onnx_trt_ep"
provider = "cpu"
[models.vpr]
source = "vpr.onnx"
precision = "fp32"
deadline_ms = {deadline}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "flight.toml"
    path.write_text(PLAN.format(deadline=200))
    return path


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TakeoffRefusedError("x"), 1),
        (EngineBuildError("x"), 1),
        (JournalError("x"), 1),
        (click.Abort(), 1),
        (ConfigError("x"), 2),
        (click.UsageError("x"), 2),
        (ZeroDivisionError("x"), 70),
        (RestartNeededError("x"), 75),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_end_has_its_exit_code(error: BaseException, code: int) -> None:
    assert exit_code(error) == code


def test_every_command_explains_itself(capfd: pytest.CaptureFixture[str]) -> None:
    assert set(c7.commands) == {"doctor", "provision", "engines", "preflight", "fly", "declare", "infer", "demo"}
    for name in c7.commands:
        assert main([name, "--help"]) == 0
        assert "Usage: c7" in capfd.readouterr().out


def test_wrong_usage_is_exit_code_2_and_shows_the_usage(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fly"]) == 2
    assert "Missing argument 'FLIGHT.toml'" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fly", "flight.toml", "--for", "nan"], "expected a number of seconds, found nan"),
        (["fly", "flight.toml", "--for", "inf"], "0<x<=1000000"),
        (["fly", "flight.toml", "--for", "1e7"], "0<x<=1000000"),
        (["fly", "flight.toml", "--for", "0"], "0<x<=1000000"),
        (["fly", "flight.toml", "--for", "soon"], "'soon' is not a valid float range"),
        (["demo", "--seconds", "nan"], "expected a number of seconds, found nan"),
        (["demo", "--seconds", "-inf"], "12<=x<=3600"),
    ],
)
def test_a_duration_that_is_none_is_wrong_usage(
    arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    found = capfd.readouterr().err
    assert f"Invalid value for '{arguments[-2]}'" in found
    assert said in found


def test_an_internal_error_keeps_its_traceback_and_is_exit_code_70(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], plan: Path
) -> None:
    def explode(_path: Path) -> None:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr("actors.cli.read_flight_plan", explode)
    assert main(["fly", str(plan)]) == 70
    text = capfd.readouterr().err
    assert "Traceback" in text
    assert "internal error: ZeroDivisionError: a mistake of ours" in text


def test_an_error_keeps_its_lines_and_does_not_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> None:
        raise TakeoffRefusedError("found \x1b[2K\x9b31m\u202e\nin a table")

    monkeypatch.setattr(c7.commands["doctor"], "callback", refuse)
    assert main(["doctor"]) == 1
    assert capfd.readouterr().err == "c7: found \\x1b[2K\\x9b31m\\u202e\nin a table\n"


def test_a_plan_that_is_not_there_is_unreadable_input(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for command in ("provision", "preflight", "fly"):
        assert main([command, str(tmp_path / "flight.toml")]) == 2
        assert "cannot be read" in capfd.readouterr().err


def test_a_malformed_plan_is_named_by_table_and_key(plan: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plan.write_text(PLAN.format(deadline='"soon"'))
    assert main(["fly", str(plan)]) == 2
    text = capfd.readouterr().err
    assert "[models.vpr]" in text
    assert "deadline_ms" in text


def test_with_json_an_error_is_one_document_too(plan: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["preflight", str(plan), "--json"]) == 1
    captured = capfd.readouterr()
    document = json.loads(captured.out)
    assert document["kind"] == "TakeoffRefusedError"
    assert document["exit_code"] == 1
    assert "c7 provision" in document["error"]


def test_a_flight_without_engines_is_refused_and_leaves_no_recording(plan: Path) -> None:
    assert main(["fly", str(plan), "--for", "1"]) == 1
    assert not (plan.parent / "recordings").exists()


def test_a_missing_model_stops_provisioning_and_leaves_no_generation(
    plan: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["provision", str(plan)]) == 1
    assert "vpr.onnx" in capfd.readouterr().err
    assert not list((plan.parent / "engines").glob("gen-*"))


def test_the_demonstration_never_empties_a_folder_of_somebody_else(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("ten years")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "--out" in capfd.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "ten years"


def test_a_folder_that_the_demonstration_cannot_have_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", "/dev/null/demo", "--json"]) == 2
    captured = capfd.readouterr()
    assert "--out" in json.loads(captured.out)["error"]
    assert "Traceback" not in captured.err


def test_a_demonstration_without_pictures_leaves_an_earlier_one_alone(tmp_path: Path) -> None:
    (tmp_path / MARKER).touch()
    (tmp_path / "summary.json").write_text("{}")
    assert main(["demo", "--out", str(tmp_path), "--frames", str(tmp_path / "nowhere")]) == 2
    assert (tmp_path / "summary.json").exists()


def test_doctor_says_what_this_machine_is_and_why_a_runtime_cannot_run(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    diagnosis = json.loads(capfd.readouterr().out)
    assert diagnosis["host"]["machine"]
    runtimes = {each["label"]: each for each in diagnosis["runtimes"]}
    assert {"tensorrt", "onnx_trt_ep[tensorrt]", "pytorch_fp16[cpu]"} <= runtimes.keys()
    assert not runtimes["tensorrt"]["available"]
    assert all(each["detail"] for each in runtimes.values())


def test_doctor_shows_the_tensorrt_that_engines_are_bound_to() -> None:
    """The doubles have no package that tells a version: TensorRT says it of itself, as to the engine's own record."""
    doubles = Path(__file__).parents[1] / "doubles"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(doubles), str(doubles / "nvml")]),
        "BUILD_ONNX_TRT_EP_RUNTIME": "OFF",
        "BUILD_PYTORCH_FP16_RUNTIME": "OFF",
    }
    command = [sys.executable, "-m", "actors", "doctor", "--json"]
    found = subprocess.run(command, env=environment, capture_output=True, timeout=120, check=True)  # noqa: S603
    diagnosis = json.loads(found.stdout)
    assert {each["label"]: each["available"] for each in diagnosis["runtimes"]}["tensorrt"]
    assert diagnosis["host"]["tensorrt"] == "10.3.0"


def test_a_signal_ends_a_command_as_ctrl_c_does(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], plan: Path
) -> None:
    left: list[str] = []

    def interrupted(_path: Path) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGHUP)  # a second one does not break off what ends
            left.append("the child was ended")

    monkeypatch.setattr("actors.cli.read_flight_plan", interrupted)
    former = signal.getsignal(signal.SIGTERM)
    assert main(["preflight", str(plan), "--json"]) == 1
    assert left == ["the child was ended"]
    assert json.loads(capfd.readouterr().out)["error"] == "interrupted"
    assert signal.getsignal(signal.SIGTERM) is former


@pytest.mark.parametrize("daemon", [True, False])
def test_a_process_with_threads_that_were_left_behind_ends_itself(
    monkeypatch: pytest.MonkeyPatch, daemon: bool
) -> None:
    ended: list[int] = []
    let_go = threading.Event()
    thread = threading.Thread(target=let_go.wait, daemon=daemon)
    thread.start()
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(sys, "argv", ["c7", "no-such-command"])
    try:
        main()
    finally:
        let_go.set()
        thread.join()
    assert ended == [2]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_said_without_a_traceback() -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "actors", "doctor", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 1
    assert "cannot be written to stdout" in ended.stderr
    assert "Traceback" not in ended.stderr
