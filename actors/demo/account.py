"""What the recordings of both lives say: the sum of every model, and how fast the flight came back from the kill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from messages import (
    NS_PER_MS,
    AllEnginesLoaded,
    ConsumerReported,
    EngineDied,
    EngineLoaded,
    FlightOpened,
    Infer,
    InferCompleted,
    ThrottleEntered,
    ThrottleLeft,
    WireMessage,
)
from telemetry import ModelRecord, RecordedMessage, Spread, tally_flight

MessageT = TypeVar("MessageT", bound=WireMessage)


class ConsumerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One consumer's own account of its frames.

    `asks` is whether it asked any engine for anything: C4 does not. `back_ms` is from the kill to its next good frame
    for which an engine worked: a frame on which it asked for nothing is good too, but says nothing of a recovery.
    """

    good: int
    degraded: int
    asks: bool
    back_ms: float | None


class FlightAccount(msgspec.Struct, frozen=True, kw_only=True):
    """The whole flight. Times after the kill in milliseconds, None where the event never came."""

    models: dict[str, ModelRecord]
    consumers: dict[str, ConsumerRecord]
    lives: int
    throttles_entered: int
    throttles_left: int
    engines_died: dict[str, str]
    loaded_in_order: list[str]
    kill_to_first_outcome_ms: float | None
    kill_to_good_frame_ms: float | None
    kill_to_all_loaded_ms: float | None
    problems: list[str]

    @property
    def holds(self) -> bool:
        return not self.problems


def account_for(
    lives: Sequence[Sequence[RecordedMessage]], killed_at_ns: int, *, crash_planned: bool = True
) -> FlightAccount:
    """Pure. `lives[0]` ended with the kill; the last one is the recovery."""
    last = lives[-1]
    models = tally_flight(lives)
    opened = [message for life in lives for _, message in _each(life, FlightOpened)]
    consumers = _consumers(lives, killed_at_ns)
    everything = [recorded for life in lives for recorded in life]
    account = FlightAccount(
        models=models,
        consumers=consumers,
        lives=len(opened),
        throttles_entered=sum(1 for _ in _each(everything, ThrottleEntered)),
        throttles_left=sum(1 for _ in _each(everything, ThrottleLeft)),
        engines_died={message.model: message.detail for _, message in _each(everything, EngineDied)},
        loaded_in_order=[message.model for _, message in _each(last, EngineLoaded)],
        kill_to_first_outcome_ms=_since(killed_at_ns, _first(last, InferCompleted)),
        kill_to_good_frame_ms=min(
            (each.back_ms for each in consumers.values() if each.back_ms is not None), default=None
        ),
        kill_to_all_loaded_ms=_since(killed_at_ns, _first(last, AllEnginesLoaded)),
        problems=[],
    )
    return msgspec.structs.replace(
        account, problems=list(_problems(account, tally_flight([last]), crash_planned=crash_planned))
    )


def _problems(account: FlightAccount, last_life: dict[str, ModelRecord], *, crash_planned: bool) -> Iterator[str]:
    """What a reader should not have to find out for himself."""
    for row in account.models.values():
        if not row.conserved:
            yield f"{row.model}: submitted is not completed + rejected + lost"
    for row in last_life.values():
        if row.lost:
            yield f"{row.model}: {row.lost} requests of the last life have no outcome, though nothing killed it"
    if account.lives < 2:
        yield "the flight was not recovered: only one life was recorded"
    if account.kill_to_all_loaded_ms is None:
        yield "not all engines came back after the kill"
    if account.kill_to_good_frame_ms is None:
        yield "no consumer had a good frame after the kill"
    if not account.throttles_entered or not account.throttles_left:
        yield "no throttle was seen to enter and leave"
    crashed = bool(account.engines_died) and sum(row.restarts for row in account.models.values()) > 0
    if crash_planned and not crashed:
        yield "no engine crashed and came back"


