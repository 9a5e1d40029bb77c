"""What a message costs: `client.infer` on an engine that returns its input, beside the two things it is built on.

All contenders run interleaved in one process, round by round in changing order, so that a busy machine slows them
alike; the ratios to the executor are what counts. Three placements, because where the kernel puts the two threads of a
round trip weighs more than anything in between: on one core a wake-up takes some 5 µs, across two 20 to 50.

- one core: the process keeps to it.
- two cores: the caller keeps to one, whoever answers to another.
- unpinned: as the kernel likes it. Threads stay where they happened to begin, for thousands of calls, so every round
  has new ones; single rounds differ by a factor of four either way, and only many of them mean something.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pykka
from loguru import logger
from rich.table import Table

from actors import Supervision, frame_scope, supervise
from benchmarks.echo_engine import INPUTS, MODEL, EchoRuntime, durations_ns, print_table, quantile, same, verdict
from messages import NS_PER_S, Infer, InferCompleted, Tensor
from telemetry import FlightRecorder

Calls = dict[str, Callable[[], object]]
EXECUTOR = "ThreadPoolExecutor(1)"
AS_A_RUNTIME = "SupervisedRuntime.infer"
AS_SHIPPED = "client.infer, FlightRecorder"
AT_MOST = {"client.infer": (1.0, 1.2), AS_SHIPPED: (1.0, 1.2)}
"""Of p50 and of p99, each beside the executor's."""
CORES = sorted(os.sched_getaffinity(0))


class Echo(pykka.ThreadingActor):
    """A bare pykka actor."""

    use_daemon_thread = True

    def __init__(self, place: Callable[[], None]) -> None:
        super().__init__()
        self._place = place

    def on_start(self) -> None:
        self._place()

    def on_receive(self, message: object) -> object:
        return message


class Rounds:
    """Durations of one placement: all, and each round's ratios to the executor."""

    def __init__(self) -> None:
        self.p50_ns: dict[str, list[float]] = {}
        self.p99_ns: dict[str, list[float]] = {}

    def add(self, measured: Mapping[str, list[int]]) -> None:
        for name, durations in measured.items():
            self.p50_ns.setdefault(name, []).append(quantile(durations, 0.5))
            self.p99_ns.setdefault(name, []).append(quantile(durations, 0.99))

    def ratios(self, figures: Mapping[str, list[float]], name: str) -> list[float]:
        return [mine / theirs for mine, theirs in zip(figures[name], figures[EXECUTOR], strict=True)]


@contextmanager
def contenders(recordings: Path, answer_on: set[int] | None) -> Iterator[tuple[Calls, FlightRecorder]]:
    """New threads for each, which keep to `answer_on` where it is given."""
    placed = threading.local()

    def place() -> None:
        if answer_on is not None:
            os.sched_setaffinity(0, answer_on)

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if not hasattr(placed, "once"):
            placed.once = True
            place()
        return same(inputs)

    def through_the_supervisor(c7: Supervision, number: int) -> object:
        deadline_ns = time.monotonic_ns() + NS_PER_S
        pending = c7.actor_ref.ask(Infer(MODEL, dict(INPUTS), "main", 0, deadline_ns, number), block=True, timeout=1)
        return pending.result()

    plain, recorded = EchoRuntime(run), EchoRuntime(run)
    numbers = iter(range(10**9, 2 * 10**9))
    with ExitStack() as ending:
        pool = ending.enter_context(ThreadPoolExecutor(1, initializer=place))
        echo = Echo.start(place)
        ending.callback(echo.stop, timeout=1)
        recorder = ending.enter_context(FlightRecorder(recordings / f"{time.monotonic_ns()}.mcap"))
        c7 = ending.enter_context(supervise(plain, plain.entries()))
        shipped = ending.enter_context(supervise(recorded, recorded.entries(), record=recorder.record))
        for each in (c7, shipped):
            if not isinstance(each.infer(MODEL, INPUTS, within_ms=1000), InferCompleted):
                raise SystemExit("the echo engine does not answer")
        runtime = c7.as_runtime()
        handle = runtime.deserialize_engine(plain.entries()[MODEL])

        def as_a_runtime() -> object:
            with frame_scope("c2_vpr", 1, 1000):
                return runtime.infer(handle, INPUTS)

        calls: Calls = {
            EXECUTOR: lambda: pool.submit(run, INPUTS).result(timeout=1),
            "pykka ask": lambda: echo.ask(INPUTS, timeout=1),
            "client.infer": lambda: c7.infer(MODEL, INPUTS, within_ms=1000),
            AS_A_RUNTIME: as_a_runtime,
            AS_SHIPPED: lambda: shipped.infer(MODEL, INPUTS, within_ms=1000),
            "ask the supervisor": lambda: through_the_supervisor(c7, next(numbers)),
        }
        for call in calls.values():
            call()
        yield calls, recorder


