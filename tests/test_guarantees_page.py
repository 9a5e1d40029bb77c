"""docs/guarantees.md names what is there: its tests, its guards, the remedies, the figures."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import messages
from actors import RestartPolicy
from actors.launch import RUN_LIMIT_NS
from actors.mailbox import FRAMES_PER_CONSUMER
from actors.poison import DEATHS, HOLD_MAX_NS, HOLD_NS
from actors.restart import REMEDIES
from actors.routes import WITHIN_MS_MAX
from actors.shedding import FRAMES_TOTAL, REQUESTS_PER_FRAME
from actors.supervisor import STOP_TIMEOUT_S, SWEEP_PERIOD_NS
from messages import NS_PER_MS, NS_PER_S, C7Error, classify_fault
from messages.errors import DETAIL_MAX_CHARS
from tests.guards.every import GUARDS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
ONE_LINE = " ".join(PAGE.split())
SECTIONS = {
    int(number): text
    for number, text in re.findall(r"^### (\d+)\. .*?\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
}
POLICY = RestartPolicy()


def held_by(number: int) -> list[str]:
    return re.findall(r"^- `([\w/]+\.py::test_\w+)`$", SECTIONS[number], re.MULTILINE)


def guards(number: int) -> set[tuple[str, str, str]]:
    """Name, place and file of each."""
    text = " ".join(SECTIONS[number].split())
    return set(re.findall(r"`([a-z0-9-]+)` \(`([\w.]+)`, ([\w/]+\.py)\)", text))


def functions(path: Path) -> set[str]:
    """All that a file defines, a method as `Class.method`."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


def test_guarantees_are_numbered_one_after_the_other() -> None:
    assert list(SECTIONS) == list(range(1, len(SECTIONS) + 1))
    assert len(SECTIONS) == len(re.findall(r"^### ", PAGE, re.MULTILINE))


def test_the_page_refers_to_guarantees_that_are_there() -> None:
    for numbers in re.findall(r"\((?:but see )?(\d+(?:, \d+)*)\)", ONE_LINE):
        assert {int(number) for number in numbers.split(", ")} <= SECTIONS.keys(), numbers


@pytest.mark.parametrize("number", SECTIONS)
def test_every_guarantee_is_held_by_tests_that_exist(number: int) -> None:
    named = held_by(number)
    assert named
    assert len(set(named)) == len(named)
    assert len(named) == len(re.findall(r"^- ", SECTIONS[number], re.MULTILINE)), "a line that is no test"
    for test in named:
        path, _, name = test.partition("::")
        assert name in functions(ROOT / "tests" / path), test


@pytest.mark.parametrize("number", SECTIONS)
def test_every_guarantee_names_its_guards_and_their_tests(number: int) -> None:
    mine = [guard for guard in GUARDS if guard.guarantee == number]
    assert mine
    assert guards(number) == {(guard.name, guard.place(), guard.path) for guard in mine}
    assert {test for guard in mine for test in guard.tests} <= set(held_by(number))


def test_every_guard_is_on_the_page() -> None:
    assert {guard.guarantee for guard in GUARDS} <= SECTIONS.keys()


def test_every_method_that_the_page_names_is_there() -> None:
    packages = ("actors", "runtimes", "telemetry")
    known = {name for each in packages for path in (ROOT / each).rglob("*.py") for name in functions(path)}
    said = set(re.findall(r"`([A-Z]\w+\.\w+)`", PAGE))
    assert "Mailbox.abandon" in said
    assert said <= known


def test_the_table_of_faults_is_the_one_that_decides() -> None:
    rows = [[cell.strip() for cell in row.strip("| ").split("|")] for row in PAGE.splitlines() if row.startswith("| `")]
    found = {}
    for fault, raised_as, told, scope, in_a_row, restarts, *flags in rows:
        for name in re.findall(r"`(\w+)`", raised_as):
            error: type[C7Error] = getattr(messages, name)
            assert classify_fault(error("x")) == fault.strip("`"), name
        found[fault.strip("`")] = (
            told.strip("`"),
            scope,
            None if in_a_row == "any number" else int(in_a_row),
            None if restarts == "as the policy says" else int(restarts),
            *({"yes": True, "no": False}[flag] for flag in flags),
        )
    assert found == {fault: tuple(remedy) for fault, remedy in REMEDIES.items()}


@pytest.mark.parametrize(
    "said",
    [
        f"within {SWEEP_PERIOD_NS // NS_PER_MS} ms of its deadline",
        f"{ {2: 'Two'}[FRAMES_PER_CONSUMER] } frames per consumer and engine wait",
        f"up to {REQUESTS_PER_FRAME} requests each, {FRAMES_TOTAL} frames of all consumers",
        f"no deadline is more than { {600_000.0: 'ten'}[WITHIN_MS_MAX] } minutes away",
        f"({DETAIL_MAX_CHARS:,} characters)",
        f"At most { {5: 'five'}[POLICY.max_restarts] } restarts within a minute",
        f"the first after {POLICY.first_delay_ns // NS_PER_MS} ms",
        f"{POLICY.max_delay_ns // NS_PER_S} s at most",
        f"by up to { {0.25: 'a quarter'}[POLICY.jitter_share] }",
        f"up to {POLICY.max_probation_after_ns // (60 * NS_PER_S)} minutes",
        f"has died { {2: 'twice'}[DEATHS] } on one consumer's inputs",
        f"refused for {HOLD_NS // NS_PER_S} s; each further death doubles that, up to {HOLD_MAX_NS // NS_PER_S} s",
        f"within `run_limit_ms` ({RUN_LIMIT_NS // NS_PER_S} s)",
        f"have { {1.0: 'a second'}[STOP_TIMEOUT_S] } to end",
    ],
)
def test_the_figures_of_the_page_are_those_of_the_code(said: str) -> None:
    assert said in ONE_LINE
    assert (POLICY.window_ns, POLICY.probation_after_ns) == (60 * NS_PER_S, 60 * NS_PER_S)
