"""The checks for a device are sound before they meet one: they pass over the doubles, and ask all that is believed.

`on_a_device` holds them. A child has the doubles on its path; in this process they are skipped without a device.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bindings.fetched import run_python
from tests.hardware import DOUBLES
from tests.runtimes.tensorrt.building.builds import TRTEXEC_FOLDER

ROOT = Path(__file__).parents[3]
CHECKS = Path(__file__).with_name("on_a_device")
CONTRACT = Path(__file__).parents[1] / "test_runtime_contract.py"
DECISIONS = ROOT / "docs" / "decisions"
FROM_PAGES = re.compile(r"\*\*What only a Jetson can prove:\*\* (.*?)\.\n", re.DOTALL)
NEEDS_MORE_THAN_A_DOUBLE = {
    "test_after_the_primary_context_was_destroyed_every_call_says_so": "CUDA's driver API",
    "test_tensors_of_torch_go_in_and_come_out_on_the_device": "torch with CUDA",
    "[polygraphy]": "polygraphy, which Python 3.10 has not here",
}
NOT_ASKED = {
    "a run after its context was destroyed, or with a context or memory that a queued run": "the double is stricter"
    " than a device, on which such a run may go well",
    "which of its permissions a build uses, and which layers become one": "the double has to choose, and a device"
    " chooses otherwise every time",
    "a timing cache of another version is refused even where a mismatch is to be ignored": "it takes the timings of a"
    " second TensorRT",
}


def run_checks(
    *arguments: str, over: str = "the double", told: dict[str, object] | None = None
) -> subprocess.CompletedProcess[str]:
    return run_python(
        *("-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-m", "tensorrt", *arguments),
        paths=[DOUBLES, DOUBLES / "nvml"],
        library_path=None,
        environment={
            "TENSORRT_CHECKS_OVER": over,
            "TENSORRT_DOUBLE": json.dumps(told or {"tactic_bytes": 8 << 20}),
            "PATH": os.pathsep.join([str(TRTEXEC_FOLDER), str(Path(sys.executable).parent), os.environ["PATH"]]),
        },
        timeout_s=280,
    )


def test_over_the_doubles_all_checks_pass_but_those_that_need_what_no_double_has() -> None:
    done = run_checks(str(CHECKS), str(CONTRACT), "-vv")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    results = re.findall(r"^(\S+::\S+.*?) (PASSED|SKIPPED)", done.stdout, re.MULTILINE)
    skipped = [name for name, result in results if result == "SKIPPED"]
    assert len(results) - len(skipped) >= 120
    assert [name for name in skipped if not any(part in name for part in NEEDS_MORE_THAN_A_DOUBLE)] == []
    assert "what was heard of the double" in done.stdout


def test_a_red_check_says_which_belief_is_wrong() -> None:
    checks = str(CHECKS / "test_beliefs_about_runs.py")
    done = run_checks(checks, "-k", "not_aligned", told={"fail": [["set_tensor_address", "", "INTERNAL_ERROR", 0, 99]]})
    assert done.returncode == 1
    told = done.stdout.partition("this is no longer to be believed")[2]
    assert "set_tensor_address refuses an address that is not aligned" in told


def test_over_a_double_that_nobody_asked_for_the_checks_fail() -> None:
    done = run_checks(str(CHECKS / "test_beliefs_without_cuda.py"), over="")
    assert done.returncode == 1
    assert "expected NVIDIA's TensorRT, found its double" in done.stdout


def test_without_a_device_every_check_is_skipped_with_the_reason() -> None:
    here = [sys.executable, "-m", "pytest", "-q", "-rs", "-m", "tensorrt", str(CHECKS / "test_beliefs_without_cuda.py")]
    done = subprocess.run(here, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)  # noqa: S603 - ours
    if "skipped" not in done.stdout:
        pytest.skip("there is a device here, and its checks run by themselves")
    assert done.returncode == 0
    assert "RuntimeNotAvailableError" not in done.stdout
    assert re.search(r"SKIPPED .*tensorrt: expected|SKIPPED .*cuda:0: expected", done.stdout)


def believed() -> list[str]:
    """What the doubles call UNPROVEN, and what the decisions say that only a Jetson can prove."""
    lines: list[str] = []
    for path in sorted(DOUBLES.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "UNPROVEN":
                lines += ast.literal_eval(node.value)
    for page in sorted(DECISIONS.glob("*.md")):
        for listed in FROM_PAGES.findall(page.read_text()):
            lines += [" ".join(each.split()) for each in listed.split(";")]
    return lines


def asked() -> list[str]:
    """The argument of each `belief` mark."""
    calls = (node for path in sorted(CHECKS.glob("test_*.py")) for node in ast.walk(ast.parse(path.read_text())))
    return [
        ast.literal_eval(node.args[0])
        for node in calls
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "belief"
    ]


def test_every_belief_is_asked_by_a_check_or_says_why_it_is_not() -> None:
    lines = believed()
    assert len(lines) >= 25
    questions = {*asked(), *NOT_ASKED}
    assert [line for line in lines if not any(question in line for question in questions)] == []


def test_every_check_of_a_belief_asks_one_that_is_still_held() -> None:
    lines = believed()
    assert [question for question in (*asked(), *NOT_ASKED) if not any(question in line for line in lines)] == []
