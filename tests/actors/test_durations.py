"""Durations in fixed memory, and what may be said of them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.durations import BOUNDS_NS, DurationHistogram
from actors.ledger import Ledger
from actors.pending import Pending
from messages import NS_PER_S, Infer, InferCompleted, VirtualClock

CLOCK = VirtualClock()

DURATIONS_NS = st.one_of(st.integers(0, 10**6), st.integers(0, 10**10), st.integers(0, 10**15))


def histogram_of(durations_ns: list[int]) -> DurationHistogram:
    ledger = Ledger(["vpr"])
    for run_ns in durations_ns:
        count_run(ledger, run_ns)
    return ledger.statistics()["vpr"].run


def count_run(ledger: Ledger, run_ns: int) -> None:
    asked = Infer("vpr", {}, "c2_vpr", 1, 10**18, 1)
    pending = Pending(asked, ledger, CLOCK)
    ledger.count_submitted(pending, asked)
    pending.settle(InferCompleted("vpr", "c2_vpr", 1, 1, {}, generation=1, queued_ns=0, run_ns=run_ns))


def test_the_buckets_reach_from_fifty_microseconds_past_a_minute() -> None:
    assert BOUNDS_NS[0] == 50_000
    assert BOUNDS_NS[-2] < 60 * NS_PER_S <= BOUNDS_NS[-1]
    steps = [upper / lower for lower, upper in pairwise(BOUNDS_NS)]
    assert steps == pytest.approx([math.sqrt(2)] * len(steps), rel=1e-4)


@given(st.lists(DURATIONS_NS, min_size=1), st.floats(0.001, 1.0))
def test_a_quantile_is_never_too_low_and_too_high_by_the_square_root_of_two_at_most(
    durations_ns: list[int], share: float
) -> None:
    exact_ns = sorted(durations_ns)[max(0, math.ceil(share * len(durations_ns)) - 1)]
    quantile_ns = histogram_of(durations_ns).quantile_ns(share)
    assert quantile_ns is not None
    assert exact_ns <= quantile_ns <= max(durations_ns)
    if exact_ns <= BOUNDS_NS[-1]:
        assert quantile_ns <= max(BOUNDS_NS[0], exact_ns * math.sqrt(2) + 1)


@given(st.lists(DURATIONS_NS))
def test_every_duration_is_counted_once_and_the_longest_is_exact(durations_ns: list[int]) -> None:
    histogram = histogram_of(durations_ns)
    assert histogram.count == len(durations_ns)
    assert histogram.max_ns == max(durations_ns, default=0)
    assert len(histogram.counts) == len(BOUNDS_NS) + 1


def test_nothing_measured_has_no_quantile() -> None:
    assert DurationHistogram().quantile_ns(0.99) is None


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01, math.nan])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="expected a share"):
        histogram_of([1]).quantile_ns(share)


def test_a_histogram_is_a_copy() -> None:
    ledger = Ledger(["vpr"])
    before = ledger.statistics()["vpr"].run
    count_run(ledger, 1)
    assert (before.count, ledger.statistics()["vpr"].run.count) == (0, 1)
