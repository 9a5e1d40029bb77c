"""How far recorder, debug log and garbage collection stretch the tail of a round trip.

Two flights of the same engine take turns: a bare one, and one with everything on: the recorder, the log at DEBUG into a
file, and a line of it for every run, as in `c7 fly`. Requests come at an even pace, ten times that of a flight; a path
that is kept busy without a pause measures how fast the recorder's writer is, not what a frame waits for. One in a
thousand is slow on a machine that does other things too, so the bare flight's own figure is what counts.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from loguru import logger

from actors import Supervision, supervise
from benchmarks.echo_engine import INPUTS, MODEL, EchoRuntime, Row, print_rows, quantile
from messages import NS_PER_MS, InferCompleted, Message
from telemetry import FlightRecorder, configure_logging

TIMES_AT_MOST = 2.0
PACE_S = 1 / 390


def paced_ns(c7: Supervision, count: int) -> list[int]:
    durations = []
    due_s = time.perf_counter()
    for frame in range(count):
        due_s += PACE_S
        time.sleep(max(0.0, due_s - time.perf_counter()))
        started_ns = time.perf_counter_ns()
        c7.infer(MODEL, INPUTS, within_ms=1000, frame_id=frame)
        durations.append(time.perf_counter_ns() - started_ns)
    return durations


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=20)
    arguments.add_argument("--calls", type=int, default=390, help="calls per round and flight: one second")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, FlightRecorder(Path(folder) / "flight.mcap") as recorder:
        log = configure_logging(level="DEBUG", sink=Path(folder) / "flight.log", recorder=recorder)

        def record(message: Message) -> None:
            recorder.record(message)
            if isinstance(message, InferCompleted):
                took_ms = message.run_ns / NS_PER_MS
                logger.debug("C7 infer backbone={} frame={} took={:.1f}ms", message.model, message.frame_id, took_ms)

        bare_runtime, full_runtime = EchoRuntime(), EchoRuntime()
        with (
            supervise(bare_runtime, bare_runtime.entries()) as bare,
            supervise(full_runtime, full_runtime.entries(), record=record) as full,
        ):
            measured: dict[str, list[int]] = {"bare": [], "everything on": []}
            for _ in range(options.rounds):
                measured["bare"] += paced_ns(bare, options.calls)
                measured["everything on"] += paced_ns(full, options.calls)
        log.close()
        lost = recorder.dropped + log.lost
    rows: list[Row] = []
    for share in (0.5, 0.99, 0.999):
        bare_us, full_us = (quantile(durations, share) / 1000 for durations in measured.values())
        at_most = TIMES_AT_MOST if share == 0.999 else None
        rows.append(
            (
                f"p{share * 100:g}: {bare_us:.0f} µs bare, {full_us:.0f} µs with everything on",
                full_us / bare_us,
                at_most,
            )
        )
    mean_us = statistics.fmean(measured["everything on"]) / 1000
    rows.append((f"mean with everything on, µs; records and lines lost: {lost}", mean_us, None))
    print_rows("stalls", rows, f"{len(measured['bare'])} requests each, {1 / PACE_S:.0f} a second")


if __name__ == "__main__":
    main()
