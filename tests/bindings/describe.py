"""What the module `tensorrt` that can be imported consists of, as JSON: NVIDIA's and the double alike.

pybind11 writes a method's signatures into its docstring, one line each; Python's own functions have theirs in
`inspect`. Each becomes the same: its arguments without `self`, each a name, a type and whether it may be left out.
"""

from __future__ import annotations

import enum
import inspect
import json
import re
import sys
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

SPECIAL = {"__init__", "__len__", "__getitem__", "__setitem__", "__bool__", "__call__", "__iter__"}
_ARGUMENT = re.compile(r"(?P<star>\**)(?P<name>\w+)(?:: (?P<type>.+?))?(?: = (?P<default>.+))?", re.DOTALL)
_SPELLINGS = {
    "typing.SupportsInt": "int",  # pybind11 3
    "typing.SupportsFloat": "float",
    "List[": "list[",  # pybind11 2
    "nvonnxparser::IParserError": "ParserError",  # a class that is bound after the method that gives it
}
_UNNAMED = re.compile(r"arg\d+")


def split_arguments(text: str) -> list[str]:
    """At the commas outside of brackets."""
    parts, depth, begin = [], 0, 0
    for index, letter in enumerate(text):
        depth += letter in "[(<{"
        depth -= letter in "])}" or (letter == ">" and text[index - 1] != "-")
        if letter == "," and depth == 0:
            parts.append(text[begin:index].strip())
            begin = index + 1
    return [part for part in [*parts, text[begin:].strip()] if part]


def signature_of(line: str) -> dict[str, Any]:
    """Of `name(self: tensorrt.X, name: str, shape: tuple) -> bool`, as pybind11 writes it."""
    arguments, _, result = line.partition("(")[2].rpartition(") -> ")
    found = []
    for number, text in enumerate(split_arguments(arguments)):
        argument = _ARGUMENT.fullmatch(text)
        assert argument is not None, line
        if number == 0 and argument["name"] in {"self", "arg0"} and "tensorrt" in (argument["type"] or "tensorrt"):
            continue
        if argument["star"]:
            return {"arguments": None, "result": result}
        name = None if _UNNAMED.fullmatch(argument["name"]) else argument["name"]
        found.append({"name": name, "type": plain(argument["type"]), "optional": argument["default"] is not None})
    return {"arguments": found, "result": plain(result)}


def plain(annotation: str | None) -> str | None:
    """As Python 3.9 spells it, without module names."""
    if annotation is None:
        return None
    for theirs, ours in _SPELLINGS.items():
        annotation = annotation.replace(theirs, ours)
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", annotation).replace("'", "").removesuffix(" | SupportsIndex")


def bound_signatures(function: Any, name: str) -> list[dict[str, Any]]:
    lines = [re.sub(r"^\d+\. ", "", line) for line in (function.__doc__ or "").splitlines()]
    return [
        signature_of(line) for line in lines if line.startswith(f"{name}(") and " -> " in line and "*args" not in line
    ]


def python_signature(function: FunctionType, *, skip_self: bool) -> dict[str, Any]:
    parameters = list(inspect.signature(function).parameters.values())[1 if skip_self else 0 :]
    if any(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in parameters):
        return {"arguments": None, "result": None}
    return {
        "arguments": [
            {
                "name": None if each.kind is each.POSITIONAL_ONLY else each.name,
                "type": None,
                "optional": each.default is not each.empty,
            }
            for each in parameters
        ],
        "result": None,
    }


def property_type(value: property) -> str | None:
    """None for one of Python's, and "" for one that can only be written."""
    if value.fget is None:
        return ""
    if isinstance(value.fget, FunctionType):
        return None
    return plain((value.fget.__doc__ or "").splitlines()[0].rpartition(") -> ")[2])


def member_of(name: str, value: Any) -> dict[str, Any] | None:
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    if isinstance(value, property):
        return {"kind": "property", "type": property_type(value), "set": value.fset is not None}
    if inspect.ismemberdescriptor(value):  # of Python's __slots__
        return {"kind": "property", "type": None, "set": True}
    if isinstance(value, type):
        return {"kind": "class"}
    if isinstance(value, FunctionType):
        return {"kind": "method", "signatures": [python_signature(value, skip_self=True)]}
    if callable(value):
        return {"kind": "method", "signatures": bound_signatures(value, name)}
    return {"kind": "value"}


def numbers_of(cls: type) -> dict[str, int] | None:
    members = getattr(cls, "__members__", None)
    return None if members is None else {name: int(value) for name, value in members.items()}


def class_of(cls: type) -> dict[str, Any]:
    """With what it inherits, but from `object` and pybind11."""
    members: dict[str, Any] = {}
    is_enum = numbers_of(cls) is not None
    bases = [each for each in cls.__mro__[:-1] if each.__name__ != "pybind11_object"]
    for base in reversed([] if is_enum else [each for each in bases if each.__module__ not in {"enum", "typing"}]):
        for name, value in vars(base).items():
            if not name.startswith("_") or name in SPECIAL:
                members[name] = member_of(name, value)
    return {"bases": [each.__name__ for each in bases[1:]], "enum": numbers_of(cls), "members": members}


def describe(module: ModuleType) -> dict[str, Any]:
    found: dict[str, Any] = {"version": module.__version__, "classes": {}, "functions": {}, "values": {}}
    pending = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    for name, value in pending.items():
        if isinstance(value, type):
            found["classes"][name] = class_of(value)
            for inner, nested in vars(value).items():
                if isinstance(nested, type) and not inner.startswith("_"):
                    found["classes"][f"{name}.{inner}"] = class_of(nested)
        elif isinstance(value, FunctionType):
            found["functions"][name] = [python_signature(value, skip_self=False)]
        elif isinstance(value, BuiltinFunctionType):
            found["functions"][name] = bound_signatures(value, name)
        elif isinstance(value, enum.Enum) or hasattr(type(value), "__members__"):
            found["values"][name] = [type(value).__name__, int(value)]
    return found


if __name__ == "__main__":
    import tensorrt  # type: ignore[import-not-found,unused-ignore]

    json.dump(describe(tensorrt), sys.stdout)
