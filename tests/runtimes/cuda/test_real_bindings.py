"""The double against NVIDIA's own `cuda.bindings.runtime`, as far as that goes without a device.

The real package is asked in a child process, because only one of the two can be `cuda` in this one.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runtimes.cuda_errors import CUDA_ERRORS
from tests.bindings.fetched import package, pinned

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device

ROOT = Path(__file__).parents[3]
PORT = sorted((ROOT / "runtimes/cuda").glob("*.py"))
DOUBLE = ROOT / "tests/doubles"

ASKED = {
    "cudaRuntimeGetVersion": "",
    "cudaDriverGetVersion": "",
    "cudaGetErrorName": "rt.cudaError_t.cudaErrorIllegalAddress",
    "cudaGetErrorString": "rt.cudaError_t.cudaErrorIllegalAddress",
    "cudaGetDeviceCount": "",
    "cudaSetDevice": "0",
    "cudaMemGetInfo": "",
    "cudaMalloc": "16",
    "cudaFree": "0",
    "cudaHostAlloc": "16, 0",
    "cudaFreeHost": "0",
    "cudaMemsetAsync": "0, 0, 16, 0",
    "cudaMemcpyAsync": "0, 0, 16, rt.cudaMemcpyKind.cudaMemcpyDeviceToDevice, 0",
    "cudaStreamCreateWithFlags": "rt.cudaStreamNonBlocking",
    "cudaStreamDestroy": "0",
    "cudaStreamSynchronize": "0",
    "cudaStreamWaitEvent": "0, 0, 0",
    "cudaEventCreateWithFlags": "rt.cudaEventDisableTiming",
    "cudaEventDestroy": "0",
    "cudaEventRecord": "0, 0",
    "cudaEventSynchronize": "0",
    "cudaStreamBeginCapture": "0, rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal",
    "cudaStreamEndCapture": "0",
    "cudaGraphGetNodes": "0",
    "cudaGraphInstantiateWithFlags": "0, 0",
    "cudaGraphUpload": "0, 0",
    "cudaGraphLaunch": "0, 0",
    "cudaGraphDestroy": "0",
    "cudaGraphExecDestroy": "0",
    "cudaGetLastError": "",
}
"""Every function of the double, with arguments that touch nothing, as the port passes them."""

TELL = """
import inspect, json, sys
from cuda.bindings import runtime as rt
asked, enums, constants = json.loads(sys.argv[1])
code = lambda value: [int(value[0]), *(None if each is None else repr(each) for each in value[1:])]
print(json.dumps({
    "version": rt.cudaRuntimeGetVersion()[1],
    "parameters": {name: list(inspect.signature(getattr(rt, name)).parameters) for name in asked},
    "enums": {name: {member.name: int(member) for member in getattr(rt, name)} for name in enums},
    "constants": {name: int(getattr(rt, name)) for name in constants},
    "texts": {int(error): rt.cudaGetErrorString(error)[1].decode() for error in rt.cudaError_t},
    "answers": {name: code(eval(f"rt.{name}({arguments})")) for name, arguments in asked.items()},
}))
"""
ENUMS = ("cudaError_t", "cudaMemcpyKind", "cudaStreamCaptureMode")
CONSTANTS = ("cudaStreamNonBlocking", "cudaEventDisableTiming", "cudaHostAllocDefault", "cudaEventWaitDefault")
CUDA_NAME = re.compile(r"cuda[A-Z]\w+")


def importing_from(path: str | None) -> str:
    return f"import sys; sys.path.insert(0, {path!r})" if path else ""


def tell(path: str | None) -> dict[str, Any]:
    program = "\n".join([importing_from(path), TELL])
    told = subprocess.run(  # noqa: S603 - our own interpreter, our own program
        [sys.executable, "-c", program, json.dumps([ASKED, ENUMS, CONSTANTS])],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env={**os.environ, "CUDA_DOUBLE": json.dumps({"device_count": 0, "driver_version": 0})},
    )
    assert told.returncode == 0, told.stderr
    found: dict[str, Any] = json.loads(told.stdout)
    return found


def real_path() -> str | None:
    """Where to import the real package from: None where it is installed, else where `make trt-bindings` put it."""
    try:
        found = importlib.util.find_spec("cuda.bindings.runtime")
    except ModuleNotFoundError:
        found = None
    [version] = pinned("cuda-bindings")
    return None if found is not None else str(package("cuda-bindings", version))


@cache
def real() -> dict[str, Any]:
    return tell(real_path())


@cache
def double() -> dict[str, Any]:
    return tell(str(DOUBLE))


def used() -> set[str]:
    """Each name of CUDA that the port takes from the library: attributes, and functions by their name in a string."""
    names = set()
    for path in PORT:
        for node in ast.walk(ast.parse(path.read_text())):
            text = node.attr if isinstance(node, ast.Attribute) else getattr(node, "value", None)
            if isinstance(text, str) and CUDA_NAME.fullmatch(text):
                names.add(text)
    return names


def test_the_port_uses_nothing_that_the_double_has_not() -> None:
    members = {member for enum in double()["enums"].values() for member in enum}
    assert used() - set(ASKED) - set(ENUMS) - set(CONSTANTS) - members == set()
    assert len(used()) > 25


def test_the_double_has_no_function_that_the_port_does_not_use(device: Device) -> None:
    runtime = importlib.import_module("cuda.bindings.runtime")
    functions = {name for name, found in vars(runtime).items() if inspect.isfunction(found) and name[:4] == "cuda"}
    assert functions == set(ASKED)
    assert functions - used() == set()


def test_every_function_has_the_parameters_of_the_real_one() -> None:
    assert double()["parameters"] == real()["parameters"]


@pytest.mark.parametrize("enum", ENUMS)
def test_every_name_of_an_enum_has_the_number_of_the_real_one(enum: str) -> None:
    theirs = real()["enums"][enum]
    assert {name: theirs.get(name) for name in double()["enums"][enum]} == double()["enums"][enum]


def test_every_constant_is_that_of_the_real_package() -> None:
    assert double()["constants"] == real()["constants"]


def test_every_error_has_the_words_of_the_real_one() -> None:
    theirs = real()["texts"]
    assert {code: theirs.get(code) for code in double()["texts"]} == double()["texts"]


def test_the_table_of_errors_has_the_names_and_words_of_the_real_package() -> None:
    names, texts = real()["enums"]["cudaError_t"], real()["texts"]
    listed = {error.name: (error.code, error.text) for error in CUDA_ERRORS if error.name in names}
    assert {name: (names[name], texts[str(names[name])]) for name in listed} == listed
    assert len(listed) >= len(CUDA_ERRORS) - 3


def test_the_sticky_errors_of_the_double_are_those_of_the_table(device: Device) -> None:
    codes = importlib.import_module("cuda.error_codes")
    listed = {error.code for error in CUDA_ERRORS if error.outlook in {"sticky", "context_lost"}}
    known = {int(code) for code in codes.cudaError_t}
    assert listed & known == codes.STICKY


def test_without_a_driver_every_call_answers_as_the_real_one_does() -> None:
    theirs = dict(real()["answers"])
    if theirs["cudaDriverGetVersion"][1] != "0":
        pytest.skip("there is a driver here: the answers are those of a device")
    ours = dict(double()["answers"])
    del theirs["cudaRuntimeGetVersion"], ours["cudaRuntimeGetVersion"]
    assert ours == theirs


def test_without_a_driver_the_real_package_is_refused_in_words() -> None:
    if real()["answers"]["cudaDriverGetVersion"][1] != "0":
        pytest.skip("there is a driver here")
    program = "\n".join(
        [importing_from(real_path()), "from runtimes.cuda.cuda_bindings import open_cuda; open_cuda(0)"]
    )
    told = subprocess.run(  # noqa: S603 - our own interpreter, our own program
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, cwd=ROOT
    )
    assert "RuntimeNotAvailableError: cuda:0: expected a CUDA device 0, found 0 with no driver" in told.stderr
    assert "cudaErrorInsufficientDriver (35)" in told.stderr
