"""docs/jetson.md: its commands are there, its plan is provisioned over the doubles, its list of beliefs is whole."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import click
import pytest

from actors.__main__ import c7
from benchmarks.tensorrt_engines import _options
from runtimes import read_flight_plan
from tests.bindings.fetched import run_python
from tests.hardware import DOUBLES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "jetson.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text()
CHECKS = ROOT / "tests/runtimes/tensorrt/on_a_device"
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]
OF_THE_BOARD = ("sudo nvpmodel",)


def blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return found


def functions(path: Path) -> dict[str, list[str]]:
    """The tests of a file, and the beliefs that each asks about."""
    return {
        node.name: [
            ast.literal_eval(mark.args[0])
            for mark in node.decorator_list
            if isinstance(mark, ast.Call) and getattr(mark.func, "attr", "") == "belief"
        ]
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_command_is_one_that_is_tested_here() -> None:
    programs = ("make ", ".venv/bin/c7 ", ".venv/bin/python -m ", ".venv/bin/pip install ", *OF_THE_BOARD)
    assert [line for line in COMMANDS if not line.startswith(programs)] == []


def test_every_make_target_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))
    named = {word for line in COMMANDS for word in re.findall(r"^make ([a-z-]+)", line)}
    assert {"setup-jetson", "check-tensorrt"} <= named <= targets


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith(".venv/bin/c7 ")])
def test_every_command_of_c7_and_its_options_exist(line: str) -> None:
    command: click.Command = c7
    words = shlex.split(line)[1:]
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("line", [line for line in COMMANDS if "benchmarks." in line])
def test_every_command_of_the_benchmark_is_taken(line: str) -> None:
    arguments = shlex.split(line)[3:]
    assert vars(_options(arguments))["arguments"] == arguments


@pytest.mark.parametrize("line", [line for line in COMMANDS if "-m pytest" in line])
def test_every_command_of_the_tests_finds_some(line: str) -> None:
    arguments = [*shlex.split(line)[1:], "--collect-only", "-q", str(CHECKS)]
    told = run_python(*arguments, paths=[], library_path=None)
    assert told.returncode == 0, told.stdout + told.stderr
    assert re.search(r"^\S*::test_", told.stdout, re.MULTILINE)


def asked_for_tensorrt(*paths: Path) -> tuple[int, str]:
    """What `make check-tensorrt` asks before anything: its own program, over what `paths` has."""
    [program] = re.findall(r"^define tensorrt_is_here\n(.*?)^endef$", MAKEFILE, re.MULTILINE | re.DOTALL)
    told = run_python("-c", program, paths=[*paths], library_path=None)
    return told.returncode, told.stdout + told.stderr


def test_the_check_asks_all_that_is_marked_as_tensorrts() -> None:
    [asked] = re.findall(r"^ASKED_OF_A_DEVICE := (.*)$", MAKEFILE, re.MULTILINE)
    places = [ROOT / place for place in asked.split()]
    assert [place for place in places if not place.exists()] == []
    marked = {path for path in (ROOT / "tests").rglob("test_*.py") if re.search(r"mark\.tensorrt\b", path.read_text())}
    left_out = {path for path in marked if not any(place in (path, *path.parents) for place in places)}
    assert left_out == {Path(__file__)} & marked


def test_without_the_library_the_check_says_so_and_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')\n")
    code, told = asked_for_tensorrt(tmp_path)
    assert code == 1
    assert told.startswith("Nothing can be checked here. tensorrt: expected NVIDIA's Python bindings")


def test_where_library_and_device_are_the_check_names_the_version_and_goes_on() -> None:
    assert asked_for_tensorrt(DOUBLES) == (0, "TensorRT 10.3.0\n")


def test_the_plan_is_provisioned_and_preflown_over_the_doubles(ultravpr_onnx: Path) -> None:
    pytest.importorskip("polygraphy", reason="the plan builds with Polygraphy")
    [plan] = blocks("toml")
    path = ultravpr_onnx.parent / "flight.toml"
    path.write_text(plan)
    assert read_flight_plan(path).runtime.runtime == "tensorrt"
    lines = [line for line in COMMANDS if line.startswith(".venv/bin/c7 ") and line.endswith("flight.toml")]
    assert [shlex.split(line)[1] for line in lines] == ["provision", "preflight"]
    for line in lines:
        told = run_python(
            *("-m", "actors", shlex.split(line)[1], str(path)),
            paths=[DOUBLES, DOUBLES / "nvml"],
            library_path=None,
        )
        assert told.returncode == 0, f"{line}\n{told.stdout}\n{told.stderr}"


def test_every_belief_stands_on_the_page_with_the_test_that_asks_it() -> None:
    rows = re.findall(r"^\| (.+) \| `(test_\w+)` \|$", PAGE, re.MULTILINE)
    asked = [
        (belief, test)
        for path in sorted(CHECKS.glob("test_*.py"))
        for test, beliefs in functions(path).items()
        for belief in beliefs
    ]
    assert sorted(rows) == sorted(asked)


def test_every_test_and_file_that_the_page_names_is_there() -> None:
    tests = {name for path in CHECKS.glob("test_*.py") for name in functions(path)}
    assert set(re.findall(r"`(test_\w+)`", PAGE)) <= tests
    named = re.findall(r"`((?:tests|runtimes|benchmarks)/[\w/]+(?:\.py)?)`", PAGE)
    assert len(named) >= 5
    assert [name for name in named if not (ROOT / name).exists()] == []
    for name in re.findall(r"`(test_[\w*]+\.py)`", PAGE):
        assert [*CHECKS.glob(name)], name
