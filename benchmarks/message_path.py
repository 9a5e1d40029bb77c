"""What a message costs: `client.infer` on an engine that returns its input, beside the two things it is built on.

All three run interleaved in one process, round by round in changing order, so that a busy machine slows them alike;
the ratios are what counts. The process keeps to one core: across cores a round trip takes 20 or 70 µs depending on
where the kernel wakes the other thread, for all three alike, and that lottery is larger than any difference.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pykka
from loguru import logger
from rich.console import Console
from rich.table import Table

from actors import supervise
from messages import InferCompleted, Tensor
from runtimes import EngineHandle, FakeRuntime, computes

Call = Callable[[dict[str, np.ndarray]], object]


class EchoRuntime(FakeRuntime):
    """An engine that returns its input and does nothing else: a FakeRuntime's script would be measured too."""

    def infer(self, handle: EngineHandle, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        return same(inputs)


class Echo(pykka.ThreadingActor):
    """A bare pykka actor."""

    use_daemon_thread = True

    def on_receive(self, message: object) -> object:
        return message


def same(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(inputs)


def measure(call: Call, inputs: dict[str, np.ndarray], count: int) -> list[int]:
    durations_ns = []
    for _ in range(count):
        started_ns = time.perf_counter_ns()
        call(inputs)
        durations_ns.append(time.perf_counter_ns() - started_ns)
    return durations_ns


def percentile(sorted_ns: list[int], share: float) -> float:
    return sorted_ns[min(len(sorted_ns) - 1, int(share * len(sorted_ns)))] / 1000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=40)
    arguments.add_argument("--calls", type=int, default=250, help="calls per round and contender")
    options = arguments.parse_args()
    logger.remove()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    inputs = {"x": np.zeros(16, np.float32)}
    fake = EchoRuntime({"echo": computes(same)})
    echo = Echo.start()
    with ThreadPoolExecutor(1) as pool, supervise(fake, fake.entries()) as c7:
        if not isinstance(c7.infer("echo", inputs, within_ms=1000), InferCompleted):
            raise SystemExit("the echo engine does not answer")
        contenders: dict[str, Call] = {
            "ThreadPoolExecutor(1)": lambda x: pool.submit(same, x).result(timeout=1),
            "pykka ask": lambda x: echo.ask(x, timeout=1),
            "client.infer": lambda x: c7.infer("echo", x, within_ms=1000),
        }
        samples: dict[str, list[int]] = {name: [] for name in contenders}
        ratios: dict[str, list[float]] = {name: [] for name in contenders}
        order = list(contenders)
        for _ in range(options.rounds):
            medians = {}
            order.append(order.pop(0))
            for name in order:
                durations_ns = measure(contenders[name], inputs, options.calls)
                samples[name] += durations_ns
                medians[name] = statistics.median(durations_ns)
            for name, median in medians.items():
                ratios[name].append(median / medians["ThreadPoolExecutor(1)"])
    echo.stop(timeout=1)
    _print(samples, ratios)


def _print(samples: dict[str, list[int]], ratios: dict[str, list[float]]) -> None:
    table = Table("round trip", "p50 µs", "p99 µs", "ratio", "lowest … highest")
    table.caption = "ratio: p50 over the executor's p50 of the same round; median, lowest and highest of all rounds"
    for name, durations_ns in samples.items():
        durations_ns.sort()
        ratio = ratios[name]
        table.add_row(
            name,
            f"{percentile(durations_ns, 0.5):.1f}",
            f"{percentile(durations_ns, 0.99):.1f}",
            f"{statistics.median(ratio):.2f}",
            f"{min(ratio):.2f} … {max(ratio):.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
