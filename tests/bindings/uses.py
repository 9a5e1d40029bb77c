"""How our code uses TensorRT, by its source, and what of it a given TensorRT does not have.

Our code meets TensorRT in three ways: attributes of the module (`trt.X.Y`, `job.trt.X`), subclasses of its callbacks,
and its objects. An object is held by a Protocol, which mypy holds every use against; so a Protocol is compared with the
class that it stands for, and what `trt.X(...)` makes must be given to a variable of such a Protocol at once.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tests.bindings.describe import plain

Api = dict[str, Any]
"""As `describe.py` writes it."""

STANDS_FOR = {
    "bindings.Dims": "Dims",
    "bindings.Inspector": "EngineInspector",
    "bindings.Context": "IExecutionContext",
    "bindings.Engine": "ICudaEngine",
    "bindings.Runtime": "Runtime",
    "network.Layer": "ILayer",
    "network.NetworkInput": "ITensor",
    "network.Tensor": "ITensor",
    "network.Network": "INetworkDefinition",
    "network.TimingCache": "ITimingCache",
    "network.BuilderConfig": "IBuilderConfig",
    "network.OptimizationProfile": "IOptimizationProfile",
    "network.Builder": "Builder",
    "network.Parser": "OnnxParser",
    "network.ParserError": "ParserError",
}
OF_OUR_OWN = {
    "calibrator.Calibrator",
    "error_recorder.ErrorRecorder",
    "faults.LogLine",
    "faults.RecordedError",
    "log.TensorrtLog",
    "output_memory.OutputAllocator",
    "progress.Monitor",
}
"""Protocols of what we make or read ourselves."""

UNBOUND_CALLBACKS = {
    "IErrorRecorder": {"get_num_errors": 0},
    "IOutputAllocator": {"reallocate_output": 4, "reallocate_output_async": 5, "notify_shape": 2},
}
"""What C++ looks up by name in a subclass and the class does not have, with the number of arguments it passes
(python/src/infer/pyCore.cpp, PyErrorRecorder and PyOutputAllocator, tag v10.3.0)."""
ADDED_BY_US = {"IInt8EntropyCalibrator2": {"finish", "close"}}

_TAKES = {
    "bytes": {"buffer", "Buffer"},
    "memoryview": {"buffer", "Buffer"},
    "Buffer": {"IHostMemory"},
    "Sequence[SupportsIndex]": {"tuple", "list", "Dims"},
    "Iterable[int]": {"Dims"},
}
_CLASS_OF = {protocol.partition(".")[2]: theirs for protocol, theirs in STANDS_FOR.items()}


class Use(NamedTuple):
    place: str
    names: tuple[str, ...]
    call: ast.Call | None
    held_as: str | None
    """The annotation of the variable that a call is given to."""


def faults(sources: Mapping[str, str], api: Api) -> list[str]:
    """What these modules, by their names, use of TensorRT and `api` has not, in words."""
    found: list[str] = []
    for module, source in sources.items():
        tree = ast.parse(source)
        for use in uses(module, tree):
            found += _of_use(use, api)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found += _of_class(module, node, api)
    return found


def uses(module: str, tree: ast.Module) -> Iterator[Use]:
    """Every attribute that is taken of the module tensorrt, as far as its chain goes."""
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    held = {id(node.value): ast.unparse(node.annotation) for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            names = _chain(node)
            if names:
                call = calls.get(id(node))
                yield Use(f"{module}:{node.lineno}", names, call, held.get(id(call)))


def looked_up(tree: ast.Module) -> Iterator[tuple[str, ...]]:
    """What `getattr` with a name that is only known at run time is asked of."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            target, name = node.args[:2]
            of_module = _is_tensorrt(target) or (isinstance(target, ast.Attribute) and _chain(target))
            if of_module and not isinstance(name, ast.Constant):
                yield _chain(target) if isinstance(target, ast.Attribute) else ()


def _is_tensorrt(node: ast.expr) -> bool:
    if isinstance(node, ast.Name):
        return node.id == "trt"
    return isinstance(node, ast.Attribute) and node.attr in {"trt", "_trt"}


def _chain(node: ast.Attribute) -> tuple[str, ...]:
    """The names after `trt`, () where the chain is of something else."""
    names: list[str] = []
    current: ast.expr = node
    while isinstance(current, ast.Attribute) and not _is_tensorrt(current):
        names.insert(0, current.attr)
        current = current.value
    return tuple(names) if _is_tensorrt(current) else ()


def _of_use(use: Use, api: Api) -> list[str]:
    shown = "trt." + ".".join(use.names)
    if use.names == ("__version__",):
        return []
    first, *rest = use.names
    theirs = api["classes"].get(first)
    if theirs is None:
        signatures = api["functions"].get(first)
        if rest or (signatures is None and first not in api["values"]):
            return [f"{use.place}: {shown} does not exist"]
        return _of_call(use, shown, signatures) if use.call is not None else []
    if not rest:
        if use.call is None:
            return []
        wrong = _of_call(use, shown, theirs["members"]["__init__"]["signatures"])
        if _CLASS_OF.get(use.held_as or "") != first:
            wrong.append(f"{use.place}: what {shown}() makes is held as {use.held_as}, which no Protocol stands for")
        return wrong
    if rest == ["__init__"] or (len(rest) == 1 and (rest[0] in (theirs["enum"] or theirs["members"]))):
        return []
    return [f"{use.place}: {shown} does not exist"]


