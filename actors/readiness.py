"""Which engines answer: written by the supervisor, waited for by whoever starts or recovers a flight."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from actors.scheduling import THREADS, Scheduling, Signal


class Readiness:
    """Thread-safe. An engine is undecided until it has loaded or failed for the first time."""

    def __init__(self, models: Iterable[str], scheduling: Scheduling = THREADS) -> None:
        self._lock = threading.Lock()
        self._new_signal = scheduling.signal
        self._waiting: list[Signal] = []
        self._undecided = set(models)
        self._failed: dict[str, str] = {}

    @property
    def undecided(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._undecided)

    @property
    def failed(self) -> dict[str, str]:
        """Model -> why it did not load."""
        with self._lock:
            return dict(self._failed)

    def not_loaded(self, overdue: str) -> dict[str, str]:
        """Model -> why it does not answer, at one instant; `overdue` for those that are undecided."""
        with self._lock:
            return self._failed | dict.fromkeys(self._undecided, overdue)

    def awaited_again(self, model: str) -> None:
        """The engine had loaded and was lost before all others had."""
        with self._lock:
            self._undecided.add(model)

    def loaded(self, model: str) -> None:
        with self._lock:
            self._failed.pop(model, None)
            self._decide(model)

    def failed_to_load(self, model: str, detail: str) -> None:
        with self._lock:
            self._failed[model] = detail
            self._decide(model)

    def forget(self, model: str) -> None:
        """Nobody waits for this engine any more, and it is none that failed."""
        with self._lock:
            self._failed.pop(model, None)
            self._decide(model)

    def wait(self, timeout_s: float) -> bool:
        """Wait until every engine is decided. False where that took longer, or one was lost again meanwhile."""
        with self._lock:
            if not self._undecided:
                return True
            decided = self._new_signal()
            decided.acquire()
            self._waiting.append(decided)
        decided.acquire(timeout=max(0.0, timeout_s))
        with self._lock:
            if decided in self._waiting:
                self._waiting.remove(decided)
            return not self._undecided

    def _decide(self, model: str) -> None:
        self._undecided.discard(model)
        if not self._undecided:
            waiting, self._waiting = self._waiting, []
            for decided in waiting:
                decided.release()


def overdue_detail(load_timeout_s: float) -> str:
    """Why an engine is not there that has not reported in time."""
    return f"did not load within {load_timeout_s:g} s"
