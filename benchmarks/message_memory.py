"""What a message costs that waits: every Python object of a request beyond its tensors, counted by `tracemalloc`.

The engine is held in a run while the mailbox is filled to its bounds: with frames of 64 requests, and with frames of
one, which are the dearest. The consumer keeps each `Pending`, and nobody waits yet.
"""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Mapping

from loguru import logger

from actors import supervise
from actors.mailbox import FRAMES_PER_CONSUMER
from actors.shedding import FRAMES_TOTAL, REQUESTS_PER_FRAME
from benchmarks.echo_engine import INPUTS, MODEL, EchoRuntime, Row, print_rows, same
from messages import InferRejected, Tensor

BYTES_AT_MOST = 1500.0


def queued_bytes(requests_per_frame: int) -> tuple[int, float]:
    """How many requests waited, and the bytes of each."""
    started, go = threading.Event(), threading.Event()

    def held(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        started.set()
        go.wait()
        return same(inputs)

    runtime = EchoRuntime(held)
    with supervise(runtime, runtime.entries()) as c7:
        running = c7.submit(MODEL, INPUTS, within_ms=600_000)
        started.wait()
        clients = [c7.client(f"c{number}") for number in range(FRAMES_TOTAL // FRAMES_PER_CONSUMER)]
        asked = [
            (client, frame)
            for client in clients
            for frame in range(1000, 1000 + FRAMES_PER_CONSUMER)
            for _ in range(requests_per_frame)
        ]
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        waiting = [client.submit(MODEL, INPUTS, within_ms=600_000, frame_id=frame) for client, frame in asked]
        taken = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        if any(each.done for each in waiting):
            raise SystemExit("expected every request to wait in the mailbox")
        for each in waiting:
            each.cancel()
        go.set()
        if isinstance(running.result(), InferRejected):
            raise SystemExit("expected the held run to complete")
    return len(waiting), taken / len(waiting)


def main() -> None:
    logger.remove()
    rows: list[Row] = []
    for requests_per_frame in (REQUESTS_PER_FRAME, 13, 1):
        count, size = queued_bytes(requests_per_frame)
        rows.append((f"{count} requests, {requests_per_frame} to a frame", size, BYTES_AT_MOST))
    print_rows("bytes of a queued message", rows, "beyond its tensors, of which all share one")


if __name__ == "__main__":
    main()
