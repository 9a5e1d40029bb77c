"""What became of every request of a flight, counted from its recordings alone.

The flight process keeps a ledger of its own; this count shares nothing with it. Requests and outcomes are matched by
their ids, so an outcome that was recorded twice, or for a request that was never made, breaks the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from messages import NS_PER_MS, EngineLoaded, Infer, InferCompleted, InferRejected, RejectReason
from telemetry.recording import RecordedMessage


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds; zeros where nothing was measured. Percentiles are by nearest rank."""

    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


class ModelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One model over all lives. `lost` are the requests without an outcome; `restarts`: loads after a life's first."""

    model: str
    submitted: int
    completed: int
    rejected: dict[RejectReason, int]
    lost: int
    queue: Spread
    run: Spread
    restarts: int

    @property
    def conserved(self) -> bool:
        """Whether submitted = completed + rejected + lost."""
        return self.submitted == self.completed + sum(self.rejected.values()) + self.lost


def tally_flight(lives: Iterable[Sequence[RecordedMessage]]) -> dict[str, ModelRecord]:
    """One row per model, in order of first appearance. Each life is one recording: request ids start anew in each."""
    counts: dict[str, _Counts] = {}
    for life in lives:
        _count_life(life, counts)
    return {model: each.record(model) for model, each in counts.items()}


class _Counts:
    def __init__(self) -> None:
        self.submitted = 0
        self.completed = 0
        self.rejected: dict[RejectReason, int] = {}
        self.lost = 0
        self.queued_ns: list[int] = []
        self.run_ns: list[int] = []
        self.restarts = 0

    def record(self, model: str) -> ModelRecord:
        return ModelRecord(
            model=model,
            submitted=self.submitted,
            completed=self.completed,
            rejected=self.rejected,
            lost=self.lost,
            queue=spread(self.queued_ns),
            run=spread(self.run_ns),
            restarts=self.restarts,
        )


def _count_life(life: Sequence[RecordedMessage], counts: dict[str, _Counts]) -> None:
    open_requests: dict[int, str] = {}
    for recorded in life:
        message = recorded.message
        if not isinstance(message, Infer | InferCompleted | InferRejected | EngineLoaded):
            continue
        row = counts.setdefault(message.model, _Counts())
        match message:
            case Infer():
                row.submitted += 1
                open_requests[message.request_id] = message.model
            case InferCompleted():
                row.completed += 1
                row.queued_ns.append(message.queued_ns)
                row.run_ns.append(message.run_ns)
                open_requests.pop(message.request_id, None)
            case InferRejected():
                row.rejected[message.reason] = row.rejected.get(message.reason, 0) + 1
                open_requests.pop(message.request_id, None)
            case EngineLoaded():
                row.restarts += message.generation > 1
    for model in open_requests.values():
        counts[model].lost += 1


def spread(durations_ns: Sequence[int]) -> Spread:
    """Median, 99th percentile and maximum."""
    if not durations_ns:
        return Spread()
    ordered = sorted(durations_ns)
    return Spread(p50_ms=_rank(ordered, 50), p99_ms=_rank(ordered, 99), max_ms=ordered[-1] / NS_PER_MS)


def _rank(ordered_ns: Sequence[int], percent: int) -> float:
    return ordered_ns[max(0, -(-len(ordered_ns) * percent // 100) - 1)] / NS_PER_MS
