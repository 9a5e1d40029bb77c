"""Whether a request can still be answered in time, and how long a run of its engine takes: pure, no clock, no thread.

Only the engine's own queue is counted. What it may have to wait for the device while other engines run is not: that
depends on priorities that are not known here, and a guess would refuse requests that could have been answered.
"""

from __future__ import annotations

from messages import NS_PER_MS

RISE_SHARE = 4
"""The estimate rises by at most a quarter per run."""


def admission_refusal(
    *, now_ns: int, deadline_ns: int, ahead: int, running_for_ns: int | None, run_estimate_ns: int | None
) -> str | None:
    """Why a request cannot be answered by its deadline, or None where it may be.

    `ahead` are the requests that are still to run before this one; `running_for_ns` is how long the one at work has
    run, None where there is none. An engine that is idle, or that has not run yet (`run_estimate_ns` None), is given
    every request whose deadline is ahead: only a run can tell that an estimate is too high.
    """
    left_ns = deadline_ns - now_ns
    if left_ns <= 0:
        return f"the deadline had passed {-left_ns / NS_PER_MS:.1f} ms before it was asked for"
    if run_estimate_ns is None or (ahead == 0 and running_for_ns is None):
        return None
    rest_ns = 0 if running_for_ns is None else max(0, run_estimate_ns - running_for_ns)
    needed_ns = rest_ns + (ahead + 1) * run_estimate_ns
    if needed_ns <= left_ns:
        return None
    running = "none runs" if running_for_ns is None else f"one has run {running_for_ns / NS_PER_MS:.1f} ms"
    return (
        f"cannot be met: {ahead} ahead and {running}, at {run_estimate_ns / NS_PER_MS:.1f} ms each"
        f" it needs {needed_ns / NS_PER_MS:.1f} ms; {left_ns / NS_PER_MS:.1f} ms are left"
    )


def next_run_estimate_ns(estimate_ns: int | None, run_ns: int) -> int:
    """The estimate after a run that took `run_ns`: the least of the recent runs, each one back counting a quarter more.

    The two errors differ in price. Too low, it lets a request in that then expires in the queue and costs nothing, or
    at worst one run; too high, it refuses a frame that could have been answered. So it is never above the last run:
    one that takes 50 times as long lifts an estimate of 30 ms to 37.5 ms, and the next run takes that back. A throttle
    that doubles the run time is followed within 4 runs, a third of a frame's 13.

    Refused requests are never measured, so they cannot correct it. What corrects it is that the queue of an engine
    that refuses drains, that an idle engine refuses nothing in time, and that the one run this leads to is believed
    at once where it is faster.
    """
    if estimate_ns is None:
        return run_ns
    risen_ns = estimate_ns + estimate_ns // RISE_SHARE + 1
    return risen_ns if risen_ns < run_ns else run_ns  # noqa: FURB136  # min() costs twice as much, once in every run
