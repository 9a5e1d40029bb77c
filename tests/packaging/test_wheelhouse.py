"""`make wheelhouse` resolves on a workstation for a Jetson: what is needed must not depend on the processor."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ONLY_ON_A_DEVICE = {"cuda-bindings", "polygraphy"}
"""They need cuda-pathfinder and nothing else; `make wheelhouse` resolves what it gathered once more."""


def needed(machine: str, *extras: str) -> dict[str, str]:
    """Every distribution that c7-inference with these extras needs on this processor, and what asks for it."""
    environment = {**default_environment(), "platform_machine": machine}
    found: dict[str, str] = {}
    waiting = [("c7-inference", extras)]
    while waiting:
        name, wanted = waiting.pop()
        for requirement in requirements(name):
            marker = requirement.marker
            asked = [{**environment, "extra": extra} for extra in (*wanted, "")]
            if marker is not None and not any(marker.evaluate(each) for each in asked):  # type: ignore[arg-type]
                continue
            key = canonicalize_name(requirement.name)
            if key not in found:
                found[key] = name
                waiting.append((key, tuple(requirement.extras)))
    return found


def requirements(name: str) -> Iterator[Requirement]:
    """As declared here, or as an installed package says. What only a device needs is not installed everywhere."""
    if name == "c7-inference":
        yield from map(Requirement, PROJECT["dependencies"])
        for extra, texts in PROJECT["optional-dependencies"].items():
            for requirement in map(Requirement, texts):
                of_extra = f"extra == '{extra}'"
                both = f"({requirement.marker}) and {of_extra}" if requirement.marker else of_extra
                requirement.marker = Marker(both)
                yield requirement
    elif canonicalize_name(name) not in ONLY_ON_A_DEVICE:
        yield from map(Requirement, metadata.distribution(name).requires or [])


def extras() -> tuple[str, ...]:
    [line] = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("JETSON_EXTRAS := ")]
    return tuple(line.partition(" := ")[2].split(","))


def test_a_jetson_needs_the_same_packages_as_the_machine_that_gathers_them() -> None:
    here, there = needed("x86_64", *extras()), needed("aarch64", *extras())
    assert here == there
    assert {"numpy", "pykka", "msgspec", "onnx", "pytest", "cuda-bindings", "polygraphy"} <= there.keys()


def test_what_jetpack_brings_is_not_asked_for() -> None:
    assert {"tensorrt", "torch", "onnxruntime", "onnxruntime-gpu"} & needed("aarch64", *extras()).keys() == set()


def test_every_package_that_is_gathered_is_pinned() -> None:
    lowest = "click==" + metadata.version("click") in (ROOT / "constraints-lowest.txt").read_text()
    lines = (ROOT / ("constraints-lowest.txt" if lowest else "constraints.txt")).read_text().splitlines()
    pinned = {canonicalize_name(Requirement(line).name) for line in lines if line and not line.startswith("#")}
    assert needed("aarch64", *extras()).keys() - {"c7-inference"} - pinned == set()
