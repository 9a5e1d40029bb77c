"""docs/operations.md tells the truth: its commands run in the order of the page, its refusals are said."""

from __future__ import annotations

import ast
import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from actors.__main__ import c7, exit_code, main
from actors.flight.process import RestartNeededError
from messages import ConfigError, FlightProcessError, JournalError, TakeoffRefusedError

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
COMMANDS = [
    line for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()
]
NOT_RUN_HERE = {"sudo": "the board's own tool", "make": "has tests of its own", "PIP_NO_INDEX=1": "for a Jetson"}
TESTED_ELSEWHERE = ("c7 doctor", "c7 fly", "c7 declare")
"""The first imports every library, the others run until a signal."""
PLAN = """
[flight]
name = "test"
public_key = "ground.pem"
[runtime]
runtime = "onnx_trt_ep"
provider = "cpu"
[models.ultravpr]
source = "ultravpr.onnx"
precision = "fp32"
deadline_ms = 60000
"""


def found_command(line: str) -> tuple[click.Command, list[str]]:
    """The command that a line names, and what is left of the line."""
    command: click.Command = c7
    words = shlex.split(line)[1:]
    while isinstance(command, click.Group):
        assert words[0] in command.commands, f"{line}: there is no {words[0]}"
        command = command.commands[words.pop(0)]
    return command, words


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("c7 ")])
def test_every_command_of_the_page_and_its_options_exist(line: str) -> None:
    command, words = found_command(line)
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_every_command_in_the_text_exists() -> None:
    named = set(re.findall(r"`(c7 [a-z]+(?: [a-z]+)?)", PAGE))
    assert {"c7 doctor", "c7 engines prune", "c7 provision"} <= named | set(COMMANDS)
    for line in named:
        found_command(line)


def test_the_unit_of_the_page_starts_again_after_each_end_but_a_refusal_and_a_stop() -> None:
    [block] = re.findall(r"^```ini\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    unit = configparser.ConfigParser()
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(block)
    service = unit["Service"]
    command, words = found_command(service["ExecStart"])
    assert (command.name, len(words)) == ("fly", 1)
    prevented = {int(code) for code in service["RestartPreventExitStatus"].split()}
    refusals = (TakeoffRefusedError("x"), FlightProcessError("x"), JournalError("x"), ConfigError("x"))
    assert {exit_code(refusal) for refusal in refusals} == prevented
    assert not prevented & {exit_code(RestartNeededError("x")), exit_code(ZeroDivisionError("x")), 0}
    assert service["Restart"] == "on-failure"
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"


def test_every_make_target_of_the_page_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {word for line in COMMANDS for word in re.findall(r"make ([a-z-]+)", line)}
    assert {"engines", "wheelhouse", "setup-jetson"} <= named <= targets
    variables = {word for line in COMMANDS for word in re.findall(r"make engines.* ([A-Z]+)=", line)}
    assert variables <= set(re.findall(r"^([A-Z]+) :=", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def test_the_commands_of_the_page_run_in_its_order(
    ultravpr_onnx: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    onnx = pytest.importorskip("onnx")
    if shutil.which("openssl") is None:
        pytest.skip("the page makes its keys with openssl, which is not on this machine")
    folder = ultravpr_onnx.parent
    monkeypatch.chdir(folder)
    (folder / "flight.toml").write_text(PLAN)
    first = ultravpr_onnx.read_bytes()
    for line in COMMANDS:
        program = line.split()[0]
        if program in NOT_RUN_HERE or line.startswith(TESTED_ELSEWHERE):
            continue
        if program == "openssl":
            subprocess.run(shlex.split(line), check=True, capture_output=True, timeout=60)  # noqa: S603 - the page's own
            continue
        if line.startswith("c7 engines rollback"):  # a second generation to go back from
            model = onnx.load_from_string(first)
            model.doc_string = "retrained"
            onnx.save(model, ultravpr_onnx)
            assert main(["provision", "flight.toml"]) == 0
            ultravpr_onnx.write_bytes(first)
        assert program == "c7", line
        assert main(shlex.split(line)[1:]) == 0, f"{line}\n{capfd.readouterr().err}"
    assert main(["preflight", "flight.toml"]) == 0, "the generation that was gone back to flies, signed anew"


def texts_of_the_program() -> list[str]:
    """Every text in the four packages; what is filled in at run time is a NUL."""
    texts = []
    for package in ("messages", "runtimes", "telemetry", "actors"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    values = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                    texts.append("".join(map(str, values)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return texts


def test_every_refusal_that_the_page_explains_is_one_that_is_said() -> None:
    tables = re.findall(r"^\| It says .*?\n\|---.*?\n(.*?)\n\n", PAGE, re.MULTILINE | re.DOTALL)
    rows = [row for table in tables for row in table.splitlines()]
    quoted = [text for row in rows for text in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert len(quoted) >= 20
    said = texts_of_the_program()
    assert [text for text in quoted if not any(text in each for each in said)] == []
