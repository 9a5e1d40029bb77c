"""Whose place a request takes where there is no room, and what is still to run before it: pure, changes nothing.

Whole frames are shed, the consumer's oldest first, because half a frame's matches are worth nothing. A frame of which
every request is settled or overdue goes before one that can still be answered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple, Protocol

REQUESTS_PER_FRAME = 64
"""One frame's burst is 13 matches; past this a consumer floods."""
FRAMES_TOTAL = 64
"""All consumers together."""

Frame = tuple[str, int]
"""A consumer's name and its frame_id."""


class Waiting(Protocol):
    """What is looked at of a request that waits."""

    deadline_ns: int

    @property
    def done(self) -> bool: ...


class Place(NamedTuple):
    """`full` says why there is no place. Else the frame `instead_of` has to go, where there is one."""

    full: str = ""
    instead_of: Frame | None = None


def find_place(
    frame: Frame, frames: Mapping[Frame, Collection[Waiting]], frames_per_consumer: int, now_ns: int
) -> Place:
    """Where a request of `frame` goes. A late one of an older frame never takes a newer frame's place."""
    burst = frames.get(frame)
    if burst is not None:
        if len(burst) >= REQUESTS_PER_FRAME:
            return Place(full=f"{REQUESTS_PER_FRAME} requests of this frame are waiting")
        return Place()
    waiting = [key for key in frames if key[0] == frame[0]]
    if len(waiting) >= frames_per_consumer:
        over = _first_over(waiting, frames, now_ns)
        if over is not None:
            return Place(instead_of=over)
        oldest = min(waiting)
        if frame < oldest:
            return Place(full=f"newer frames of this consumer are waiting, the oldest is {oldest[1]}")
        return Place(instead_of=oldest)
    if len(frames) >= FRAMES_TOTAL:
        over = _first_over(frames, frames, now_ns)
        if over is None:
            return Place(full=f"{FRAMES_TOTAL} frames of all consumers are waiting")
        return Place(instead_of=over)
    return Place()


def count_ahead(
    frame: Frame, frames: Mapping[Frame, Collection[Waiting]], instead_of: Frame | None, now_ns: int
) -> int:
    """Requests that will be run before the next one of `frame`: not the settled and overdue, which are dropped."""
    ahead = 0
    for key, burst in frames.items():
        if key != instead_of:
            ahead += sum(not _costs_no_run(each, now_ns) for each in burst)
        if key == frame:
            break
    return ahead


def is_over(burst: Iterable[Waiting], now_ns: int) -> bool:
    """Whether nothing of this burst will be run."""
    return all(_costs_no_run(each, now_ns) for each in burst)


def _costs_no_run(request: Waiting, now_ns: int) -> bool:
    return request.done or request.deadline_ns <= now_ns


def _first_over(among: Iterable[Frame], frames: Mapping[Frame, Collection[Waiting]], now_ns: int) -> Frame | None:
    return next((frame for frame in among if is_over(frames[frame], now_ns)), None)
