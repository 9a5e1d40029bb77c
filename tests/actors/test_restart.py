"""The tables: what a fault costs, what heals it, and when an engine comes back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.restart import (
    CLEAN_RECORD,
    REMEDIES,
    Death,
    EngineRecord,
    Quarantine,
    RestartAfter,
    RestartPolicy,
    Scope,
    begin_probation,
    judge_death,
    keeps_module_from_ns,
    scope_of,
)
from messages import FAULT_CLASSES, NS_PER_MS, NS_PER_S, FaultClass

POLICY = RestartPolicy(
    max_restarts=3,
    window_ns=10 * NS_PER_S,
    first_delay_ns=20 * NS_PER_MS,
    max_delay_ns=NS_PER_S,
    probation_after_ns=60 * NS_PER_S,
    max_probation_after_ns=200 * NS_PER_S,
)


def decide(
    times_ns: list[int], fault: FaultClass = "engine_fault", policy: RestartPolicy = POLICY, chance: float = 0.0
) -> list[RestartAfter | Quarantine]:
    """What each of these deaths of one engine leads to."""
    decisions: list[RestartAfter | Quarantine] = []
    record = CLEAN_RECORD
    born_ns = -1
    for at_ns in times_ns:
        decision, record = judge_death(policy, record, Death(at_ns, fault, at_ns - born_ns), chance)
        born_ns = at_ns
        decisions.append(decision)
    return decisions


def test_every_class_of_faults_has_its_remedy_and_no_other_is_there() -> None:
    assert set(REMEDIES) == set(FAULT_CLASSES)


@pytest.mark.parametrize(
    ("fault", "scopes"),
    [
        ("bad_input", ["request"] * 6),
        ("transient_fault", ["request"] * 3 + ["engine"] * 3),
        ("out_of_memory", ["request"] + ["engine"] * 5),
        ("engine_fault", ["engine"] * 6),
        ("context_fault", ["device"] * 6),
        ("device_fault", ["process"] * 6),
        ("hang", ["process"] * 6),
        ("corrupt_engine", ["engine"] * 6),
        ("programming_error", ["engine"] * 6),
    ],
)
def test_what_goes_down_with_a_fault_follows_from_its_class_and_its_count(
    fault: FaultClass, scopes: list[Scope]
) -> None:
    assert [scope_of(fault, in_a_row) for in_a_row in range(1, 7)] == scopes


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("bad_input", "invalid_input"),
        ("out_of_memory", "out_of_memory"),
        *[(fault, "inference_error") for fault in FAULT_CLASSES if fault not in {"bad_input", "out_of_memory"}],
    ],
)
def test_a_request_is_told_what_kind_of_fault_it_met(fault: FaultClass, reason: str) -> None:
    assert REMEDIES[fault].reason == reason


def test_only_a_plain_engine_fault_leaves_what_was_verified_beyond_suspicion() -> None:
    assert [fault for fault in FAULT_CLASSES if REMEDIES[fault].keeps_module] == ["engine_fault"]


def test_delays_double_up_to_the_cap_and_the_limit_quarantines() -> None:
    assert decide([1, 2, 3, 4]) == [
        RestartAfter(20 * NS_PER_MS, 1),
        RestartAfter(40 * NS_PER_MS, 2),
        RestartAfter(80 * NS_PER_MS, 3),
        Quarantine("4 failures within 10 s; 3 allowed", 60 * NS_PER_S),
    ]
    many = RestartPolicy(max_restarts=20, first_delay_ns=NS_PER_MS, max_delay_ns=30 * NS_PER_MS, jitter_share=0)
    delays = [each.delay_ns for each in decide(list(range(20)), policy=many) if isinstance(each, RestartAfter)]
    assert delays[:5] == [each * NS_PER_MS for each in (1, 2, 4, 8, 16)]
    assert set(delays[5:]) == {30 * NS_PER_MS}


def test_a_limit_of_no_restarts_quarantines_the_first_death() -> None:
    assert isinstance(decide([1], policy=RestartPolicy(max_restarts=0))[0], Quarantine)


def test_a_quiet_window_forgets_old_deaths() -> None:
    assert decide([0, 1, 2, 20 * NS_PER_S])[-1] == RestartAfter(20 * NS_PER_MS, 1)


def test_a_programming_error_is_restarted_once_and_then_quarantined() -> None:
    first, second = decide([1, 2], "programming_error")
    assert first == RestartAfter(20 * NS_PER_MS, 1)
    assert second == Quarantine("2 times programming_error within 10 s; 1 allowed", 60 * NS_PER_S)


def test_a_corrupt_engine_is_quarantined_for_good_at_once() -> None:
    assert decide([1], "corrupt_engine") == [
        Quarantine("corrupt_engine: starting it again cannot help", 0),
    ]


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 3))
def test_jitter_only_shortens_a_delay_and_by_no_more_than_its_share(chance: float, deaths: int) -> None:
    (plain, jittered) = (decide(list(range(deaths)), chance=each)[-1] for each in (0.0, chance))
    assert isinstance(plain, RestartAfter)
    assert isinstance(jittered, RestartAfter)
    assert plain.delay_ns * 0.75 <= jittered.delay_ns <= plain.delay_ns


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_jitter_that_is_no_share_is_a_mistake(share: float) -> None:
    with pytest.raises(ValueError, match="jitter_share must be between 0 and 1"):
        RestartPolicy(jitter_share=share)


# Probation.


def quarantined(policy: RestartPolicy = POLICY) -> EngineRecord:
    record = CLEAN_RECORD
    for at_ns in range(policy.max_restarts + 1):
        _, record = judge_death(policy, record, Death(at_ns, "engine_fault"), 0.0)
    return record


def test_an_engine_that_dies_on_probation_waits_twice_as_long_for_the_next_one_up_to_the_cap() -> None:
    record, now_ns, waits_s = quarantined(), 0, []
    for _ in range(4):
        now_ns += 60 * NS_PER_S
        record = begin_probation(record)
        decision, record = judge_death(POLICY, record, Death(now_ns + NS_PER_S, "engine_fault", NS_PER_S), 0.0)
        assert isinstance(decision, Quarantine)
        assert decision.detail == "failed again within 10 s of its probation"
        waits_s.append(decision.probation_in_ns // NS_PER_S)
    assert waits_s == [120, 200, 200, 200]


def test_an_engine_that_outlives_its_probation_has_a_clean_record() -> None:
    record = begin_probation(quarantined())
    decision, record = judge_death(POLICY, record, Death(71 * NS_PER_S, "engine_fault", 11 * NS_PER_S), 0.0)
    assert decision == RestartAfter(20 * NS_PER_MS, 1)
    assert record.quarantines == 0


def test_a_policy_may_do_without_probation() -> None:
    policy = RestartPolicy(max_restarts=0, probation_after_ns=0)
    decision, _ = judge_death(policy, CLEAN_RECORD, Death(1, "engine_fault"), 0.0)
    assert isinstance(decision, Quarantine)
    assert decision.probation_in_ns == 0


def test_a_trial_whose_load_takes_long_to_fail_was_not_outlived() -> None:
    decision, _ = judge_death(POLICY, begin_probation(quarantined()), Death(900 * NS_PER_S, "engine_fault"), 0.0)
    assert isinstance(decision, Quarantine)
    assert decision.probation_in_ns == 120 * NS_PER_S


def test_loads_that_take_longer_to_fail_than_the_window_are_given_up_all_the_same() -> None:
    record, decisions = CLEAN_RECORD, []
    for attempt in range(4):
        decision, record = judge_death(POLICY, record, Death(attempt * 30 * NS_PER_S, "engine_fault"), 0.0)
        decisions.append(decision)
    assert [type(each) for each in decisions] == [RestartAfter] * 3 + [Quarantine]
    assert decisions[-1] == Quarantine("4 failures without a recovery; 3 allowed", 60 * NS_PER_S)


# What is kept for the next start.


def test_only_the_first_death_within_the_window_may_start_from_what_was_kept() -> None:
    assert keeps_module_from_ns(POLICY, CLEAN_RECORD) == 0
    _, record = judge_death(POLICY, CLEAN_RECORD, Death(1, "engine_fault"), 0.0)
    assert keeps_module_from_ns(POLICY, record) == 10 * NS_PER_S + 2
    assert keeps_module_from_ns(RestartPolicy(max_restarts=0), CLEAN_RECORD) is None


def test_an_engine_on_probation_is_read_and_verified_anew() -> None:
    assert keeps_module_from_ns(POLICY, begin_probation(quarantined())) is None


# For all histories.


@given(
    st.lists(st.tuples(st.integers(0, 60 * NS_PER_S), st.sampled_from(FAULT_CLASSES)), min_size=1, max_size=30),
    st.floats(0, 1, exclude_max=True),
)
def test_no_history_restarts_more_often_than_the_policy_allows(
    history: list[tuple[int, FaultClass]], chance: float
) -> None:
    record = CLEAN_RECORD
    restarts_ns: list[int] = []
    for at_ns, fault in sorted(history, key=lambda death: death[0]):
        decision, record = judge_death(POLICY, record, Death(at_ns, fault), chance)
        if isinstance(decision, RestartAfter):
            assert 0 < decision.delay_ns <= POLICY.max_delay_ns
            restarts_ns.append(at_ns)
        assert len(record.deaths) <= POLICY.max_restarts + 1, "the record is bounded"
    for first_ns in restarts_ns:
        within = [each for each in restarts_ns if first_ns <= each <= first_ns + POLICY.window_ns]
        assert len(within) <= POLICY.max_restarts


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=12))
def test_each_quarantine_waits_at_least_as_long_as_the_one_before(lives_ns: list[int]) -> None:
    record, now_ns, waits_ns = quarantined(), 10**9, [POLICY.probation_after_ns]
    for life_ns in lives_ns:
        now_ns += waits_ns[-1]
        record = begin_probation(record)
        now_ns += life_ns
        decision, record = judge_death(POLICY, record, Death(now_ns, "engine_fault", life_ns), 0.0)
        if isinstance(decision, RestartAfter):
            break
        waits_ns.append(decision.probation_in_ns)
    assert all(earlier <= later for earlier, later in pairwise(waits_ns))
