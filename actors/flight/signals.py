"""Signals as messages: the handler only puts into a queue, because it may run in the middle of any lock."""

from __future__ import annotations

import queue
import signal
from types import FrameType, TracebackType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Collects SIGTERM and SIGINT while entered; only the main thread may enter. No signal ever declares a landing."""

    def __init__(self) -> None:
        self._received: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._former: dict[signal.Signals, signal.Handlers] = {}

    def wait(self, timeout_s: float) -> str | None:
        """The name of the next signal, or None where none came within `timeout_s`."""
        try:
            return self._received.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def __enter__(self) -> StopSignals:
        for number in STOP_SIGNALS:
            self._former[number] = signal.signal(number, self._receive)  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    def _receive(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  # the signature is Python's
        self._received.put(signal.Signals(number).name)