def _of_call(use: Use, shown: str, signatures: list[Any]) -> list[str]:
    assert use.call is not None
    given = [None] * len(use.call.args)
    keywords = {keyword.arg for keyword in use.call.keywords}
    if any(
        len(given) + len(keywords) <= len(signature["arguments"])
        and all(
            argument["optional"] or argument["name"] in keywords for argument in signature["arguments"][len(given) :]
        )
        and keywords <= {argument["name"] for argument in signature["arguments"][len(given) :]}
        for signature in signatures
    ):
        return []
    return [f"{use.place}: {shown} does not take {ast.unparse(use.call)}"]


def _of_class(module: str, node: ast.ClassDef, api: Api) -> list[str]:
    bases = [base for base in node.bases if isinstance(base, ast.Attribute) and _chain(base)]
    if bases:
        return _of_callbacks(module, node, _chain(bases[0])[0], api)
    if "Protocol" not in {ast.unparse(base) for base in node.bases}:
        return []
    name = f"{module}.{node.name}"
    if name in OF_OUR_OWN:
        return []
    if name not in STANDS_FOR:
        return [f"{name}: this Protocol stands for nothing that is known; add it to STANDS_FOR or OF_OUR_OWN"]
    theirs = api["classes"].get(STANDS_FOR[name])
    if theirs is None:
        return [f"{name}: {STANDS_FOR[name]} does not exist"]
    return [fault for statement in node.body for fault in _of_member(f"{name}", statement, theirs["members"])]


def _of_callbacks(module: str, node: ast.ClassDef, base: str, api: Api) -> list[str]:
    theirs = api["classes"].get(base)
    if theirs is None:
        return [f"{module}.{node.name}: {base} does not exist"]
    wrong = []
    for method in node.body:
        if not isinstance(method, ast.FunctionDef) or method.name.startswith("_"):
            continue
        ours = [argument.arg for argument in (*method.args.posonlyargs, *method.args.args)][1:]
        if method.name in ADDED_BY_US.get(base, ()):
            continue
        if method.name in UNBOUND_CALLBACKS.get(base, {}):
            counts = {UNBOUND_CALLBACKS[base][method.name]}
        else:
            bound = theirs["members"].get(method.name) or {"signatures": []}
            counts = {len(signature["arguments"]) for signature in bound["signatures"]}
        if len(ours) not in counts:
            wrong.append(f"{module}.{node.name}.{method.name}({', '.join(ours)}): {base} calls no such method")
    return wrong


def _of_member(protocol: str, statement: ast.stmt, theirs: dict[str, Any]) -> list[str]:
    if isinstance(statement, ast.AnnAssign):
        name, settable, annotation = ast.unparse(statement.target), True, ast.unparse(statement.annotation)
    elif isinstance(statement, ast.FunctionDef):
        name, settable, annotation = statement.name, False, ast.unparse(statement.returns or ast.Constant(None))
        if "property" not in {ast.unparse(decorator) for decorator in statement.decorator_list}:
            return _of_method(protocol, statement, theirs.get(name))
    else:
        return []
    found = theirs.get(name)
    if found is None or found["kind"] != "property" or not found["type"]:
        return [f"{protocol}.{name}: no such property"]
    if settable and not found["set"]:
        return [f"{protocol}.{name}: this property cannot be set"]
    if not _fits(annotation, found["type"]):
        return [f"{protocol}.{name}: expected {found['type']}, declared as {annotation}"]
    return []


def _of_method(protocol: str, method: ast.FunctionDef, found: dict[str, Any] | None) -> list[str]:
    if found is None or found["kind"] != "method":
        return [f"{protocol}.{method.name}: no such method"]
    if any(_matches(method, signature) for signature in found["signatures"]):
        return []
    return [f"{protocol}.{method.name}: declared as ({ast.unparse(method.args)}), found {found['signatures']}"]


def _matches(method: ast.FunctionDef, theirs: dict[str, Any]) -> bool:
    arguments = [*method.args.posonlyargs, *method.args.args][1:]
    positional = max(len(method.args.posonlyargs) - 1, 0)
    given, rest = theirs["arguments"][: len(arguments)], theirs["arguments"][len(arguments) :]
    return (
        len(given) == len(arguments)
        and all(argument["optional"] for argument in rest)
        and all(
            (number < positional or mine.arg == argument["name"])
            and _fits(ast.unparse(mine.annotation or ast.Constant(None)), argument["type"])
            for number, (mine, argument) in enumerate(zip(arguments, given, strict=True))
        )
        and _fits(ast.unparse(method.returns or ast.Constant(None)), theirs["result"])
    )


def _fits(ours: str, theirs: str) -> bool:
    """Whether a value of one type can be the other's. `object` says that the type is nobody's business."""
    name = ours.removesuffix(" | None")
    return ours == "object" or theirs in {_CLASS_OF.get(name, plain(name)), *_TAKES.get(name, ())}