def measure_round(calls: Calls, recorder: FlightRecorder, order: list[str], count: int) -> dict[str, list[int]]:
    measured = {}
    for name in order:
        measured[name] = durations_ns(calls[name], count)
        if name == AS_SHIPPED:
            await_written(recorder)
    return measured


def await_written(recorder: FlightRecorder) -> None:
    """So that nobody else's round pays for what is left to write."""
    before = -1
    while recorder.recorded != before:
        before = recorder.recorded
        time.sleep(0.03)


def measure(placement: str, rounds: int, count: int) -> tuple[Rounds, int]:
    figures, dropped = Rounds(), 0
    caller_on, answer_on = {"one core": ({CORES[-1]}, None), "two cores": ({CORES[-1]}, {CORES[0]})}.get(
        placement, (set(CORES), None)
    )
    with tempfile.TemporaryDirectory() as folder:
        left = rounds
        while left:
            os.sched_setaffinity(0, set(CORES))  # threads begin with their maker's
            if placement == "one core":
                os.sched_setaffinity(0, caller_on)
            batch = 1 if placement == "unpinned" else left
            with contenders(Path(folder), answer_on) as (calls, recorder):
                os.sched_setaffinity(0, caller_on)
                order = list(calls)
                for _ in range(batch):
                    turn = left % len(order)
                    figures.add(measure_round(calls, recorder, order[turn:] + order[:turn], count))
                    left -= 1
                dropped += recorder.dropped
    os.sched_setaffinity(0, set(CORES))
    return figures, dropped


def print_placement(placement: str, figures: Rounds, dropped: int) -> None:
    table = Table(
        f"round trip, {placement}", "p50 µs", "p99 µs", "p50 ratio", "", "p99 ratio", "", "p50 ratio of rounds"
    )
    table.caption = (
        "medians over rounds, ratios to the executor's of the same round; the last column is lowest … geometric mean … "
        f"highest; records dropped: {dropped}"
    )
    for name in figures.p50_ns:
        p50, p99 = figures.ratios(figures.p50_ns, name), figures.ratios(figures.p99_ns, name)
        at_most = AT_MOST.get(name, (None, None))
        mean = math.exp(statistics.fmean(map(math.log, p50)))
        table.add_row(
            name,
            f"{statistics.median(figures.p50_ns[name]) / 1000:.1f}",
            f"{statistics.median(figures.p99_ns[name]) / 1000:.1f}",
            f"{statistics.median(p50):.2f}",
            verdict(statistics.median(p50), at_most[0]),
            f"{statistics.median(p99):.2f}",
            verdict(statistics.median(p99), at_most[1]),
            f"{min(p50):.2f} … {mean:.2f} … {max(p50):.2f}",
        )
    print_table(table)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=40)
    arguments.add_argument("--calls", type=int, default=400, help="calls per round and contender")
    options = arguments.parse_args()
    logger.remove()
    placements = ["one core", "two cores", "unpinned"] if len(CORES) > 1 else ["one core"]
    for placement in placements:
        print_placement(placement, *measure(placement, options.rounds, options.calls))


if __name__ == "__main__":
    main()
