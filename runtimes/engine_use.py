"""Who uses a resident engine, and when what it holds may be given back: never under a run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from messages import InferenceError


class EngineUse:
    """Runs of one engine until its end. Callable from any thread."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._runs_under_way = 0
        self._at_end: Callable[[], None] | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """For one run. Raises InferenceError once the engine was put away, and what giving back raises."""
        with self._lock:
            if self._at_end is not None:
                raise InferenceError(f"{self._model}: the engine was put away while it was to run")
            self._runs_under_way += 1
        try:
            yield
        finally:
            with self._lock:
                self._runs_under_way -= 1
                self._give_back_if_unused()

    def end(self, give_back: Callable[[], None]) -> None:
        """No run begins any more, and once none is under way `give_back` is called, by whoever is the last.

        A further end takes the place of one that still waits. Raises what `give_back` raises.
        """
        with self._lock:
            self._at_end = give_back
            self._give_back_if_unused()

    def _give_back_if_unused(self) -> None:
        if self._at_end is not None and self._runs_under_way == 0:
            self._at_end()
