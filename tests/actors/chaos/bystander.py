"""A consumer of an engine that does nothing wrong, on a device that it shares with engines that do."""

from __future__ import annotations

import threading
import time
from collections import Counter

from actors import Supervision
from messages import NS_PER_MS, NS_PER_S, InferCompleted
from tests.actors.chaos.account import Account, kind
from tests.actors.chaos.questions import question

MODEL = "bystander"
CONSUMER = "c999"
RUN_MS = 1.25
LOAD_SHARE = 0.5
"""Of what its engine could do alone."""


class Bystander:
    """Asks one request after the other, each `RUN_MS / LOAD_SHARE` after the one before or, where that one took longer
    than this, at once.
    """

    def __init__(self, c7: Supervision, account: Account, within_ms: float) -> None:
        self.count = 0
        self.outcomes: Counter[str] = Counter()
        self.longest_ns = 0
        self.run_ns = 0
        self.duration_ns = 0
        self._client = c7.client(CONSUMER)
        self._account = account
        self._within_ms = within_ms
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, name=MODEL, daemon=True)

    @property
    def completed(self) -> int:
        return self.outcomes["completed"]

    @property
    def lost(self) -> dict[str, int]:
        return {why: count for why, count in self.outcomes.items() if why != "completed"}

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        self._stop.set()
        self._thread.join(timeout_s)
        assert not self._thread.is_alive(), "the bystander hangs"

    def figures(self) -> str:
        busy = self.run_ns / max(1, self.duration_ns)
        return (
            f"  {MODEL}: asked {self.count}, kept {100 * self.completed / max(1, self.count):.4f} %, lost {self.lost}; "
            f"{100 * busy:.0f} % of the time in runs, longest wait {self.longest_ns / NS_PER_MS:.1f} ms"
        )

    def _ask(self) -> None:
        period_ns = RUN_MS / LOAD_SHARE * NS_PER_MS
        began_ns = due_ns = time.monotonic_ns()
        while not self._stop.is_set():
            asked_ns = time.monotonic_ns()
            if asked_ns < due_ns:
                time.sleep((due_ns - asked_ns) / NS_PER_S)
                asked_ns = time.monotonic_ns()
            due_ns = asked_ns + round(period_ns)
            self.count += 1
            self._account.ask(MODEL)
            outcome = self._client.infer(
                MODEL, question(CONSUMER, self.count), within_ms=self._within_ms, frame_id=self.count
            )
            self._account.tell(CONSUMER, MODEL, self.count, outcome, int(self._within_ms * NS_PER_MS))
            self.longest_ns = max(self.longest_ns, time.monotonic_ns() - asked_ns)
            self.outcomes[kind(outcome)] += 1
            self.run_ns += outcome.run_ns if isinstance(outcome, InferCompleted) else 0
            self.duration_ns = time.monotonic_ns() - began_ns
