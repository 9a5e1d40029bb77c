"""How far a build is, from TensorRT's many threads, and how it is ended."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Protocol, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.tensorrt.building.progress import PHASES_MAX, BuildProgress, Monitor, progress_monitor


class Callbacks(Monitor, Protocol):
    """What TensorRT calls."""

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None: ...
    def step_complete(self, phase_name: str, step: int) -> bool: ...
    def phase_finish(self, phase_name: str) -> None: ...


class IProgressMonitor:
    def __init__(self) -> None:
        self.is_made = True


@pytest.fixture
def trt() -> ModuleType:
    module = ModuleType("tensorrt")
    module.__dict__["IProgressMonitor"] = IProgressMonitor
    return module


def callbacks(monitor: Monitor) -> Callbacks:
    return cast("Callbacks", monitor)


def test_the_phases_that_a_build_is_in_are_told_with_their_steps(trt: ModuleType) -> None:
    told: list[str] = []
    monitor = callbacks(progress_monitor(trt, tell=told.append))
    monitor.phase_start("Building Engine", None, 4)
    monitor.phase_start("Tactic Selection", "Building Engine", 31)

    assert monitor.step_complete("Tactic Selection", 0)
    assert monitor.step_complete("Tactic Selection", 6)
    monitor.phase_finish("Tactic Selection")
    assert monitor.step_complete("Building Engine", 0)
    assert told == [
        "Building Engine 0/4 > Tactic Selection 1/31",
        "Building Engine 0/4 > Tactic Selection 7/31",
        "Building Engine 1/4",
    ]
    monitor.phase_finish("Building Engine")
    assert monitor.progress.describe() == ""


def test_a_phase_that_ends_takes_what_it_did_not_report_with_it() -> None:
    progress = BuildProgress()
    progress.start("outer", None, 2)
    progress.start("inner", "outer", 2)

    progress.finish("outer")
    assert progress.describe() == ""


def test_a_reason_to_end_is_asked_for_after_each_step_and_remembered(trt: ModuleType) -> None:
    reasons = iter(["", "the landing"])
    monitor = callbacks(progress_monitor(trt, cancelled=lambda: next(reasons)))
    monitor.phase_start("p", None, 3)

    assert monitor.step_complete("p", 0)
    assert not monitor.step_complete("p", 1)
    assert not monitor.step_complete("p", 2), "it stays ended without asking again"
    assert monitor.ended_because == "the landing"


@pytest.mark.parametrize("in_which", ["tell", "cancelled"])
def test_what_a_callback_of_ours_raises_ends_the_build_and_is_kept(trt: ModuleType, in_which: str) -> None:
    def broken() -> str:
        raise RuntimeError("broken")

    def tell(text: str) -> None:
        broken()

    made = progress_monitor(trt, cancelled=broken) if in_which == "cancelled" else progress_monitor(trt, tell=tell)
    monitor = callbacks(made)
    monitor.phase_start("p", None, 1)

    assert not monitor.step_complete("p", 0)
    assert str(monitor.failure) == "broken"


def test_steps_of_an_unknown_phase_and_of_more_phases_than_are_kept_do_no_harm(trt: ModuleType) -> None:
    monitor = callbacks(progress_monitor(trt))
    for number in range(PHASES_MAX + 5):
        monitor.phase_start(f"phase {number}", None, 1)

    assert monitor.step_complete("never started", 0)
    assert monitor.progress.describe().count(">") == PHASES_MAX - 1


def test_a_phase_name_steers_no_terminal() -> None:
    progress = BuildProgress()
    progress.start("\x1b[2J\n" + "x" * 500, None, 1)

    assert progress.describe().isprintable()
    assert len(progress.describe()) < 200


@given(st.lists(st.tuples(st.sampled_from("sfx"), st.integers(0, 3)), max_size=40))
def test_any_order_of_calls_leaves_only_started_phases(calls: list[tuple[str, int]]) -> None:
    progress = BuildProgress()
    started: set[str] = set()
    for call, number in calls:
        name = f"p{number}"
        if call == "s":
            progress.start(name, None, 2)
            started.add(name)
        elif call == "f":
            progress.finish(name)
            started.discard(name)
        else:
            progress.complete(name, 0)

    shown = progress.describe()
    assert {each.partition(" ")[0] for each in shown.split(" > ") if each} == started


def test_many_threads_may_call_at_once(trt: ModuleType) -> None:
    monitor = callbacks(progress_monitor(trt, tell=lambda text: None))

    def build(number: int) -> bool:
        name = f"thread {number}"
        for _ in range(50):
            monitor.phase_start(name, None, 2)
            monitor.step_complete(name, 0)
            monitor.phase_finish(name)
        return monitor.failure is None

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(build, range(8)))
    assert monitor.progress.describe() == ""
