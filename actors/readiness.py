"""Which engines answer: written by the supervisor, waited for by whoever starts or recovers a flight."""

from __future__ import annotations

import threading
from collections.abc import Iterable


class Readiness:
    """Thread-safe. An engine is undecided until it has loaded or failed for the first time."""

    def __init__(self, models: Iterable[str]) -> None:
        self._changed = threading.Condition()
        self._undecided = set(models)
        self._failed: dict[str, str] = {}

    @property
    def undecided(self) -> frozenset[str]:
        with self._changed:
            return frozenset(self._undecided)

    @property
    def failed(self) -> dict[str, str]:
        """Model -> why it did not load."""
        with self._changed:
            return dict(self._failed)

    def not_loaded(self, overdue: str) -> dict[str, str]:
        """Model -> why it does not answer, at one instant; `overdue` for those that are undecided."""
        with self._changed:
            return self._failed | dict.fromkeys(self._undecided, overdue)

    def awaited_again(self, model: str) -> None:
        """The engine had loaded and was lost before all others had."""
        with self._changed:
            self._undecided.add(model)

    def loaded(self, model: str) -> None:
        with self._changed:
            self._undecided.discard(model)
            self._failed.pop(model, None)
            self._changed.notify_all()

    def failed_to_load(self, model: str, detail: str) -> None:
        with self._changed:
            self._undecided.discard(model)
            self._failed[model] = detail
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Wait until every engine is decided. False where that took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._undecided, timeout_s)
