"""The two tables: what a fault costs, and when an engine comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.restart import Quarantine, RestartAfter, RestartPolicy, Verdict, decide_restart, judge
from messages import NS_PER_MS, NS_PER_S, InferenceError, InvalidInputError, OutOfMemoryError

POLICY = RestartPolicy(max_restarts=3, window_ns=10 * NS_PER_S, first_delay_ns=20 * NS_PER_MS, max_delay_ns=NS_PER_S)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (InvalidInputError("x"), Verdict("invalid_input", True)),
        (OutOfMemoryError("x"), Verdict("out_of_memory", True)),
        (InferenceError("716"), Verdict("inference_error", False)),
        (ValueError("a programming error"), Verdict("inference_error", False)),
        (SystemExit(3), Verdict("inference_error", False)),
        (MemoryError(), Verdict("inference_error", False)),
    ],
)
def test_each_fault_has_its_price(error: BaseException, verdict: Verdict) -> None:
    assert judge(error) == verdict


def test_delays_double_and_the_limit_quarantines() -> None:
    deaths = tuple(range(1, 5))
    decisions = [decide_restart(POLICY, deaths[:count], 5) for count in range(1, 5)]
    assert decisions[:3] == [
        RestartAfter(20 * NS_PER_MS, 1),
        RestartAfter(40 * NS_PER_MS, 2),
        RestartAfter(80 * NS_PER_MS, 3),
    ]
    assert isinstance(decisions[3], Quarantine)


def test_a_quiet_window_forgets_old_deaths() -> None:
    assert decide_restart(POLICY, (0, 1, 2, 20 * NS_PER_S), 20 * NS_PER_S) == RestartAfter(20 * NS_PER_MS, 1)


@given(st.lists(st.integers(0, 60 * NS_PER_S), min_size=1, max_size=30))
def test_no_history_restarts_more_often_than_the_policy_allows(times: list[int]) -> None:
    deaths: tuple[int, ...] = ()
    restarts: list[int] = []
    for now_ns in sorted(times):
        deaths = (*deaths, now_ns)
        if isinstance(decide_restart(POLICY, deaths, now_ns), RestartAfter):
            restarts.append(now_ns)
    for first_ns in restarts:
        within = [each for each in restarts if first_ns <= each <= first_ns + POLICY.window_ns]
        assert len(within) <= POLICY.max_restarts
