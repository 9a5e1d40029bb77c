"""What producers asked and what each request was told: their own account, held against the runtime's ledger at the end.

It is fed by what calls returned, by listeners and by the inboxes of consumers' actors, never by the ledger. It keeps
one byte a request, by request_id, so that no outcome can make up for another one that is missing.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping

from actors import ModelStatistics
from messages import NS_PER_MS, InferCompleted, InferRejected, Outcome
from tests.actors.chaos.questions import is_answer, within_ns

WRONGS_KEPT = 20
GROWS_BY = 1 << 20


def kind(outcome: Outcome) -> str:
    return outcome.reason if isinstance(outcome, InferRejected) else "completed"


class Account:
    """Thread-safe. Times are CLOCK_MONOTONIC nanoseconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times_told = bytearray(GROWS_BY)
        self.asked: Counter[str] = Counter()
        self.told: Counter[tuple[str, str]] = Counter()
        self.given_up: Counter[str] = Counter()
        """Tasks that were cancelled while they awaited: asked, and nobody is there to be told."""
        self.sent: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.wrong: list[str] = []
        """What may never happen, the first WRONGS_KEPT of it."""
        self.late_to_waiters = 0
        self.late_to_listeners = 0
        self.run_ns = 0
        """Of all runs that were answered."""
        self.latest_result_waited_ns = 0
        self.latest_result_heard_ns = 0
        self.latest_word_ns = 0
        self.latest_unwaited_ns = 0

    @property
    def total(self) -> int:
        return sum(self.asked.values())

    @property
    def own_bytes(self) -> int:
        """What it keeps, which grows with the requests."""
        return len(self._times_told)

    def ask(self, model: str, *, send: bool = False) -> None:
        with self._lock:
            self.asked[model] += 1
            if send:
                self.sent[model] += 1

    def give_up(self, model: str) -> None:
        with self._lock:
            self.given_up[model] += 1

    def receive(self, consumer: str, outcome: Outcome) -> None:
        """The inbox of this consumer's actor took it."""
        with self._lock:
            self.received[outcome.model] += 1
        self.tell(consumer, outcome.model, outcome.frame_id, outcome)

    def tell(self, consumer: str, model: str, frame_id: int, outcome: Outcome, allowed_ns: int | None = None) -> None:
        """This is what the request was told. A result has to be the answer to it, and one that was ready in time.

        In time is judged without any tolerance by the outcome's own durations: they begin when the request had its
        deadline and end when the engine had returned. `allowed_ns` where the frame does not say how long it had.
        """
        allowed_ns = within_ns(frame_id) if allowed_ns is None else allowed_ns
        wrong = ""
        if (outcome.consumer, outcome.model, outcome.frame_id) != (consumer, model, frame_id):
            wrong = f"{consumer} asked {model} for frame {frame_id} and was told {outcome}"
        elif isinstance(outcome, InferCompleted):
            if not is_answer(outcome):
                wrong = f"{consumer} was given somebody else's result for frame {frame_id}: {outcome}"
            elif outcome.queued_ns + outcome.run_ns > allowed_ns:
                late_ns = outcome.queued_ns + outcome.run_ns - allowed_ns
                wrong = f"late result: {late_ns / NS_PER_MS:.3f} ms; {outcome}"
        with self._lock:
            while outcome.request_id >= len(self._times_told):
                self._times_told += bytes(GROWS_BY)
            self._times_told[outcome.request_id] += 1
            self.told[model, kind(outcome)] += 1
            self.run_ns += outcome.run_ns if isinstance(outcome, InferCompleted) else 0
            self._note(wrong)

    def waited(self, outcome: Outcome, deadline_ns: int) -> None:
        """A waiter has its outcome at this moment."""
        self._time(outcome, time.monotonic_ns() - deadline_ns, waiter=True)

    def heard(self, outcome: Outcome, deadline_ns: int) -> None:
        """A listener has its outcome at this moment; nobody waits for that request."""
        self._time(outcome, time.monotonic_ns() - deadline_ns, waiter=False)

    def protest(self, wrong: str) -> None:
        with self._lock:
            self._note(wrong)

    def _time(self, outcome: Outcome, after_deadline_ns: int, *, waiter: bool) -> None:
        with self._lock:
            if isinstance(outcome, InferCompleted) and waiter:
                self.late_to_waiters += after_deadline_ns > 0
                self.latest_result_waited_ns = max(self.latest_result_waited_ns, after_deadline_ns)
            elif isinstance(outcome, InferCompleted):
                self.late_to_listeners += after_deadline_ns > 0
                self.latest_result_heard_ns = max(self.latest_result_heard_ns, after_deadline_ns)
            elif waiter:
                self.latest_word_ns = max(self.latest_word_ns, after_deadline_ns)
            else:
                self.latest_unwaited_ns = max(self.latest_unwaited_ns, after_deadline_ns)

    def _note(self, wrong: str) -> None:
        if wrong and len(self.wrong) < WRONGS_KEPT:
            self.wrong.append(wrong)

    def discrepancies(self, statistics: Mapping[str, ModelStatistics]) -> list[str]:
        """Where this account and the runtime's ledger differ, and what is wrong by itself. Empty where all balances.

        What producers never saw (`given_up`, and what was sent to an actor that had died) is in the ledger alone: it
        explains a difference there, and exactly as many requests as that may be without an outcome here.
        """
        with self._lock:
            found = list(self.wrong)
            unseen = self.given_up + self.sent
            unseen.subtract(self.received)
            for model in sorted({*self.asked, *statistics}):
                one = statistics[model]
                missing: Counter[str] = Counter({"completed": one.tally.completed})
                missing.update({str(why): count for why, count in one.tally.rejected.items()})
                missing.subtract({why: count for (name, why), count in self.told.items() if name == model})
                undelivered = self.sent[model] - self.received[model]
                if one.tally.open:
                    found.append(f"{model}: {one.tally.open} without an outcome in the ledger")
                if one.tally.submitted != self.asked[model]:
                    found.append(f"{model}: asked {self.asked[model]}, the ledger has {one.tally.submitted}")
                if min(missing.values(), default=0) < 0 or sum(missing.values()) != unseen[model]:
                    found.append(f"{model}: {unseen[model]} unseen, the ledger has {dict(missing)} more than was told")
                if one.undelivered != undelivered:
                    found.append(f"{model}: {undelivered} never arrived, the ledger has undelivered {one.undelivered}")
            ids = memoryview(self._times_told)[1 : self.total + 1].tobytes()
            if ids.count(0) != sum(unseen.values()) or ids.count(0) + ids.count(1) != self.total:
                found.append(
                    f"of {self.total} requests {ids.count(0)} were told nothing ({sum(unseen.values())} expected), and "
                    f"{self.total - ids.count(0) - ids.count(1)} more than one outcome"
                )
            if self._times_told.count(0) != len(self._times_told) - self.total + sum(unseen.values()):
                found.append("an outcome came for a request that nobody asked")
        return found

    def figures(self) -> list[str]:
        """One line per model, and what is to be said of time."""
        with self._lock:
            lines = [
                f"  {model}: asked {self.asked[model]}; "
                + ", ".join(f"{why} {count}" for (name, why), count in sorted(self.told.items()) if name == model)
                + f"; unseen: given up {self.given_up[model]}, undelivered {self.sent[model] - self.received[model]}"
                for model in sorted(self.asked)
            ]
            return [
                *lines,
                "  a result that was settled in time was read after its deadline by "
                f"{self.late_to_waiters} waiters, at most {self.latest_result_waited_ns / NS_PER_MS:.1f} ms after it, "
                f"and by {self.late_to_listeners} listeners, at most {self.latest_result_heard_ns / NS_PER_MS:.1f} ms",
                "  a rejection was read at most "
                f"{self.latest_word_ns / NS_PER_MS:.1f} ms after the deadline by a waiter, "
                f"{self.latest_unwaited_ns / NS_PER_MS:.1f} ms by a listener",
            ]
