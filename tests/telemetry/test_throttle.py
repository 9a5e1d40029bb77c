"""The throttle rule: when a throttle begins, when it is over, and when nobody can tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import (
    NS_PER_S,
    TelemetryLost,
    TelemetryRestored,
    ThermalState,
    ThermalTransition,
    ThrottleEntered,
    ThrottleLeft,
    decode_json,
    encode_json,
)
from telemetry import ThermalReading, ThrottleWatch, observe, stale_after_ns

HOT = ThermalReading(cpu_temp_c=90, gpu_temp_c=99.5, gpu_clock_mhz=612, throttled_by=("gpu-throttle-alert",))
WARM = ThermalReading(cpu_temp_c=90, gpu_temp_c=98, gpu_clock_mhz=1020)
COOL = ThermalReading(cpu_temp_c=70, gpu_temp_c=80, gpu_clock_mhz=1020)


class Step(NamedTuple):
    state: ThermalState
    transitions: tuple[ThermalTransition, ...]


def play(samples: Sequence[ThermalReading | None], period_ns: int = NS_PER_S, because: str = "") -> list[Step]:
    watch, steps = ThrottleWatch(), []
    for number, reading in enumerate(samples):
        watch, state, transitions = observe(watch, reading, 7 * NS_PER_S + number * period_ns, because)
        steps.append(Step(state, transitions))
    return steps


def kinds(steps: Sequence[Step]) -> list[list[str]]:
    return [[type(transition).__name__ for transition in step.transitions] for step in steps]


def test_a_cool_board_says_nothing() -> None:
    steps = play([COOL] * 5)
    assert kinds(steps) == [[]] * 5
    assert steps[-1].state == ThermalState(
        cpu_temp_c=70, gpu_temp_c=80, measured_clock_mhz=1020, measured_at=11 * NS_PER_S
    )


def test_a_throttle_begins_with_the_first_flag_and_ends_after_three_clear_samples() -> None:
    steps = play([COOL, HOT, HOT, COOL, COOL, COOL, COOL])
    assert kinds(steps) == [[], ["ThrottleEntered"], [], [], [], ["ThrottleLeft"], []]
    assert [step.state.thermal_throttle_active for step in steps] == [False, True, True, True, True, False, False]
    (left,) = steps[5].transitions
    assert isinstance(left, ThrottleLeft)
    assert left.lasted_ns == 4 * NS_PER_S
    assert left.state == steps[5].state


def test_flags_that_flap_around_the_trip_are_one_throttle() -> None:
    assert kinds(play([HOT, COOL, COOL] * 20)) == [["ThrottleEntered"]] + [[]] * 59


def test_a_board_without_flags_but_near_its_trip_is_not_cool_yet() -> None:
    steps = play([HOT, WARM, WARM, WARM, WARM, COOL])
    assert kinds(steps) == [["ThrottleEntered"], [], [], [], [], ["ThrottleLeft"]]


@pytest.mark.parametrize(("headroom_c", "over"), [(1.9, False), (2.0, True)])
def test_the_boards_own_trip_goes_before_the_default(headroom_c: float, over: bool) -> None:
    clear = ThermalReading(gpu_temp_c=110, headroom_c=headroom_c)
    assert kinds(play([HOT, clear, clear, clear]))[-1] == (["ThrottleLeft"] if over else [])


@pytest.mark.parametrize(("temp_c", "over"), [(97.0, True), (97.1, False)])
def test_without_a_trip_orins_99_degrees_count(temp_c: float, over: bool) -> None:
    clear = ThermalReading(cpu_temp_c=50, gpu_temp_c=temp_c)
    assert kinds(play([HOT, clear, clear, clear]))[-1] == (["ThrottleLeft"] if over else [])


def test_where_no_temperature_is_known_the_flags_decide_alone() -> None:
    blind = ThermalReading()
    assert kinds(play([HOT, blind, blind, blind]))[-1] == ["ThrottleLeft"]


def test_a_hot_board_without_a_flag_has_not_begun_to_throttle() -> None:
    assert kinds(play([ThermalReading(gpu_temp_c=104, gpu_clock_mhz=306)] * 4)) == [[]] * 4


def test_a_missing_sample_is_not_yet_a_lost_board() -> None:
    steps = play([HOT, None, HOT])
    assert kinds(steps) == [["ThrottleEntered"], [], []]
    assert steps[1].state == steps[0].state


def test_a_board_out_of_sight_for_two_and_a_half_seconds_is_lost_and_its_throttle_has_no_end() -> None:
    steps = play([HOT, None, None, None, None, COOL], because="sysfs hung")
    assert kinds(steps) == [["ThrottleEntered"], [], [], ["TelemetryLost"], [], ["TelemetryRestored"]]
    (lost,) = steps[3].transitions
    assert lost == TelemetryLost(steps[0].state, "no sample for 3.0 s; sysfs hung", throttle_was_active=True)
    assert steps[4].state == ThermalState(source_lost=True, measured_at=7 * NS_PER_S)


def test_a_board_that_was_never_seen_is_lost_once() -> None:
    steps = play([None] * 6, because="no such file")
    assert kinds(steps) == [[], [], [], ["TelemetryLost"], [], []]
    assert all(step.state == ThermalState(source_lost=True) for step in steps)


def test_a_throttle_that_is_found_when_sight_returns_begins_anew() -> None:
    steps = play([HOT, None, None, None, HOT])
    assert kinds(steps)[-1] == ["TelemetryRestored", "ThrottleEntered"]


def test_a_gap_between_samples_is_a_loss_even_if_nobody_reported_it() -> None:
    steps = play([HOT, COOL], period_ns=60 * NS_PER_S)
    assert kinds(steps)[1] == ["TelemetryLost", "TelemetryRestored"]
    assert not steps[1].state.thermal_throttle_active


def test_staleness_grows_with_the_period() -> None:
    assert (stale_after_ns(), stale_after_ns(10)) == (2_500_000_000, 25_000_000_000)


temperatures = st.floats(-60, 200) | st.just(math.nan)
readings = st.builds(
    ThermalReading,
    cpu_temp_c=temperatures,
    gpu_temp_c=temperatures,
    gpu_clock_mhz=st.integers(0, 2000),
    throttled_by=st.sampled_from([(), (), ("gpu-throttle-alert",), ("cpufreq-cpu0", "cpufreq-cpu4")]),
    headroom_c=temperatures,
)
histories = st.lists(
    st.tuples(st.none() | readings, st.sampled_from([0, 1, NS_PER_S, 2_500_000_000, 2_500_000_001, 90 * NS_PER_S])),
    max_size=40,
)


@given(histories)
def test_transitions_tell_one_consistent_story_whatever_the_samples(
    history: list[tuple[ThermalReading | None, int]],
) -> None:
    def run() -> list[Step]:
        watch, now_ns, steps = ThrottleWatch(), 5 * NS_PER_S, []
        for reading, pause_ns in history:
            now_ns += pause_ns
            watch, state, transitions = observe(watch, reading, now_ns, "because")
            steps.append(Step(state, transitions))
        return steps

    steps = run()
    throttled = lost = False
    for (reading, _), step in zip(history, steps, strict=True):
        for transition in step.transitions:
            match transition:
                case ThrottleEntered(state=state):
                    assert not throttled
                    assert not lost
                    assert state.throttled_by
                    throttled = True
                case ThrottleLeft(lasted_ns=lasted_ns):
                    assert throttled
                    assert lasted_ns >= 0
                    throttled = False
                case TelemetryLost(throttle_was_active=was_active):
                    assert not lost
                    assert was_active == throttled
                    throttled, lost = False, True
                case TelemetryRestored():
                    assert lost
                    lost = False
            assert decode_json(encode_json(transition)) is not None
        assert step.state.thermal_throttle_active == throttled
        assert not (lost and throttled)
        assert lost <= step.state.source_lost
        if reading is not None:
            assert not step.state.source_lost
            assert throttled or not reading.throttled_by
    assert repr(run()) == repr(steps)
