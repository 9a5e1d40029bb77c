"""docs/testing.md: its programs are a test module, which passes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import messages
import runtimes
from actors.restart import REMEDIES
from messages import classify_fault
from runtimes import fake_steps
from runtimes.fake_steps import Step

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
MODULE = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of the page's programs, as a user's own tests are run."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "test_consumers.py").write_text(MODULE, encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-W", "error", "-p", "no:cacheprovider", "test_consumers.py"],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.mark.parametrize("name", re.findall(r"^def (test_\w+)", MODULE, re.MULTILINE))
def test_a_program_of_the_page_passes(name: str, told: str) -> None:
    assert re.search(rf"::{name}(\[.*\])? PASSED", told)


def test_every_block_belongs_to_a_test() -> None:
    assert all("\ndef test_" in block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))


def test_the_page_names_every_step() -> None:
    steps = [
        name
        for name in runtimes.__all__
        if getattr(getattr(fake_steps, name, None), "__annotations__", {}).get("return") == Step.__name__
    ]
    assert len(steps) == 10
    assert [name for name in steps if not re.search(rf"^\| .*`{name}\(.*` \|", PAGE, re.MULTILINE)] == []


@pytest.mark.parametrize(("error", "reason"), re.findall(r"^\| `(\w+Error)` \| `(\w+)` \|", PAGE, re.MULTILINE))
def test_the_page_says_what_a_fault_costs_its_request(error: str, reason: str) -> None:
    assert REMEDIES[classify_fault(getattr(messages, error)("x"))].reason == reason


def test_the_page_says_after_how_many_faults_in_a_row_an_engine_restarts() -> None:
    in_words = {1: "the second in a row", 3: "the fourth in a row"}
    for fault in ("transient_fault", "out_of_memory"):
        tolerated = REMEDIES[fault].tolerated_in_a_row
        assert in_words[tolerated or 0] in PAGE