def _consumers(lives: Sequence[Sequence[RecordedMessage]], killed_at_ns: int) -> dict[str, ConsumerRecord]:
    records: dict[str, ConsumerRecord] = {}
    asking = {request.consumer for life in lives for _, request in _each(life, Infer)}
    served = {(outcome.consumer, outcome.frame_id) for _, outcome in _each(lives[-1], InferCompleted)}
    for number, life in enumerate(lives):
        for at_ns, report in _each(life, ConsumerReported):
            name = report.consumer
            known = records.get(name) or ConsumerRecord(good=0, degraded=0, asks=name in asking, back_ms=None)
            back_ms = known.back_ms
            recovered = number == len(lives) - 1 and (name, report.frame_id) in served
            if back_ms is None and report.good and recovered:
                back_ms = (at_ns - killed_at_ns) / NS_PER_MS
            records[name] = msgspec.structs.replace(
                known, good=known.good + report.good, degraded=known.degraded + (not report.good), back_ms=back_ms
            )
    return records


def _each(life: Sequence[RecordedMessage], kind: type[MessageT]) -> Iterator[tuple[int, MessageT]]:
    return ((each.recorded_at_ns, each.message) for each in life if isinstance(each.message, kind))


def _first(life: Sequence[RecordedMessage], kind: type[WireMessage]) -> int | None:
    return next((at_ns for at_ns, _ in _each(life, kind)), None)


def _since(killed_at_ns: int, at_ns: int | None) -> float | None:
    return None if at_ns is None else (at_ns - killed_at_ns) / NS_PER_MS


def print_account(account: FlightAccount, console: Console) -> None:
    """The table that the demonstration ends with."""
    counts = Table(title="every request has one outcome, or was lost in the kill", title_justify="left")
    times = Table(title="milliseconds in the queue and at work", title_justify="left")
    for heading in ("model", "submitted", "completed", "rejected by reason", "lost", "restarts"):
        counts.add_column(heading, justify="left" if heading in {"model", "rejected by reason"} else "right")
    for heading in ("model", "queue p50", "p99", "max", "run p50", "p99", "max"):
        times.add_column(heading, justify="left" if heading == "model" else "right")
    for row in account.models.values():
        rejected = "\n".join(f"{count} {reason}" for reason, count in sorted(row.rejected.items()))
        counts.add_row(
            escape(row.model), str(row.submitted), str(row.completed), rejected or "0", str(row.lost), str(row.restarts)
        )
        times.add_row(escape(row.model), *_spread(row.queue), *_spread(row.run))
    console.print(counts, times)
    for consumer, record in account.consumers.items():
        back = f"good again {_ms(record.back_ms)} after the kill" if record.asks else "asks no engine"
        console.print(f"{consumer}: {record.good} good frames, {record.degraded} degraded; {back}")
    for detail in account.engines_died.values():
        console.print(f"crashed and restarted: {detail}", markup=False, soft_wrap=True)
    console.print(f"throttle entered {account.throttles_entered} times, left {account.throttles_left} times")
    console.print(
        f"after the kill: first outcome {_ms(account.kill_to_first_outcome_ms)}, a consumer's next good frame "
        f"{_ms(account.kill_to_good_frame_ms)}, all engines loaded {_ms(account.kill_to_all_loaded_ms)} "
        f"(in order: {', '.join(account.loaded_in_order)})",
        soft_wrap=True,
    )
    for problem in account.problems:
        console.print(f"PROBLEM {problem}", style="red", markup=False)
    if account.holds:
        console.print("submitted = completed + rejected + lost for every model; all engines are back", style="green")


def _spread(spread: Spread) -> tuple[str, str, str]:
    return f"{spread.p50_ms:.1f}", f"{spread.p99_ms:.1f}", f"{spread.max_ms:.1f}"


def _ms(duration_ms: float | None) -> str:
    return "never" if duration_ms is None else f"{duration_ms:.0f} ms"
