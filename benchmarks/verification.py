"""What verifying engines costs: hashing a generation and reading engines ahead, beside `hashlib.sha256` by itself.

Over the same files in a warm page cache, interleaved round by round in changing order, so that a busy machine slows
all alike; the ratios are what counts. The bare loop, `hashlib.sha256(path.read_bytes())` one file after the other,
keeps to one core by its nature; the rows for one core keep the process to that core too. At least 0.90 is demanded of
them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from messages import TensorSpec
from runtimes import BuildConfig, BuiltEngine, EngineStore, Generation, detect_host, write_engine
from runtimes.source_model import SourceModel
from runtimes.store.read_ahead import READ_AHEAD_LIMIT_BYTES, ReadAhead, read_ahead_workers
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.store.staged_generation import stage_generation
from runtimes.store.verification import verification_workers, verify_generation

MIB = 1024**2
DEMANDED_RATIO = 0.90
BARE = "hashlib.sha256(path.read_bytes())"


def bare_loop(generation: Generation) -> None:
    for entry in generation.entries.values():
        if hashlib.sha256(entry.path.read_bytes()).hexdigest() != entry.engine_sha256:
            raise SystemExit(f"{entry.path} changed")


def verify(generation: Generation, workers: int) -> None:
    if findings := verify_generation(generation, workers):
        raise SystemExit(findings[0].problem)


def read_ahead(generation: Generation, workers: int) -> None:
    """As a takeoff does: each engine is asked for in order, and its buffer dropped before the next is asked for."""
    entries = list(generation.entries.values())
    with ReadAhead(entries, limit_bytes=READ_AHEAD_LIMIT_BYTES, workers=workers) as ahead:
        for entry in entries:
            if len(ahead.read(entry)) != entry.engine_size_bytes:
                raise SystemExit(f"{entry.path} changed")


def store_engines(root: Path, count: int, size_mb: int) -> Generation:
    host = detect_host("0")
    source = SourceModel(Path("bench.onnx"), b"bench", sha256_of(b"bench"))
    spec = {"x": TensorSpec((1,), "float32")}
    with stage_generation(EngineStore(root)) as staged:
        for number in range(count):
            data = random.Random(number).randbytes(MIB) * size_mb  # noqa: S311 - nothing is secret here
            built = BuiltEngine(data=data, inputs=spec, outputs=spec, build_tool="bench")
            write_engine(staged.directory, f"m{number}", source, built, BuildConfig(precision="fp32"), "bench", host, 0)
        return staged.commit()


def measure_mb_s(generation: Generation, work: Callable[[Generation], None], cores: set[int]) -> float:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        began_ns = time.perf_counter_ns()
        work(generation)
        took_s = (time.perf_counter_ns() - began_ns) / 1e9
    finally:
        os.sched_setaffinity(0, allowed)
    return sum(entry.engine_size_bytes for entry in generation.entries.values()) / 1e6 / took_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--size-mb", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    cores = os.sched_getaffinity(0)
    one = {min(cores)}
    contenders: dict[str, tuple[Callable[[Generation], None], set[int]]] = {
        BARE: (bare_loop, one),
        "verify_generation, 1 worker, 1 core": (lambda each: verify(each, 1), one),
        "ReadAhead, 1 worker, 1 core": (lambda each: read_ahead(each, 1), one),
        f"verify_generation, {verification_workers()} workers": (
            lambda each: verify(each, verification_workers()),
            cores,
        ),
        f"ReadAhead, {read_ahead_workers()} workers": (lambda each: read_ahead(each, read_ahead_workers()), cores),
    }
    speeds: dict[str, list[float]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder:
        generation = store_engines(Path(folder) / "engines", options.files, options.size_mb)
        bare_loop(generation)  # fills the page cache
        order = list(contenders)
        for _ in range(options.rounds):
            order.append(order.pop(0))
            for name in order:
                speeds[name].append(measure_mb_s(generation, *contenders[name]))
    _print(speeds, f"{options.files} engines of {options.size_mb} MiB, warm page cache")


def _print(speeds: dict[str, list[float]], title: str) -> None:
    table = Table("verification", "MB/s", "ratio", "lowest … highest", title=title)
    table.caption = f"ratio: to {BARE} of the same round; median, lowest and highest of all rounds"
    met = True
    for name, found in speeds.items():
        ratios = [speed / bare for speed, bare in zip(found, speeds[BARE], strict=True)]
        ratio = statistics.median(ratios)
        met = met and ratio >= DEMANDED_RATIO
        table.add_row(
            name, f"{statistics.median(found):,.0f}", f"{ratio:.2f}", f"{min(ratios):.2f} … {max(ratios):.2f}"
        )
    console = Console()
    console.print(table)
    console.print(f"at least {DEMANDED_RATIO:.2f} is demanded: {'met' if met else 'MISSED'}", highlight=False)


if __name__ == "__main__":
    main()
