"""What it costs to ask for the board's heat before every frame, beside reading the clock."""

from __future__ import annotations

import statistics
import time
import timeit

from loguru import logger

from actors import supervise
from benchmarks.echo_engine import EchoRuntime, print_rows
from telemetry import ThermalReading

CLOCKS_AT_MOST = 3.0
ROUNDS = 50
READS = 10_000


class Heatless:
    """A thermal source that works."""

    name = "heatless"

    def read(self) -> ThermalReading:
        return ThermalReading(cpu_temp_c=20.0, gpu_temp_c=20.0, gpu_clock_mhz=1000)


def main() -> None:
    logger.remove()
    runtime = EchoRuntime()
    with supervise(runtime, runtime.entries(), thermal=Heatless()) as c7:
        while c7.thermal_state().source_lost:
            time.sleep(0.01)
        reads, clocks = [], []
        for _ in range(ROUNDS):
            reads.append(timeit.timeit(c7.thermal_state, number=READS) / READS * 1e9)
            clocks.append(timeit.timeit(time.monotonic_ns, number=READS) / READS * 1e9)
    ratios = [read / clock for read, clock in zip(reads, clocks, strict=True)]
    print_rows(
        "reading the heat",
        [
            ("thermal_state(), ns", statistics.median(reads), None),
            ("time.monotonic_ns(), ns", statistics.median(clocks), None),
            ("ratio", statistics.median(ratios), CLOCKS_AT_MOST),
        ],
        f"medians of {ROUNDS} rounds of {READS:,} reads",
    )


if __name__ == "__main__":
    main()
