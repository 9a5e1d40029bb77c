"""The double of TensorRT against NVIDIA's bindings of 10.3: what it has is theirs, and it may have less."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import pytest

from tests.bindings.describe import SPECIAL
from tests.bindings.fetched import DOUBLES, OLDEST, run_python, tensorrt
from tests.bindings.uses import UNBOUND_CALLBACKS, Api

BEYOND: dict[str, set[str]] = {
    "": {"CORE", "Severity", "BoundEnum", "Enum"},
    "IHostMemory": {name for name in dir(bytearray) if name in SPECIAL or not name.startswith("_")} | {"__bool__"},
    "INetworkDefinition": {"__iter__"},
}
"""What the double has of its own, by class and "" for the module. `CORE` is what a test says to it, `BoundEnum` what
it is made of, and `Severity` stands in `ILogger` alone with NVIDIA. Before Python 3.12 only a class that inherits from
a buffer is one, and NVIDIA's, which has no length, is never false. Of its network Python makes an iterator itself.
"""


@cache
def described(*, real: bool) -> Api:
    told = run_python("tests/bindings/describe.py", paths=[tensorrt(OLDEST) if real else DOUBLES])
    assert told.returncode == 0, told.stderr
    found: Api = json.loads(told.stdout)
    return found


def wrong(double: Api, real: Api) -> list[str]:
    """What in the double is not as in the real one, in words."""
    found = [f"version {double['version']}, expected {real['version']}"] * (double["version"] != real["version"])
    for kind in ("classes", "functions", "values"):
        for name in double[kind].keys() - real[kind].keys() - BEYOND[""]:
            found.append(f"{name}: no such thing among the {kind}")
    for name in double["values"].keys() & real["values"].keys():
        if double["values"][name] != real["values"][name]:
            found.append(f"{name}: {double['values'][name]}, expected {real['values'][name]}")
    for name in double["functions"].keys() & real["functions"].keys():
        found += _wrong_arguments(name, double["functions"][name], real["functions"][name])
    for name in double["classes"].keys() & real["classes"].keys():
        known = double["classes"].keys()
        found += _wrong_class(name, double["classes"][name], real["classes"][name], known & real["classes"].keys())
    return sorted(found)


def _wrong_class(name: str, double: Any, real: Any, known: set[str]) -> list[str]:
    if (double["enum"] is None) != (real["enum"] is None):
        return [f"{name}: one of the two is no enum"]
    if double["enum"] is not None:
        numbers = {member: real["enum"].get(member) for member in double["enum"]}
        return [
            f"{name}.{member} = {double['enum'][member]}, expected {number}"
            for member, number in numbers.items()
            if number != double["enum"][member]
        ]
    found = []
    if known.intersection(double["bases"]) != known.intersection(real["bases"]):
        found.append(f"{name} inherits from {double['bases']}, expected {real['bases']}")
    for member, mine in double["members"].items():
        theirs = real["members"].get(member)
        if member in BEYOND.get(name, ()) or member == "__init__":
            continue
        if member in UNBOUND_CALLBACKS.get(name, {}):
            counts = [len(each["arguments"]) for each in mine["signatures"]]
            if counts != [UNBOUND_CALLBACKS[name][member]]:
                found.append(f"{name}.{member} takes {counts} arguments, expected {UNBOUND_CALLBACKS[name][member]}")
        elif theirs is None:
            found.append(f"{name}.{member}: no such member")
        elif mine["kind"] != theirs["kind"]:
            found.append(f"{name}.{member} is a {mine['kind']}, expected a {theirs['kind']}")
        elif mine["kind"] == "method":
            found += _wrong_arguments(f"{name}.{member}", mine["signatures"], theirs["signatures"])
        elif mine["kind"] == "property" and mine["set"] and not theirs["set"]:
            found.append(f"{name}.{member} can be set, expected that it cannot")
    return found


def _wrong_arguments(name: str, double: list[Any], real: list[Any]) -> list[str]:
    if any(signature["arguments"] is None for signature in double):
        return []
    mine, theirs = _calls(double), _calls(real)
    missing = [] if len(real) > 1 else [call for call in theirs if not _among(call, mine)]
    if not missing and all(_among(call, theirs) for call in mine):
        return []
    return [f"{name} takes {' or '.join(map(str, mine))}, expected {' or '.join(map(str, theirs))}"]


def _calls(signatures: list[Any]) -> list[list[str | None]]:
    """The names of what may be given, for each number of arguments; None for one without a name."""
    calls = []
    for signature in signatures:
        names = [argument["name"] for argument in signature["arguments"]]
        required = sum(not argument["optional"] for argument in signature["arguments"])
        calls += [names[:count] for count in range(required, len(names) + 1)]
    return calls


def _among(call: list[str | None], calls: list[list[str | None]]) -> bool:
    """A name that one of the two does not have may be anything."""
    return any(
        len(call) == len(other) and all(None in (one, two) or one == two for one, two in zip(call, other, strict=True))
        for other in calls
    )


def test_all_that_the_double_has_is_nvidias() -> None:
    assert wrong(described(real=False), described(real=True)) == []


def test_every_enum_of_the_double_is_whole() -> None:
    double, real = described(real=False)["classes"], described(real=True)["classes"]
    whole = {name for name, found in double.items() if found["enum"] and name in real}
    assert {name: set(real[name]["enum"]) - set(double[name]["enum"]) for name in whole} == {
        name: set() for name in whole
    }


def test_what_the_double_has_beyond_is_there() -> None:
    double = described(real=False)
    for name, members in BEYOND.items():
        there = (
            double["classes"][name]["members"] if name else {**double["classes"], **double["functions"], "CORE": ...}
        )
        assert members <= set(there), name


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("classes.BuilderFlag.enum.INT8", 2, "BuilderFlag.INT8 = 2, expected 1"),
        ("classes.BuilderFlag.enum.MONITOR_MEMORY", 24, "BuilderFlag.MONITOR_MEMORY = 24, expected None"),
        ("classes.IRuntimeConfig", {"bases": [], "enum": None, "members": {}}, "IRuntimeConfig: no such thing"),
        ("values.float32", ["DataType", 1], "float32: ['DataType', 1], expected ['DataType', 0]"),
        ("functions.set_log", [], "set_log: no such thing among the functions"),
        ("version", "10.4.0", "version 10.4.0, expected 10.3.0"),
        ("classes.ICudaEngine.members.num_io_tensors.set", True, "ICudaEngine.num_io_tensors can be set"),
        ("classes.ICudaEngine.members.get_tensor_name.kind", "property", "get_tensor_name is a property"),
        ("classes.ICudaEngine.members.get_engine_stat", {"kind": "value"}, "get_engine_stat: no such member"),
        ("classes.IInt8EntropyCalibrator2.bases", [], "IInt8EntropyCalibrator2 inherits from []"),
        (
            "classes.IExecutionContext.members.execute_async_v3.signatures",
            [{"arguments": [{"name": "stream", "type": None, "optional": False}], "result": None}],
            "execute_async_v3 takes ['stream'], expected ['stream_handle']",
        ),
    ],
)
def test_what_is_not_nvidias_is_found(path: str, value: object, words: str) -> None:
    real = described(real=True)
    double = copy.deepcopy(real)
    *steps, last = path.split(".")
    place = double
    for step in steps:
        place = place[step]
    place[last] = value
    told = wrong(double, real)
    assert len(told) == 1
    assert words in told[0]
