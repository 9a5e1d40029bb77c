"""What the demonstration concludes from the recordings, and that it does not conclude it from less."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from actors.demo.account import account_for, print_account
from messages import (
    NS_PER_MS,
    AllEnginesLoaded,
    ConsumerReported,
    EngineDied,
    EngineLoaded,
    FlightOpened,
    Infer,
    InferCompleted,
    TensorSpec,
    ThermalState,
    ThrottleEntered,
    ThrottleLeft,
    WireMessage,
)
from telemetry import RecordedMessage

KILLED_AT_NS = 1_000 * NS_PER_MS
NO_TENSORS: dict[str, TensorSpec] = {}


def opened(life: int) -> FlightOpened:
    return FlightOpened("demo-000001", life, 1, "0" * 64, "boot", 1, 0)


def at(milliseconds: int, message: WireMessage) -> RecordedMessage:
    return RecordedMessage(milliseconds * NS_PER_MS, message)


def asked(request_id: int, frame_id: int = 1) -> Infer[TensorSpec]:
    return Infer("vpr", NO_TENSORS, "c2_vpr", frame_id, 10, request_id)


def answered(request_id: int, frame_id: int = 1) -> InferCompleted[TensorSpec]:
    return InferCompleted("vpr", "c2_vpr", frame_id, request_id, NO_TENSORS, 1, NS_PER_MS, 7 * NS_PER_MS)


FIRST_LIFE = [
    at(0, opened(1)),
    at(1, EngineLoaded("vpr", 1, 5)),
    at(2, AllEnginesLoaded(("vpr",), 2)),
    at(100, asked(1)),
    at(110, answered(1)),
    at(200, ThrottleEntered(ThermalState())),
    at(300, EngineDied("vpr", 1, "index out of range")),
    at(320, EngineLoaded("vpr", 2, 5)),
    at(400, ThrottleLeft(ThermalState(), 5)),
    at(990, asked(2)),
]
SECOND_LIFE = [
    at(1200, opened(2)),
    at(1300, EngineLoaded("vpr", 1, 5)),
    at(1305, ConsumerReported("c2_vpr", 1_000_000, good=True)),
    at(1310, asked(1, 1_000_001)),
    at(1320, answered(1, 1_000_001)),
    at(1330, ConsumerReported("c2_vpr", 1_000_001, good=True)),
    at(1400, AllEnginesLoaded(("vpr",), 2)),
]


def test_a_flight_that_came_back_holds_and_its_times_count_from_the_kill() -> None:
    account = account_for([FIRST_LIFE, SECOND_LIFE], KILLED_AT_NS)
    assert account.problems == []
    assert account.holds
    row = account.models["vpr"]
    assert (row.submitted, row.completed, row.lost, row.restarts) == (3, 2, 1, 1)
    assert account.kill_to_first_outcome_ms == 320
    assert account.kill_to_good_frame_ms == 330
    assert account.kill_to_all_loaded_ms == 400
    assert account.loaded_in_order == ["vpr"]


@pytest.mark.parametrize(
    ("missing", "problem"),
    [
        (AllEnginesLoaded, "not all engines came back"),
        (ConsumerReported, "no consumer had a good frame"),
        (ThrottleLeft, "no throttle was seen"),
        (ThrottleEntered, "no throttle was seen"),
        (EngineDied, "no engine crashed"),
    ],
)
def test_each_thing_that_did_not_happen_is_a_problem(missing: type[WireMessage], problem: str) -> None:
    lives = [[line for line in life if not isinstance(line.message, missing)] for life in (FIRST_LIFE, SECOND_LIFE)]
    account = account_for(lives, KILLED_AT_NS)
    assert not account.holds
    assert any(problem in each for each in account.problems)


def test_a_crash_that_was_not_planned_is_not_missed() -> None:
    lives = [[line for line in life if not isinstance(line.message, EngineDied)] for life in (FIRST_LIFE, SECOND_LIFE)]
    assert account_for(lives, KILLED_AT_NS, crash_planned=False).holds


def test_a_request_lost_without_a_kill_is_a_problem() -> None:
    account = account_for([FIRST_LIFE, [*SECOND_LIFE, at(1500, asked(9))]], KILLED_AT_NS)
    assert any("nothing killed it" in each for each in account.problems)


def test_an_outcome_counted_twice_is_a_problem() -> None:
    account = account_for([[*FIRST_LIFE, at(120, answered(1))], SECOND_LIFE], KILLED_AT_NS)
    assert any("submitted is not" in each for each in account.problems)


def test_one_life_alone_is_no_recovery() -> None:
    assert not account_for([FIRST_LIFE], KILLED_AT_NS).holds


def test_the_table_fits_a_person() -> None:
    page = io.StringIO()
    pose = at(1340, ConsumerReported("c4_pose", 1_000_001, good=True))
    print_account(account_for([FIRST_LIFE, [*SECOND_LIFE, pose]], KILLED_AT_NS), Console(file=page, width=120))
    text = page.getvalue()
    assert "c4_pose: 1 good frames, 0 degraded; asks no engine" in text
    assert "c2_vpr: 2 good frames, 0 degraded; good again 330 ms after the kill" in text
    for wanted in ("vpr", "submitted", "320 ms", "330 ms", "400 ms", "index out of range"):
        assert wanted in text
