"""What is shipped: four packages, one command, nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("actors", "messages", "runtimes", "telemetry")
NO_CACHES = shutil.ignore_patterns("__pycache__", "*.pyc")


def run(*command: object, cwd: Path, **environment: str) -> str:
    result = subprocess.run(  # noqa: S603 - our own interpreter, our own arguments
        [str(word) for word in command], cwd=cwd, env=environment or None, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves `build/` behind, and the next one would ship what it finds there."""
    pytest.importorskip("build", reason="build comes with the extra `test`")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in (*PACKAGES, "tests", "examples", "benchmarks"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=NO_CACHES)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=source)
    [path] = out.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel is installed, away from the checkout."""
    site = tmp_path_factory.mktemp("site")
    install = ("install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", "--target", site, wheel)
    run(sys.executable, "-m", "pip", *install, cwd=site)
    return site


def test_the_wheel_holds_every_file_of_the_four_packages_and_no_other(wheel: Path) -> None:
    shipped = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    written = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == written
    assert {f"{package}/py.typed" for package in PACKAGES} <= shipped


def test_the_wheel_carries_its_licence_and_says_what_it_needs(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    [licence] = [name for name in archive.namelist() if name.endswith("/LICENSE")]
    assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    [metadata] = [archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA")]
    for line in ("Name: c7-inference", "Requires-Python: >=3.10", "License-Expression: Apache-2.0"):
        assert f"\n{line}\n" in metadata
    for extra in ("tensorrt", "torch", "onnx", "demo", "report", "jetson", "dev"):
        assert f"\nProvides-Extra: {extra}\n" in metadata
    unconditional = [
        line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line
    ]
    for heavy in ("torch", "onnxruntime", "tensorrt", "jetson"):
        assert not any(heavy in line for line in unconditional)


@pytest.mark.parametrize("package", PACKAGES)
def test_an_installed_package_is_imported_from_where_it_was_installed(package: str, site: Path, tmp_path: Path) -> None:
    program = f"import {package}; print({package}.__file__)"
    assert run(sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(site)) == f"{site}/{package}/__init__.py\n"


def test_the_installed_command_answers(site: Path, tmp_path: Path) -> None:
    for command in ([site / "bin" / "c7"], [sys.executable, "-m", "actors"]):
        assert "provision" in run(*command, "--help", cwd=tmp_path, PYTHONPATH=str(site))
        assert run(*command, "--version", cwd=tmp_path, PYTHONPATH=str(site)) == "c7, version 0.1.0\n"


@pytest.fixture
def installed() -> None:
    try:
        distribution("c7-inference")
    except PackageNotFoundError:
        pytest.skip("c7-inference is not installed in this environment")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_distribution_claims_a_package_of_ours(package: str) -> None:
    """pip installs two distributions with one package over each other without a word (docs/decisions)."""
    assert set(packages_distributions()[package]) == {"c7-inference"}


@pytest.mark.usefixtures("installed")
def test_the_command_is_c7() -> None:
    scripts = {entry.name: entry.value for entry in distribution("c7-inference").entry_points}
    assert scripts == {"c7": "actors.__main__:main"}
