"""C4: the covariance mode follows the heat of the board, and is the steady one wherever that is not known."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from loguru import logger

from actors.perception import PoseEstimation, covariance_mode
from messages import TelemetryUnavailableError, ThermalState
from tests.actors.perception.scripted import frame

COOL, HOT = ThermalState(gpu_temp_c=60.0), ThermalState(gpu_temp_c=101.0, thermal_throttle_active=True)
LOST = ThermalState(source_lost=True)


class Board:
    """A runtime of which only the heat is asked; one state after the other, the last one for ever."""

    def __init__(self, *states: ThermalState | TelemetryUnavailableError) -> None:
        self._states = list(states)
        self.reads = 0

    def thermal_state(self) -> ThermalState:
        self.reads += 1
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        if isinstance(state, TelemetryUnavailableError):
            raise state
        return state


@pytest.fixture
def logged() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message).rstrip()), format="{level} {message}", level="INFO")
    yield lines
    logger.remove(sink)


def modes(board: Board, times_ms: list[int]) -> list[str]:
    consumer = PoseEstimation(board)  # type: ignore[arg-type]  # of a runtime it takes the heat and nothing else
    seen: list[str] = []
    for frame_id, captured_ms in enumerate(times_ms):
        assert consumer.on_frame(frame(frame_id, captured_ms=captured_ms)) is None
        seen.append(consumer.covariance_mode)
    return seen


@pytest.mark.parametrize(("throttled", "lost"), [*product([False, True], repeat=2)])
def test_only_a_throttle_that_is_seen_switches_the_mode(throttled: bool, lost: bool) -> None:
    state = ThermalState(thermal_throttle_active=throttled, source_lost=lost)
    assert covariance_mode(state) == ("throttled" if throttled and not lost else "steady_state")


def test_the_mode_follows_the_heat_and_every_frame_is_good() -> None:
    board = Board(COOL, HOT, HOT, COOL)
    assert modes(board, [0, 1000, 2000, 3000]) == ["steady_state", "throttled", "throttled", "steady_state"]


def test_the_heat_is_asked_for_at_most_once_a_second_of_frame_time() -> None:
    board = Board(COOL, HOT)
    assert modes(board, [0, 333, 667, 999, 1000, 1333]) == ["steady_state"] * 4 + ["throttled"] * 2
    assert board.reads == 2


def test_frame_time_that_goes_back_as_in_a_replay_that_begins_again_asks_at_once() -> None:
    board = Board(COOL, HOT)
    assert modes(board, [50_000, 0]) == ["steady_state", "throttled"]


def test_telemetry_that_is_lost_under_a_throttle_brings_the_steady_path_back() -> None:
    assert modes(Board(HOT, LOST, HOT), [0, 1000, 2000]) == ["throttled", "steady_state", "throttled"]


def test_a_raw_runtime_without_telemetry_leaves_it_on_the_steady_path() -> None:
    board = Board(HOT, TelemetryUnavailableError("stale"), HOT)
    assert modes(board, [0, 1000, 2000]) == ["throttled", "steady_state", "throttled"]


def test_without_c7_as_in_a_replay_the_path_is_the_steady_one() -> None:
    consumer = PoseEstimation(None)
    assert consumer.on_frame(frame(0)) is None
    assert consumer.covariance_mode == "steady_state"


def test_what_is_no_loss_of_telemetry_is_not_swallowed() -> None:
    class Broken:
        def thermal_state(self) -> ThermalState:
            raise RuntimeError("no such sensor")

    with pytest.raises(RuntimeError):
        PoseEstimation(Broken()).on_frame(frame(0))  # type: ignore[arg-type]


def test_a_switch_is_logged_once_with_its_frame(logged: list[str]) -> None:
    modes(Board(COOL, HOT, HOT, LOST), [0, 1000, 2000, 3000])
    assert logged == [
        "INFO C4 covariance=throttled frame=1 gpu_temp_c=101.0 source_lost=False",
        "INFO C4 covariance=steady_state frame=3 gpu_temp_c=nan source_lost=True",
    ]
