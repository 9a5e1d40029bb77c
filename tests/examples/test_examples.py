"""Every example is a program, run here as a user runs it, and the page beside them says what it prints."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.examples.program import EXAMPLES, ROOT, run_example, run_python

PAGE = (EXAMPLES / "README.md").read_text(encoding="utf-8")
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("*.py"))
WITHOUT_ARGUMENT = {"airborne.py", "fake_in_a_test.py"}


def shown(command: str) -> str:
    """What the page says that this command prints."""
    [block] = [text for text in re.findall(r"```\n\$ (.*?)```", PAGE, re.DOTALL) if text.startswith(command)]
    return str(block.partition("\n")[2])


def without_numbers(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "N", text)


def test_one_engine(ultravpr_onnx: Path) -> None:
    result = run_example("one_engine.py", ultravpr_onnx)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("{'descriptor': (1, 8)} ")
    assert without_numbers(result.stdout) == without_numbers(shown("python examples/one_engine.py"))


def test_one_engine_has_fifteen_lines() -> None:
    """All of them count but the docstring and empty lines."""
    source = (EXAMPLES / "one_engine.py").read_text(encoding="utf-8")
    docstring = ast.parse(source).body[0]
    program = source.splitlines()[docstring.end_lineno :]
    assert len([line for line in program if line.strip()]) == 15


def test_async_consumer(ultravpr_onnx: Path) -> None:
    result = run_example("async_consumer.py", ultravpr_onnx)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "13 of 13 completed\n" == shown("python examples/async_consumer.py")


def test_actor_consumer(ultravpr_onnx: Path) -> None:
    result = run_example("actor_consumer.py", ultravpr_onnx)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "{'descriptor': (1, 8)}\n"
    assert without_numbers(result.stdout) == without_numbers(shown("python examples/actor_consumer.py"))


def test_thermal_subscription() -> None:
    result = run_example("thermal_subscription.py", "examples/throttle.jsonl")
    assert result.returncode == 0, result.stderr
    told = [line for line in result.stdout.splitlines() if "telemetry" not in line]  # a busy machine may lose a sample
    assert [without_numbers(line) for line in told] == [
        without_numbers(line) for line in shown("python examples/thermal_subscription.py").splitlines()
    ]
    assert "fast: throttled at 99.5 degrees, 612 MHz" in told[0]


def test_fake_in_a_test() -> None:
    pytest.importorskip("greenlet", reason="greenlet comes with the extra `testing`")
    result = run_python("-m", "pytest", "-q", "-p", "no:cacheprovider", "examples/fake_in_a_test.py")
    assert result.returncode == 0, result.stdout
    assert without_numbers(result.stdout.splitlines()[-1] + "\n") == without_numbers(shown("python -m pytest"))


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
    again = run_example("provision.py", plan)
    assert again.stdout.startswith("vpr: reuse (unchanged)\ngeneration 1: vpr__sm")
    ultravpr_onnx.write_bytes(b"no longer a network")
    refused = run_example("provision.py", plan)
    assert refused.returncode == 1
    assert "no takeoff: vpr was not compiled" in refused.stdout


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name not in WITHOUT_ARGUMENT])
def test_an_example_without_its_argument_says_how_it_is_run(name: str) -> None:
    result = run_example(name)
    assert result.returncode == 1
    assert f"python examples/{name} " in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["async_consumer.py", "actor_consumer.py", "thermal_subscription.py"])
def test_an_example_that_is_refused_says_why_in_one_line(name: str, tmp_path: Path) -> None:
    result = run_example(name, tmp_path / "missing")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("refused: ")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-3", "1e9"])
def test_a_flight_of_no_length_is_no_usage_of_the_airborne_example(seconds: str) -> None:
    result = run_example("airborne.py", f"--for={seconds}")
    assert result.returncode == 2
    assert f"expected 1 to 3600 seconds, found {seconds}" in result.stderr


def test_no_example_goes_untested() -> None:
    sources = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    assert [
        name for name in PROGRAMS if not any(f'"examples/{name}"' in s or f'"{name}", ' in s for s in sources)
    ] == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_page_explains_every_example_and_runs_it_as_its_docstring_does(name: str) -> None:
    assert f"| [{name}]({name}) |" in PAGE
    docstring = ast.get_docstring(ast.parse((EXAMPLES / name).read_text(encoding="utf-8"))) or ""
    [command] = re.findall(rf"^    (python .*examples/{name})", docstring, re.MULTILINE)
    assert f"$ {command}" in PAGE


def test_the_page_names_no_example_that_is_not_there() -> None:
    assert sorted(set(re.findall(r"(?<=[(/])(\w+\.py)", PAGE))) == PROGRAMS


def test_every_link_of_the_page_leads_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", PAGE)
    assert [target for target in targets if not (EXAMPLES / target).exists()] == []


def test_the_models_of_the_page_are_written_by_the_command_that_it_names(tmp_path: Path) -> None:
    for package in ("onnx", "PIL", "sklearn"):
        pytest.importorskip(package, reason="comes with the extra `demo`")
    folder = tmp_path / "my-flight"
    written = run_python("-m", "actors.demo.engines", folder)
    assert written.returncode == 0, written.stderr
    named = set(re.findall(r"examples/\w+\.py (my-flight/\S+)", PAGE))
    assert named == {"my-flight/models/backbone.onnx", "my-flight/flight.toml"}
    assert [path for path in named if not (tmp_path / path).is_file()] == []
    assert (ROOT / "examples" / "throttle.jsonl").is_file()
