"""Whose place a request takes, decided without a mailbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from actors.shedding import FRAMES_TOTAL, Frame, Place, count_ahead, find_place

NOW_NS = 100


class Asked(NamedTuple):
    deadline_ns: int = 1000
    done: bool = False


LIVE, OVERDUE, SETTLED = Asked(), Asked(NOW_NS), Asked(done=True)


def place(frame_id: int, frames: Mapping[Frame, list[Asked]], consumer: str = "c3") -> Place:
    return find_place((consumer, frame_id), frames, 2, NOW_NS)  # type: ignore[arg-type]


def test_a_newer_frame_takes_the_place_of_the_oldest_whatever_order_they_came_in() -> None:
    assert place(7, {("c3", 6): [LIVE], ("c3", 5): [LIVE]}) == Place(instead_of=("c3", 5))


def test_a_late_request_of_an_older_frame_takes_nobodys_place() -> None:
    assert place(4, {("c3", 5): [LIVE], ("c3", 6): [LIVE]}).full == (
        "newer frames of this consumer are waiting, the oldest is 5"
    )


def test_a_frame_that_is_over_goes_before_one_that_can_be_answered() -> None:
    frames = {("c3", 5): [LIVE], ("c3", 6): [SETTLED, OVERDUE]}
    assert place(7, frames) == place(4, frames) == Place(instead_of=("c3", 6))


def test_a_frame_that_is_partly_over_is_as_good_as_any() -> None:
    assert place(7, {("c3", 5): [LIVE], ("c3", 6): [OVERDUE, LIVE]}) == Place(instead_of=("c3", 5))


def test_where_all_frames_are_taken_one_that_is_over_makes_room_for_any_consumer() -> None:
    frames = {(f"c{index}", 1): [LIVE] for index in range(FRAMES_TOTAL)}
    assert place(1, frames, "late").full
    frames["c9", 1] = [SETTLED]
    assert place(1, frames, "late") == Place(instead_of=("c9", 1))


def test_only_what_will_be_run_first_is_ahead() -> None:
    frames = {("c2", 1): [LIVE, LIVE, OVERDUE], ("c3", 1): [LIVE, SETTLED], ("c3", 2): [LIVE]}
    assert count_ahead(("c3", 1), frames, None, NOW_NS) == 3  # type: ignore[arg-type]
    assert count_ahead(("c3", 3), frames, ("c3", 1), NOW_NS) == 3  # type: ignore[arg-type]
