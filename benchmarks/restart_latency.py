"""How long an engine that died is away, where loading it takes no time.

A request kills the engine; the next one is asked as soon as `EngineLoaded` was announced. Timed from the consumer's
knowing of the death to its having an outcome again: without the delay of the restart policy, and as shipped, where the
delay of a first restart is most of it. No two requests that kill have inputs alike: they would be recognised as poison.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Mapping

import numpy as np
from loguru import logger

from actors import RestartPolicy, supervise
from benchmarks.echo_engine import INPUTS, MODEL, EchoRuntime, Row, print_rows, quantile, same
from messages import NS_PER_MS, EngineLoaded, InferCompleted, InferenceError, Message, Tensor

MS_AT_MOST = 10.0


def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if inputs["x"].dtype == np.float64:
        raise InferenceError("fell over float64")
    return same(inputs)


def away_ns(policy: RestartPolicy, deaths: int) -> list[int]:
    loaded = threading.Event()

    def record(message: Message) -> None:
        if isinstance(message, EngineLoaded):
            loaded.set()

    runtime = EchoRuntime(run)
    durations = []
    with supervise(runtime, runtime.entries(), policy=policy, record=record) as c7:
        for death in range(deaths):
            loaded.clear()
            c7.infer(MODEL, {"x": np.zeros(1 + death, np.float64)}, within_ms=1000)
            started_ns = time.perf_counter_ns()
            if not loaded.wait(60):
                raise SystemExit(f"the engine did not come back after its death number {death + 1}")
            if not isinstance(c7.infer(MODEL, INPUTS, within_ms=1000), InferCompleted):
                raise SystemExit("the engine was announced and does not answer")
            durations.append(time.perf_counter_ns() - started_ns)
    return durations


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--deaths", type=int, default=400)
    options = arguments.parse_args()
    logger.remove()
    at_once = RestartPolicy(max_restarts=options.deaths + 1, first_delay_ns=0, max_delay_ns=0, jitter_share=0.0)
    shipped_ns = RestartPolicy().first_delay_ns
    delayed = RestartPolicy(max_restarts=options.deaths + 1, max_delay_ns=shipped_ns)
    rows: list[Row] = []
    for name, policy, at_most, deaths in (
        ("no delay", at_once, MS_AT_MOST, options.deaths),
        (f"delay of {shipped_ns / NS_PER_MS:g} ms as shipped", delayed, None, options.deaths // 4),
    ):
        durations = away_ns(policy, deaths)
        rows.append((f"{name}, p50 ms", quantile(durations, 0.5) / NS_PER_MS, None))
        rows.append((f"{name}, p99 ms", quantile(durations, 0.99) / NS_PER_MS, at_most))
    print_rows("from a death to an answer", rows, f"{options.deaths} deaths, a quarter of them with the delay")


if __name__ == "__main__":
    main()
