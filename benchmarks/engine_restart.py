"""What starting an engine again costs: a load from its file, beside a resume of what was kept, and who else feels it.

Meanwhile a thread that wants to run every millisecond notes the longest time that it did not: what a load does to an
engine in flight. The models are `attention_matcher`'s, on the CPU with one thread; `--pt2` and `--onnx` take others,
whose inputs have fixed shapes. Medians of all rounds, and the worst.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.attention_matcher import export_matcher_onnx, export_matcher_pt2
from runtimes import (
    BuildConfig,
    C7InferenceConfig,
    EngineCacheEntry,
    EngineHandle,
    InferenceRuntime,
    SuspendsEngines,
    build_inference_runtime,
    read_entry,
    sample_inputs,
)
from runtimes.inference_runtime import Precision
from runtimes.store.engine_artifact import read_verified

TICK_S = 0.001


class Ticker:
    """A thread that wants to run every millisecond, as long as the `with` block lasts."""

    def __init__(self) -> None:
        self.longest_ms = 0.0
        self._ticking = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Ticker:
        self._thread.start()
        self._ticking.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(10)

    def _tick(self) -> None:
        last_ns = time.perf_counter_ns()
        while not self._ended.is_set():
            self._ticking.set()
            time.sleep(TICK_S)
            now_ns = time.perf_counter_ns()
            self.longest_ms = max(self.longest_ms, (now_ns - last_ns) / 1e6)
            last_ns = now_ns


class Step(NamedTuple):
    """One thing that was done once. `resident_mb` is what the process had more of it afterwards."""

    took_ms: float
    stall_ms: float
    resident_mb: float


class Restarts:
    """The steps of one runtime's engine, by name, each round's."""

    def __init__(self) -> None:
        self.steps: dict[str, list[Step]] = {}

    def measure(self, name: str, work: Callable[[], object]) -> None:
        gc.collect()  # what the step before left is none of this one's
        before = _resident_mb()
        with Ticker() as ticker:
            began_ns = time.perf_counter_ns()
            work()
            took_ms = (time.perf_counter_ns() - began_ns) / 1e6
        gc.collect()
        self.steps.setdefault(name, []).append(Step(took_ms, ticker.longest_ms, _resident_mb() - before))


def measure_restarts(runtime: InferenceRuntime, entry: EngineCacheEntry, rounds: int) -> Restarts:
    found = Restarts()
    inputs = sample_inputs(entry)
    held: list[EngineHandle] = []

    def load() -> None:
        held.append(runtime.deserialize_engine(entry))

    for number in range(rounds):
        found.measure("nothing, 500 ms", lambda: time.sleep(0.5))
        found.measure("read and verify", lambda: read_verified(entry))
        found.measure("first load" if number == 0 else "load", load)
        found.measure("run after a load", lambda: runtime.infer(held[-1], inputs))
        if isinstance(runtime, SuspendsEngines):
            _suspend_and_resume(runtime, held, found)
            found.measure("run after the resume", lambda: runtime.infer(held[-1], inputs))
        found.measure("release", lambda: runtime.release_engine(held.pop()))
        gc.disable()
        found.measure("load, gc disabled", load)
        gc.enable()
        runtime.release_engine(held.pop())
    return found


def _suspend_and_resume(runtime: SuspendsEngines, held: list[EngineHandle], found: Restarts) -> None:
    found.measure("suspend", lambda: runtime.suspend_engine(held[-1]))
    found.measure("resume", lambda: held.append(runtime.resume_engine(held.pop())))


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1e6


def _print(title: str, found: Restarts) -> None:
    table = Table("step", "ms", "worst", "longest stall, ms", "worst", "resident, MB", title=title)
    for name, steps in found.steps.items():
        took = [step.took_ms for step in steps]
        stalls = [step.stall_ms for step in steps]
        table.add_row(
            name,
            f"{statistics.median(took):,.2f}",
            f"{max(took):,.2f}",
            f"{statistics.median(stalls):,.1f}",
            f"{max(stalls):,.1f}",
            f"{statistics.median(step.resident_mb for step in steps):+,.0f}",
        )
    Console().print(table)


def prepare(folder: Path, name: str, given: Path | None) -> None:
    """Compile one model into `folder`, in a process of its own: what that imports is in no load's time."""
    source, what = given, "given"
    if source is None:
        source = folder / f"matcher.{'pt2' if name == 'pytorch_fp16' else 'onnx'}"
        what = export_matcher_pt2(source) if name == "pytorch_fp16" else export_matcher_onnx(source)
    precision: Precision = "fp16" if name == "pytorch_fp16" else "fp32"
    entry = _runtime(name, folder).compile_engine(source, BuildConfig(precision=precision))
    print(entry.path)
    print(f"{source.name}, {what}")


def _runtime(name: str, folder: Path) -> InferenceRuntime:
    if name == "pytorch_fp16":
        return build_inference_runtime(C7InferenceConfig(runtime="pytorch_fp16", engine_dir=folder))
    return build_inference_runtime(C7InferenceConfig(runtime="onnx_trt_ep", provider="cpu", engine_dir=folder))


def _missing(*packages: str) -> list[str]:
    return [package for package in packages if importlib.util.find_spec(package) is None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pt2", type=Path, help="a program in fp16, in place of the matcher")
    parser.add_argument("--onnx", type=Path, help="an ONNX model in fp32, in place of the matcher")
    parser.add_argument("--prepare", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    given: dict[str, Path | None] = {"pytorch_fp16": options.pt2, "onnx_trt_ep": options.onnx}
    if options.prepare is not None:
        prepare(Path(options.prepare[0]), options.prepare[1], given[options.prepare[1]])
        return
    for name, packages in (("pytorch_fp16", ["torch"]), ("onnx_trt_ep", ["torch", "onnx", "onnxruntime"])):
        if missing := _missing(*packages):
            print(f"{name} is not measured: {', '.join(missing)} not installed")
            continue
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.engine_restart", "--prepare", folder, name]
            source = given[name]
            if source is not None:
                command += ["--pt2" if name == "pytorch_fp16" else "--onnx", str(source)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=600)  # noqa: S603
            path, what = done.stdout.strip().splitlines()[-2:]
            runtime = _runtime(name, Path(folder))
            entry = read_entry(Path(path))
            _print(escape(f"{entry.runtime_label}: {what}"), measure_restarts(runtime, entry, options.rounds))


if __name__ == "__main__":
    main()
