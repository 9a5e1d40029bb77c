"""What is declared, what is pinned, and what is installed agree."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
DEMO = ("demo", "perception", "testing")
TOOLS = ("tensorrt-tools",)
SET_UP = ("dev", "test", "onnx", *TOOLS, *DEMO)
"""Extras whose pins are for every Python; torch is pinned for one only."""


def declared(*extras: str) -> list[Requirement]:
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in PROJECT["optional-dependencies"][extra])]
    return [requirement for requirement in map(Requirement, texts) if requirement.name != PROJECT["name"]]


def pins(file: str, python: str) -> dict[str, Version]:
    """Version by name for one Python on Linux; a name that is pinned twice fails."""
    found: dict[str, Version] = {}
    for pin in pinned(file):
        if pin.marker is None or pin.marker.evaluate({"python_version": python}):
            name = canonicalize_name(pin.name)
            assert name not in found, f"{file} pins {name} twice for Python {python}"
            found[name] = Version(str(pin.specifier).removeprefix("=="))
    return found


def pinned(file: str) -> Iterator[Requirement]:
    for line in (ROOT / file).read_text().splitlines():
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[\w.-]+==[\w.]+(; python_version (<|>=|==) \"3\.\d+\")?", line), line
            yield Requirement(line)


def floor(requirement: Requirement) -> Version:
    [lowest] = [Version(clause.version) for clause in requirement.specifier if clause.operator == ">="]
    return lowest


@pytest.mark.parametrize("python", PYTHONS)
def test_every_declared_library_is_pinned_within_its_bounds(python: str) -> None:
    versions = pins("constraints.txt", python)
    for requirement in declared(*SET_UP):
        if requirement.marker is None or requirement.marker.evaluate(
            {"python_version": python, "platform_machine": "x86_64"}
        ):
            assert versions[canonicalize_name(requirement.name)] in requirement.specifier


def test_torch_is_pinned_for_one_python() -> None:
    assert [python for python in PYTHONS if "torch" in pins("constraints.txt", python)] == ["3.11"]


def test_the_lowest_pins_are_the_lowest_that_are_declared() -> None:
    versions = pins("constraints-lowest.txt", "3.10")
    for requirement in declared(*TOOLS, *DEMO):
        assert versions[canonicalize_name(requirement.name)] == floor(requirement), requirement.name
    [onnxruntime] = [requirement for requirement in declared("onnx") if requirement.name == "onnxruntime-gpu"]
    assert versions["onnxruntime"] == floor(onnxruntime)


def test_what_only_carries_the_tests_has_the_same_version_on_both_sides() -> None:
    usual, lowest = pins("constraints.txt", "3.10"), pins("constraints-lowest.txt", "3.10")
    chosen = {canonicalize_name(requirement.name) for requirement in declared(*TOOLS, *DEMO)} | {"onnxruntime"}
    assert {name: version for name, version in lowest.items() if name not in chosen and usual[name] != version} == {}


def test_the_jetson_extra_is_in_no_other_extra_and_no_make_target() -> None:
    assert "jetson-stats" not in {requirement.name for requirement in declared(*SET_UP, "torch", "tensorrt", "report")}
    installs = [line for line in (ROOT / "Makefile").read_text().splitlines() if "$(PIP)" in line]
    assert installs
    assert not any("jetson" in line for line in installs)
