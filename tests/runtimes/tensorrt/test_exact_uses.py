"""All that our code uses of TensorRT is in NVIDIA's bindings, old and new, with just those arguments."""

from __future__ import annotations

import ast
import json
from functools import cache
from pathlib import Path

import pytest

from runtimes.tensorrt.building.builder_config import DECIDED_FLAGS
from runtimes.tensorrt.inference.io_tensors import _DTYPES
from runtimes.tensorrt.log import SEVERITIES
from tests.bindings.fetched import OLDEST, ROOT, TENSORRT, run_python, tensorrt
from tests.bindings.uses import OF_OUR_OWN, STANDS_FOR, Api, faults, looked_up, uses

FILES = sorted((ROOT / "runtimes").rglob("*.py"))
ROOM = {path.stem: path.read_text() for path in FILES if "tensorrt" in path.relative_to(ROOT).parts}
SOURCES = ROOM | {path.stem: path.read_text() for path in FILES if path.name == "tensorrt_runtime.py"}
DESCRIBE = str(Path("tests/bindings/describe.py"))


@cache
def api(version: str) -> Api:
    told = run_python(DESCRIBE, paths=[tensorrt(version)])
    assert told.returncode == 0, told.stderr
    found: Api = json.loads(told.stdout)
    assert found["version"] == version
    return found


def with_more(module: str, after: str, line: str) -> dict[str, str]:
    """Our sources with a line more in one of them, behind a line that is there."""
    assert f"{after}\n" in SOURCES[module]
    return {**SOURCES, module: SOURCES[module].replace(f"{after}\n", f"{after}\n{line}\n", 1)}


@pytest.mark.parametrize("version", TENSORRT)
def test_every_use_is_there_with_its_arguments(version: str) -> None:
    assert faults(SOURCES, api(version)) == []


def test_every_module_that_uses_tensorrt_is_looked_at() -> None:
    others = {path.relative_to(ROOT): ast.parse(path.read_text()) for path in FILES if path.stem not in SOURCES}
    assert [str(path) for path, tree in others.items() if list(uses("", tree))] == []
    assert sum(len(list(uses(name, ast.parse(source)))) for name, source in SOURCES.items()) > 40


def test_every_protocol_that_is_listed_is_there() -> None:
    classes = {
        f"{name}.{node.name}"
        for name, source in ROOM.items()
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ClassDef)
    }
    assert set(STANDS_FOR) | OF_OUR_OWN <= classes


@pytest.mark.parametrize("version", TENSORRT)
def test_names_that_are_looked_up_at_run_time_are_members(version: str) -> None:
    asked = {names for source in SOURCES.values() for names in looked_up(ast.parse(source))}
    assert asked == {("BuilderFlag",)}
    classes = api(version)["classes"]
    assert set(DECIDED_FLAGS) <= set(classes["BuilderFlag"]["enum"])
    assert set(_DTYPES) <= set(classes["DataType"]["enum"])
    assert list(SEVERITIES) == sorted(classes["ILogger.Severity"]["enum"], key=classes["ILogger.Severity"]["enum"].get)
    assert "FAILED_ALLOCATION" in classes["ErrorCodeTRT"]["enum"]


BUILD = "    def build_serialized_network(self, network: Network, config: BuilderConfig) -> Buffer | None: ..."
INFER = "    def infer_shapes(self) -> list[str]: ..."
LEVEL = "    builder_optimization_level: int"
VERBOSITY = "    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED"
NETWORK = "        self.network: Network = network"


@pytest.mark.parametrize(
    ("module", "after", "line", "words"),
    [
        (
            "network",
            BUILD,
            "    def build_engine_with_config(self, network: Network, config: BuilderConfig) -> object: ...",
            "network.Builder.build_engine_with_config: no such method",
        ),
        (
            "bindings",
            INFER,
            "    def get_runtime_config(self) -> object: ...",
            "bindings.Context.get_runtime_config: no such method",
        ),
        (
            "network",
            LEVEL,
            "    tiling_optimization_level: object",
            "network.BuilderConfig.tiling_optimization_level: no such property",
        ),
        (
            "builder_config",
            VERBOSITY,
            "    config.set_flag(trt.BuilderFlag.MONITOR_MEMORY)",
            "trt.BuilderFlag.MONITOR_MEMORY does not exist",
        ),
        ("network", NETWORK, "        trt.IRuntimeConfig", "trt.IRuntimeConfig does not exist"),
    ],
)
def test_what_only_a_newer_tensorrt_has_is_found(module: str, after: str, line: str, words: str) -> None:
    told = faults(with_more(module, after, line), api(OLDEST))
    assert len(told) == 1
    assert words in told[0]
    assert faults(with_more(module, after, line), api(TENSORRT[-1])) == []


@pytest.mark.parametrize(
    ("module", "after", "line", "words"),
    [
        (
            "bindings",
            INFER,
            "    def set_device_memory(self, memory: int) -> None: ...",
            "set_device_memory: declared as",
        ),
        (
            "bindings",
            INFER,
            "    def execute_async_v3(self, stream: int) -> bool: ...",
            "execute_async_v3: declared as",
        ),
        (
            "bindings",
            INFER,
            "    def get_tensor_shape(self, name: int, /) -> Dims: ...",
            "get_tensor_shape: declared as",
        ),
        ("bindings", INFER, "    engine: object", "bindings.Context.engine: this property cannot be set"),
        ("bindings", INFER, "    device_memory: object", "bindings.Context.device_memory: no such property"),
        ("network", LEVEL, "    avg_timing_iterations: str", "avg_timing_iterations: expected int, declared as str"),
        ("network", NETWORK, "        trt.Builder(log)", "what trt.Builder() makes is held as None"),
        ("network", NETWORK, "        builder: Builder = trt.Builder(log, 2)", "does not take trt.Builder(log, 2)"),
        ("network", NETWORK, '        trt.init_libnvinfer_plugins(log, name="")', "does not take"),
        ("network", NETWORK, "        trt.BuilderFlag.WEIGHTS", "trt.BuilderFlag.WEIGHTS does not exist"),
        (
            "network",
            NETWORK,
            "        class M(trt.IProgressMonitor):\n            def phase_end(self): ...",
            "phase_end()",
        ),
        (
            "network",
            NETWORK,
            "        class A(trt.IOutputAllocator):\n            def notify_shape(self, shape): ...",
            "notify_shape(shape): IOutputAllocator calls no such method",
        ),
        ("network", BUILD, "class Plugin(Protocol):\n    name: str", "this Protocol stands for nothing that is known"),
    ],
)
def test_what_no_tensorrt_has_is_found(module: str, after: str, line: str, words: str) -> None:
    told = faults(with_more(module, after, line), api(OLDEST))
    assert len(told) == 1
    assert words in told[0]
