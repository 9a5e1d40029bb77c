"""The README tells the truth: its program runs, its commands exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from actors import supervise
from messages import Tensor
from runtimes import EngineCacheEntry, InferenceRuntime
from runtimes.inference_factory import _RUNTIME_TO_BUILD_FLAG

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    return [text for name, text in fenced if name == language]


def run_program(frame: Tensor) -> dict[str, object]:
    program, _ = blocks("python")
    names: dict[str, object] = {"frame": frame}
    exec(compile(program, "README.md", "exec"), names)  # noqa: S102 - the README's own program
    return names


def test_the_program_on_the_first_screen_runs(
    ultravpr_onnx: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ultravpr_onnx.parent)
    run_program(np.ones((1, 3, 32, 32), np.float32))
    assert re.fullmatch(r"\(1, 8\) \d+\.\d+ ms\n", capsys.readouterr().out)


def test_the_program_says_why_there_is_no_result(
    ultravpr_onnx: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ultravpr_onnx.parent)
    run_program(np.ones((1, 3, 32, 31), np.float32))
    told = capsys.readouterr().out
    assert told.startswith("no result: invalid_input ")
    for word in ("image", "float32[1, 3, 32, 32]", "float32[1, 3, 32, 31]"):
        assert word in told


def test_the_lines_for_a_component_run_on_what_the_program_compiled(
    ultravpr_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ultravpr_onnx.parent)
    names = run_program(np.ones((1, 3, 32, 32), np.float32))
    _, lines = blocks("python")
    runtime, entry = cast("InferenceRuntime", names["runtime"]), cast("EngineCacheEntry", names["entry"])
    with supervise(runtime, {"ultravpr": entry}) as c7:
        names["c7_inference"] = c7.as_runtime()
        exec(compile(lines, "README.md", "exec"), names)  # noqa: S102 - the README's own lines
    descriptor = names["descriptor"]
    assert isinstance(descriptor, np.ndarray)
    assert descriptor.shape == (1, 8)


def test_the_program_is_on_the_first_screen_and_short() -> None:
    program, _ = blocks("python")
    assert len([line for line in program.splitlines() if line]) <= 15
    assert README.index(program) + len(program) < 3_000


def test_the_command_table_lists_what_exists() -> None:
    from actors.__main__ import c7

    [table] = [block for block in blocks("") if block.startswith("c7 ")]
    assert [line.split()[1] for line in table.splitlines()] == list(c7.commands)
    for line in table.splitlines():
        known = {name for parameter in c7.commands[line.split()[1]].params for name in parameter.opts}
        assert set(re.findall(r"--\w+", line)) <= known, line


def test_every_make_target_that_is_named_exists() -> None:
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", README))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert {"demo", "test", "check", "bench", "chaos", "setup-jetson"} <= named <= targets


def test_the_runtimes_that_are_named_are_those_that_can_be_configured() -> None:
    assert [runtime for runtime in _RUNTIME_TO_BUILD_FLAG if f"`{runtime}`" not in README] == []


def test_every_link_into_the_checkout_leads_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} -> {target}"
