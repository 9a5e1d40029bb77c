"""Every guard that docs/guarantees.md names is needed: without it a named test fails."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guards.every import GUARDS
from tests.guards.guard import ROOT, Guard

GUARDS_MIN = 30
TEST_TIMEOUT_S = 60
COPIED = ("actors", "messages", "runtimes", "telemetry", "tests")
PASSED, FAILED, NOTHING_RAN = 0, 1, 5
"""pytest's exit codes."""

each_guard = pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)


def test_there_are_guards_enough_to_mean_something_and_each_has_a_name_of_its_own() -> None:
    assert len(GUARDS) >= GUARDS_MIN
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)


@each_guard
def test_a_guard_is_there_once_and_its_file_compiles_without_it(guard: Guard) -> None:
    mutated = guard.mutated()
    compile(mutated, guard.path, "exec")
    assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(guard.source())), "it is more than a comment"
    assert guard.place()
    assert guard.tests


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages and their tests, where anything may be broken."""
    root = tmp_path_factory.mktemp("copied")
    for name in COPIED:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


@pytest.fixture
def without(copied: Path, guard: Guard) -> Iterator[Path]:
    """The copy without this guard."""
    broken = copied / guard.path
    whole = broken.read_text(encoding="utf-8")
    assert whole.count(guard.text) == 1
    broken.write_text(whole.replace(guard.text, guard.gone), encoding="utf-8")
    yield copied
    broken.write_text(whole, encoding="utf-8")


def run(root: Path, tests: list[str], within_s: float) -> subprocess.CompletedProcess[str]:
    """pytest's verdict in the copy. It leaves no bytecode: a mutation may be as long as what it replaces."""
    options = ["-x", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", "--timeout", str(TEST_TIMEOUT_S)]
    here = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(  # noqa: S603  # our own tests
        [sys.executable, "-m", "pytest", *options, *(f"tests/{test}" for test in tests)],
        cwd=root,
        env={**here, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )


@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_with_every_guard_in_place_the_named_tests_pass_in_the_copy(copied: Path) -> None:
    named = sorted({test for guard in GUARDS for test in guard.tests})
    began_s = time.monotonic()
    ran = run(copied, named, 1100)
    print(f"\n{len(GUARDS)} guards, {len(named)} tests: {time.monotonic() - began_s:.0f} s with all guards in place")
    assert ran.returncode == PASSED, ran.stdout[-4000:] + ran.stderr[-2000:]


@pytest.mark.chaos
@pytest.mark.timeout(600)
@each_guard
def test_without_a_guard_each_test_that_is_named_for_it_fails(guard: Guard, without: Path) -> None:
    for test in guard.tests:
        began_s = time.monotonic()
        ran = run(without, [test], 2 * TEST_TIMEOUT_S + 60)
        print(f"\n{guard.guarantee:2}. {guard.name}: {test}: {time.monotonic() - began_s:.1f} s", end="")
        if ran.returncode == NOTHING_RAN or ran.stdout.rstrip().endswith("skipped"):
            pytest.skip(f"{test} needs what is not installed here")
        assert ran.returncode == FAILED, (
            f"without the guard {guard.name} of {guard.path} expected {test} to fail, found exit code"
            f" {ran.returncode}: the guard is superfluous, or its test does not see it\n{ran.stdout[-2000:]}"
        )
