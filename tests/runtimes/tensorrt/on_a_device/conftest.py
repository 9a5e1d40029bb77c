"""Engines of the real TensorRT on the real device, and what TensorRT says of them in its own words.

Without either every test here is skipped with the reason. `test_device_checks.py` runs them over the doubles, in a
child, so that they are sound before they meet a device.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import pytest

from runtimes.build_report import BuilderName
from runtimes.config import C7InferenceConfig, TensorrtSection
from runtimes.cuda.cuda_bindings import open_cuda
from runtimes.cuda.port import Cuda
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry
from runtimes.tensorrt.inference.engine import EngineLoader, LoadedEngine
from runtimes.tensorrt.log import TensorrtLog, process_log
from runtimes.tensorrt_runtime import TensorrtRuntime
from tests.hardware import OVER_DOUBLE, require_tensorrt

ROOT = Path(__file__).parents[4]
CHILD_TIMEOUT_S = 240
_WORDS_MAX = 60
_SAID: list[str] = []


class Built(Protocol):
    def __call__(
        self, name: str, onnx: bytes, config: BuildConfig, *, builder: BuilderName = "api"
    ) -> EngineCacheEntry: ...


class MakeRuntime(Protocol):
    def __call__(self, *, engine_dir: Path | None = None, **section: Any) -> TensorrtRuntime: ...


InChild = Callable[..., dict[str, Any]]
Say = Callable[[str], None]


@pytest.fixture(scope="session")
def hardware() -> ModuleType:
    return require_tensorrt()


@pytest.fixture
def trt(hardware: ModuleType) -> ModuleType:
    return hardware


@pytest.fixture
def cuda(hardware: ModuleType) -> Iterator[Cuda]:
    """At the end the device has to answer still."""
    opened = open_cuda(0)
    yield opened
    gc.collect()
    opened.check()
    opened.close()


@pytest.fixture
def log(trt: ModuleType) -> TensorrtLog:
    return process_log(trt)


@pytest.fixture
def make_runtime(hardware: ModuleType) -> MakeRuntime:
    def make(*, engine_dir: Path | None = None, **section: Any) -> TensorrtRuntime:
        return TensorrtRuntime(
            C7InferenceConfig(
                runtime="tensorrt",
                engine_dir=engine_dir,
                tensorrt=TensorrtSection(**{"builder": "api", **section}),
            )
        )

    return make


@pytest.fixture(scope="session")
def built(hardware: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """`built(name, onnx, config, builder=...)`: an engine, compiled once for all tests that ask for the same."""
    entries: dict[tuple[str, BuildConfig, str], EngineCacheEntry] = {}

    def build(name: str, onnx: bytes, config: BuildConfig, *, builder: BuilderName = "api") -> EngineCacheEntry:
        key = name, config, builder
        if key not in entries:
            source = tmp_path_factory.mktemp("engines") / f"{name}.onnx"
            source.write_bytes(onnx)
            runtime = TensorrtRuntime(C7InferenceConfig(runtime="tensorrt", tensorrt=TensorrtSection(builder=builder)))
            entries[key] = runtime.compile_engine(source, config)
        return entries[key]

    return build


@pytest.fixture
def load(trt: ModuleType, log: TensorrtLog, cuda: Cuda) -> Callable[[EngineCacheEntry], LoadedEngine]:
    """The engine alone, for what no runtime would ask of it."""
    loader = EngineLoader(trt, log, cuda)
    return lambda entry: loader.load(str(entry.path), entry.model, entry.path.read_bytes())


@pytest.fixture
def in_child(hardware: ModuleType) -> InChild:
    """`in_child(NAME, *arguments, without_cuda=False)`: what a program of `in_a_child` printed, in a process of its
    own, which it may leave in whatever state it likes.
    """

    def run(name: str, *arguments: object, without_cuda: bool = False) -> dict[str, Any]:
        environment = {**os.environ}
        if without_cuda:
            # An empty list hides every device (CUDA C++ Programming Guide, "CUDA Environment Variables").
            environment["CUDA_VISIBLE_DEVICES"] = ""
            environment["CUDA_DOUBLE"] = json.dumps({"device_count": 0})
        done = subprocess.run(  # noqa: S603 - our own interpreter, our own program
            [sys.executable, "-m", f"{__package__}.in_a_child", name, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=CHILD_TIMEOUT_S,
            check=False,
            cwd=ROOT,
            env=environment,
        )
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        assert lines, f"{name} ended with {done.returncode} and told nothing:\n{done.stdout}\n{done.stderr[-4000:]}"
        found: dict[str, Any] = json.loads(lines[-1])
        return {"exit_code": done.returncode, **found}

    return run


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Say:
    """`say(words)`: what was heard of the device, shown at the end of the run, to be compared with the beliefs."""

    def take(words: str) -> None:
        if len(_SAID) < _WORDS_MAX:
            _SAID.append(f"{request.node.name}: {words}")

    return take


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """A red test says which belief is wrong."""
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    if report.failed:
        for mark in item.iter_markers("belief"):
            report.sections.append(("this is no longer to be believed", str(mark.args[0])))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _SAID:
        over = "the double" if OVER_DOUBLE else "the device"
        terminalreporter.section(f"what was heard of {over}")
        for line in _SAID:
            terminalreporter.write_line(line)
