"""What a fault costs, and when a dead engine is started again: two pure tables, no clock and no thread."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from messages import NS_PER_MS, NS_PER_S, InvalidInputError, OutOfMemoryError, RejectReason


class Verdict(NamedTuple):
    """What the request is told, and whether the engine is trusted with the next frame."""

    reason: RejectReason
    engine_lives: bool


_VERDICTS: tuple[tuple[type[BaseException], Verdict], ...] = (
    (InvalidInputError, Verdict("invalid_input", engine_lives=True)),
    (OutOfMemoryError, Verdict("out_of_memory", engine_lives=True)),
)
"""First match wins. Whatever is not listed, InferenceError and programming errors alike, ends the engine."""

_FAULT = Verdict("inference_error", engine_lives=False)


def judge(error: BaseException) -> Verdict:
    """What an exception out of `runtime.infer` means."""
    for kind, verdict in _VERDICTS:
        if isinstance(error, kind):
            return verdict
    return _FAULT


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """At most `max_restarts` within `window_ns`, each after a delay that doubles up to `max_delay_ns`.

    The first delay is short because at 39 requests a second every 100 ms costs four of them; Erlang's default of one
    restart in 5 s would give an engine up after two faulty frames.
    """

    max_restarts: int = 5
    window_ns: int = 60 * NS_PER_S
    first_delay_ns: int = 20 * NS_PER_MS
    max_delay_ns: int = 5 * NS_PER_S


class RestartAfter(NamedTuple):
    """Start the engine again after this delay; `attempt` counts from 1 within the window."""

    delay_ns: int
    attempt: int


class Quarantine(NamedTuple):
    """Leave the engine down for the rest of this life."""

    detail: str


def decide_restart(policy: RestartPolicy, deaths_ns: tuple[int, ...], now_ns: int) -> RestartAfter | Quarantine:
    """`deaths_ns` are the monotonic times of this engine's deaths, the one being decided included."""
    recent = sum(1 for death_ns in deaths_ns if now_ns - death_ns <= policy.window_ns)
    if recent > policy.max_restarts:
        return Quarantine(f"{recent} failures within {policy.window_ns / NS_PER_S:g} s; {policy.max_restarts} allowed")
    delay_ns = min(policy.first_delay_ns << max(0, recent - 1), policy.max_delay_ns)
    return RestartAfter(delay_ns, recent)
