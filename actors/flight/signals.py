"""Signals as messages: the handler only puts into a queue, because it may run in the middle of any lock."""

from __future__ import annotations

import os
import queue
import signal
from types import FrameType, TracebackType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopSignals:
    """Collects SIGTERM, SIGINT and SIGHUP while entered; only the main thread may enter.

    No signal ever declares a landing. A SIGHUP that was ignored before, as nohup does, stays ignored. Where nobody
    has taken the last signal yet, the main thread hangs in something that is not ours, such as the constructor of a
    camera: the next signal then ends the process at once, as it would any other.
    """

    def __init__(self) -> None:
        self._received: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._former: dict[signal.Signals, signal.Handlers] = {}

    def wait(self, timeout_s: float) -> str | None:
        """The name of the next signal, or the reason that was posted; None where none came within `timeout_s`."""
        try:
            return self._received.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def post(self, reason: str) -> None:
        """Wake `wait` with this reason, from any thread, as a signal would."""
        self._received.put(reason)

    def __enter__(self) -> StopSignals:
        for number in STOP_SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue
            self._former[number] = signal.signal(number, self._receive)  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    def _receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # the signature is Python's
        if not self._received.empty():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._received.put(signal.Signals(number).name)
