"""Every example is a program, run here as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_example(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own interpreter, our own program
        [sys.executable, ROOT / "examples" / name, *map(str, arguments)],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_one_engine(ultravpr_onnx: Path) -> None:
    result = run_example("one_engine.py", ultravpr_onnx)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("{'descriptor': (1, 8)} ")


def test_async_consumer(ultravpr_onnx: Path) -> None:
    result = run_example("async_consumer.py", ultravpr_onnx)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "13 of 13 completed\n"


def test_actor_consumer(ultravpr_onnx: Path) -> None:
    result = run_example("actor_consumer.py", ultravpr_onnx)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "{'descriptor': (1, 8)}\n"


def test_provision(ultravpr_onnx: Path) -> None:
    plan = ultravpr_onnx.with_name("flight.toml")
    plan.write_text(
        '[flight]\nname = "survey"\n[runtime]\nruntime = "onnx_trt_ep"\nprovider = "cpu"\n'
        '[models.vpr]\nsource = "ultravpr.onnx"\nprecision = "fp32"\ndeadline_ms = 50\n'
    )
    first = run_example("provision.py", plan)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("vpr: compile (no engine yet)\nvpr: 0 s\n")
    assert "generation 1: vpr__sm" in first.stdout
    ultravpr_onnx.write_bytes(b"no longer a network")
    refused = run_example("provision.py", plan)
    assert refused.returncode == 1
    assert "no takeoff: vpr was not compiled" in refused.stdout


@pytest.mark.parametrize("name", [path.name for path in (ROOT / "examples").glob("*.py")])
def test_an_example_without_its_argument_says_how_it_is_run(name: str) -> None:
    result = run_example(name)
    assert result.returncode == 1
    assert f"python examples/{name} " in result.stderr
    assert "Traceback" not in result.stderr


def test_no_example_goes_untested() -> None:
    source = Path(__file__).read_text()
    assert [path.name for path in (ROOT / "examples").glob("*.py") if f'run_example("{path.name}"' not in source] == []
