"""Our progress monitor in NVIDIA's bindings: how far a build is, how it ends, and that nothing raised gets lost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest

from runtimes.tensorrt.building.progress import progress_monitor
from tests.bindings.callbacks import Core


def test_it_is_the_interface_that_its_vtable_was_written_down_for(trt: ModuleType, core: Core) -> None:
    monitor = progress_monitor(trt)
    assert "PyProgressMonitor" in core.class_name(monitor)
    assert core.interface(monitor) == ("IProgressMonitor", 1)


def test_phases_and_steps_arrive_as_they_are(trt: ModuleType, core: Core) -> None:
    told: list[str] = []
    monitor = progress_monitor(trt, tell=told.append)
    core.phase_start(monitor, "Building Engine", None, 4)
    core.phase_start(monitor, "Tactic Selection", "Building Engine", 31)

    assert core.step_complete(monitor, "Tactic Selection", 6)
    core.phase_finish(monitor, "Tactic Selection")
    assert core.step_complete(monitor, "Building Engine", 0)
    core.phase_finish(monitor, "Building Engine")
    assert told == ["Building Engine 0/4 > Tactic Selection 7/31", "Building Engine 1/4"]
    assert monitor.progress.describe() == ""


def test_a_phase_of_its_own_has_no_parent(trt: ModuleType, core: Core) -> None:
    monitor = progress_monitor(trt)
    core.phase_start(monitor, "Building Engine", None, 4)
    [phase] = monitor.progress._phases.values()
    assert (phase.name, phase.parent, phase.steps) == ("Building Engine", None, 4)


def test_a_reason_to_end_is_a_no_to_tensorrt(trt: ModuleType, core: Core) -> None:
    reasons = iter(["", "the operator ended it"])
    monitor = progress_monitor(trt, cancelled=lambda: next(reasons))
    core.phase_start(monitor, "Building Engine", None, 4)

    assert core.step_complete(monitor, "Building Engine", 0) is True
    assert core.step_complete(monitor, "Building Engine", 1) is False
    assert monitor.ended_because == "the operator ended it"


@pytest.mark.parametrize("error", [ValueError("who listens?"), KeyboardInterrupt(), SystemExit(3)])
def test_what_a_callback_raises_ends_the_build_and_is_remembered(
    trt: ModuleType, core: Core, error: BaseException, capfd: pytest.CaptureFixture[str]
) -> None:
    def tell(text: str) -> None:
        raise error

    monitor = progress_monitor(trt, tell=tell)
    core.phase_start(monitor, "Building Engine", None, 4)

    assert core.step_complete(monitor, "Building Engine", 0) is False
    core.phase_finish(monitor, "Building Engine")
    assert monitor.failure is error
    assert capfd.readouterr().err == "", "the bindings met an exception"


def test_what_is_raised_past_us_is_printed_by_the_bindings_and_ends_the_build(
    trt: ModuleType, core: Core, capfd: pytest.CaptureFixture[str]
) -> None:
    class Careless(trt.IProgressMonitor):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def step_complete(self, phase_name: str, step: int) -> bool:
            raise ValueError("nobody hears this")

    assert core.step_complete(Careless(), "Building Engine", 0) is False
    assert "nobody hears this" in capfd.readouterr().err


def test_many_threads_may_report_at_once(trt: ModuleType, core: Core) -> None:
    told: list[str] = []
    monitor = progress_monitor(trt, tell=told.append)
    address = core.address(monitor)

    def report(phase: str) -> bool:
        core.phase_start_at(address, phase, None, 50)
        return all(core.step_complete_at(address, phase, step) for step in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(report, [f"phase {number}" for number in range(8)], timeout=60))
    assert len(told) == 8 * 50
    assert monitor.failure is None
