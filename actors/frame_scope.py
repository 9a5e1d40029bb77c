"""For which frame, for whom and until when: what `InferenceRuntime.infer(handle, inputs)` has no room to say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from operator import index
from typing import NamedTuple, SupportsIndex

from actors.client import check_consumer, check_within_ms
from messages import NS_PER_MS, Clock, MonotonicClock

_MONOTONIC = MonotonicClock()
_COUNTER_MAX = 2**63 - 1
"""What a message's counter holds (`messages.infer.Counter`)."""


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

    Raises ValueError for a consumer's name, a `frame_id` or a `captured_ns` that no recording takes, and a `within_ms`
    that is not above 0 and at most ten minutes; TypeError for a number that is not whole.
    """
    check_consumer(consumer)
    check_within_ms(within_ms)
    frame_id, captured_ns = _counter("frame_id", frame_id), _counter("captured_ns", captured_ns)
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


def _counter(name: str, number: SupportsIndex) -> int:
    """A NumPy integer too, as the plain one that a message carries."""
    plain = index(number)
    if not 0 <= plain <= _COUNTER_MAX:
        raise ValueError(f"{name}: expected 0 or more, and at most {_COUNTER_MAX}, found {plain}")
    return plain


def current_frame() -> FrameScope | None:
    """The innermost scope around the caller."""
    return _SCOPE.get()
