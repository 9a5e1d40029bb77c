"""Monotonic time, real and virtual."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import NS_PER_S, Clock, MonotonicClock, VirtualClock


def test_the_real_clock_is_the_operating_systems_monotonic_clock() -> None:
    clock: Clock = MonotonicClock()
    before_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    now_ns = clock.monotonic_ns()
    assert before_ns <= now_ns <= time.clock_gettime_ns(time.CLOCK_MONOTONIC)


@given(steps_ns=st.lists(st.integers(0, 2**62)))
def test_the_virtual_clock_moves_by_exactly_what_it_is_told(steps_ns: list[int]) -> None:
    clock = VirtualClock(start_ns=5)
    for step_ns in steps_ns:
        before_ns = clock.monotonic_ns()
        assert clock.advance_ns(step_ns) == before_ns + step_ns == clock.monotonic_ns()
    assert clock.monotonic_ns() == 5 + sum(steps_ns)


def test_the_virtual_clock_does_not_start_at_zero_which_messages_use_for_unknown() -> None:
    assert VirtualClock().monotonic_ns() == NS_PER_S


def test_milliseconds_may_be_fractions() -> None:
    assert VirtualClock(0).advance_ms(0.25) == 250_000


def test_time_never_goes_back() -> None:
    clock = VirtualClock()
    with pytest.raises(ValueError, match="duration_ns must be >= 0, got -1"):
        clock.advance_ns(-1)
    assert clock.monotonic_ns() == NS_PER_S
