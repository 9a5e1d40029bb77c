"""For which frame, for whom and until when: what `InferenceRuntime.infer(handle, inputs)` has no room to say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from actors.client import check_consumer, check_within_ms
from messages import NS_PER_MS, Clock, MonotonicClock

_MONOTONIC = MonotonicClock()


class FrameScope(NamedTuple):
    """What the calls of one consumer for one frame have in common. Times are CLOCK_MONOTONIC nanoseconds."""

    consumer: str
    frame_id: int
    deadline_ns: int
    captured_ns: int


_SCOPE: ContextVar[FrameScope | None] = ContextVar("frame_scope", default=None)


@contextmanager
def frame_scope(
    consumer: str, frame_id: int, within_ms: float, *, captured_ns: int = 0, clock: Clock = _MONOTONIC
) -> Iterator[FrameScope]:
    """Every call of a supervised runtime in this block is `consumer`'s, for this frame, under one deadline.

    The deadline is `within_ms` milliseconds from here on, however many calls are made; a scope within another one
    never has a later deadline. It is in force in this thread and in the tasks that are started in it, and in no thread
    that is started in it. A runtime that is not supervised does not know of it. `clock` is the runtime's own.

    Raises ValueError for a consumer's name that no recording takes, a `frame_id` below 0, and a `within_ms` that is
    not above 0 and at most ten minutes.
    """
    check_consumer(consumer)
    check_within_ms(within_ms)
    if frame_id < 0:
        raise ValueError(f"frame_id: expected 0 or more, found {frame_id}")
    deadline_ns = clock.monotonic_ns() + round(within_ms * NS_PER_MS)
    around = _SCOPE.get()
    if around is not None:
        deadline_ns = min(deadline_ns, around.deadline_ns)
    scope = FrameScope(consumer, frame_id, deadline_ns, captured_ns)
    token = _SCOPE.set(scope)
    try:
        yield scope
    finally:
        _SCOPE.reset(token)


def current_frame() -> FrameScope | None:
    """The innermost scope around the caller."""
    return _SCOPE.get()
