"""Whether a request can be answered in time, and what is learnt from each run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.admission import admission_refusal, next_run_estimate_ns
from messages import NS_PER_MS

RUN_NS = 30 * NS_PER_MS
runs = st.integers(1, 10**12)


def refusal(left_ms: float, *, ahead: int = 0, running_for_ms: float | None = None, run_ms: float | None = 30) -> str:
    detail = admission_refusal(
        now_ns=10**9,
        deadline_ns=10**9 + round(left_ms * NS_PER_MS),
        ahead=ahead,
        running_for_ns=None if running_for_ms is None else round(running_for_ms * NS_PER_MS),
        run_estimate_ns=None if run_ms is None else round(run_ms * NS_PER_MS),
    )
    return detail or ""


@pytest.mark.parametrize(
    ("left_ms", "ahead", "running_for_ms", "taken"),
    [
        (390, 12, None, True),
        (389, 12, None, False),
        (60, 0, 0, True),
        (59, 0, 0, False),
        (50, 0, 10, True),
        (49, 0, 10, False),
        (30, 0, 500, True),  # it is overdue to return: any moment
        (29, 0, 500, False),
        (1, 0, None, True),  # an idle engine
    ],
)
def test_what_is_ahead_what_runs_and_its_own_run_must_fit(
    left_ms: float, ahead: int, running_for_ms: float | None, taken: bool
) -> None:
    assert (refusal(left_ms, ahead=ahead, running_for_ms=running_for_ms) == "") is taken


def test_a_refusal_names_the_backlog_the_estimate_and_the_time_left() -> None:
    assert refusal(100, ahead=12, running_for_ms=10) == (
        "cannot be met: 12 ahead and one has run 10.0 ms, at 30.0 ms each it needs 410.0 ms; 100.0 ms are left"
    )


def test_a_deadline_that_has_passed_is_refused_by_an_idle_engine_too() -> None:
    assert "had passed 2.0 ms before" in refusal(-2, run_ms=None)
    assert refusal(0)


@given(st.integers(0, 5000), st.none() | st.floats(0, 10**6))
def test_before_the_first_run_everything_is_taken(ahead: int, running_for_ms: float | None) -> None:
    assert refusal(0.001, ahead=ahead, running_for_ms=running_for_ms, run_ms=None) == ""


@given(st.floats(0.001, 10**6), st.floats(0.001, 10**9))
def test_an_idle_engine_is_given_every_request_however_high_the_estimate(left_ms: float, run_ms: float) -> None:
    assert refusal(left_ms, run_ms=run_ms) == ""


@given(st.lists(runs, min_size=1))
def test_the_estimate_is_the_least_run_with_a_quarter_more_for_each_one_since(taken_ns: list[int]) -> None:
    estimate_ns: int | None = None
    for run_ns in taken_ns:
        estimate_ns = next_run_estimate_ns(estimate_ns, run_ns)
    assert estimate_ns is not None
    assert estimate_ns <= taken_ns[-1], "a faster run is believed at once"
    expected = min(run_ns * 1.25**age for age, run_ns in enumerate(reversed(taken_ns)))
    assert 0.999 * expected - 10 <= estimate_ns <= 1.001 * expected + 5 * len(taken_ns) + 1.25 ** len(taken_ns)


def test_a_hiccup_lifts_the_estimate_by_a_quarter_and_the_next_run_takes_that_back() -> None:
    lifted_ns = next_run_estimate_ns(RUN_NS, 50 * RUN_NS)
    assert lifted_ns == RUN_NS * 1.25 + 1
    assert next_run_estimate_ns(lifted_ns, RUN_NS) == RUN_NS


def test_a_throttle_is_followed_within_four_runs() -> None:
    estimate_ns = RUN_NS
    for _ in range(4):
        estimate_ns = next_run_estimate_ns(estimate_ns, 2 * RUN_NS)
    assert estimate_ns == 2 * RUN_NS
