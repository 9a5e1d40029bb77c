"""The whole story on the runtime tensorrt, in processes of their own, over the doubles of TensorRT, CUDA and NVML."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DOUBLES = Path(__file__).parents[2] / "doubles"
SECONDS = 14
WORDS = "[runner.cpp::execute::1] Error Code 7: Internal Error (a tactic failed)"
RUNS_BEFORE = 100
"""Of one process: more than a build or a takeoff makes, fewer than a life."""


@pytest.fixture
def environment() -> dict[str, str]:
    """Of a machine with TensorRT and a GPU, whose hundredth run fails."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("polygraphy", reason="Polygraphy, which builds by default, comes with the extra `tensorrt`")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (DOUBLES, DOUBLES / "nvml"))),
        "TENSORRT_DOUBLE": json.dumps({"fail": [["execute_async_v3", WORDS, "FAILED_EXECUTION", RUNS_BEFORE]]}),
    }


def test_a_flight_on_tensorrt_survives_a_failed_run_and_a_kill_with_every_request_accounted_for(
    environment: dict[str, str], tmp_path: Path
) -> None:
    command = ["demo", "--runtime", "tensorrt", "--seconds", str(SECONDS), "--out", str(tmp_path / "demo"), "--json"]
    story = c7(command, environment)
    assert story.returncode == 0, story.stderr[-4000:]
    account = json.loads(story.stdout)["account"]
    assert account["problems"] == []
    assert account["lives"] == 2
    assert account["loaded_in_order"][:4] == ["backbone", "extractor", "matcher", "refiner"]
    for row in account["models"].values():
        assert row["submitted"] == row["completed"] + sum(row["rejected"].values()) + row["lost"]
        assert row["completed"] > 0
    assert account["engines_died"]
    assert all("Error Code 7: Internal Error (a tactic failed)" in each for each in account["engines_died"].values())
    assert sum(row["restarts"] for row in account["models"].values()) >= 1
    assert sum(row["rejected"].get("inference_error", 0) for row in account["models"].values()) >= 1


def test_without_tensorrt_the_story_ends_at_its_first_engine_and_says_what_is_missing(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    environment = {**os.environ, "PYTHONPATH": str(without_tensorrt(tmp_path))}
    command = ["demo", "--runtime", "tensorrt", "--seconds", str(SECONDS), "--out", str(tmp_path / "demo")]
    story = c7(command, environment)
    assert story.returncode == 1
    assert "expected NVIDIA's Python bindings of TensorRT, which cannot be imported" in story.stderr
    assert "Traceback" not in story.stderr


def c7(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own module, no shell
        [sys.executable, "-m", "actors", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def without_tensorrt(folder: Path) -> Path:
    """A folder for the path in which `tensorrt` is a module that cannot be imported, whatever is installed."""
    path = folder / "without"
    path.mkdir()
    (path / "tensorrt.py").write_text("raise ImportError('no TensorRT here')\n")
    return path
