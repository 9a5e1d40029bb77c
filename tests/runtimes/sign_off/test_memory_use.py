"""What an engine takes of the memory, read from the kernel of this very process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from messages import RuntimeNotAvailableError
from runtimes.sign_off import memory_use as memory_use_module
from runtimes.sign_off.memory_use import MemoryGauge, MemoryReading, memory_use

MIB = 1024**2

# In a process of its own: the heap of the one that runs the tests is no measure of anything.
MEASURE = """
import sys
sys.path[:0] = sys.argv[1].split(":")
import numpy as np
from runtimes.sign_off.memory_use import MemoryGauge, memory_use
MIB = 1024**2
gauge = MemoryGauge()
np.ones(64 * MIB, np.uint8)
before = gauge.at_rest()
weights = [np.ones(1 * MIB, np.uint8) for _ in range(40)]
loaded = gauge.at_rest()
def run():
    scratch = np.ones(80 * MIB, np.uint8)
    return scratch[:10 * MIB].copy()
output, peak = gauge.peak_of(run)
use = memory_use(before, loaded, gauge.at_rest(), peak)
print(use.load_bytes, use.run_bytes, use.device_load_bytes, use.device_run_bytes)
"""


def test_what_stays_after_a_load_and_the_peak_of_a_run_are_measured() -> None:
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", MEASURE, ":".join(filter(None, sys.path))], capture_output=True, text=True, check=True
    )
    load_bytes, run_bytes, *device = (int(word) for word in done.stdout.split())
    assert load_bytes == pytest.approx(40 * MIB, abs=2 * MIB), "not the 64 MiB that were free before"
    assert run_bytes == pytest.approx(90 * MIB, abs=2 * MIB), "the peak, not what stayed"
    assert device == [0, 0]


def test_the_first_peak_does_not_count_for_the_second() -> None:
    gauge = MemoryGauge()
    _, large = gauge.peak_of(lambda: np.ones(96 * MIB, np.uint8).sum())
    _, small = gauge.peak_of(lambda: np.ones(1 * MIB, np.uint8).sum())
    assert small < large - 64 * MIB


def reading(resident: int, available: int | None = None, device_used: int | None = None) -> MemoryReading:
    return MemoryReading(resident=resident, available=available, device_used=device_used)


def test_on_a_board_with_shared_memory_what_the_machine_lost_counts_where_it_is_more() -> None:
    use = memory_use(reading(100, 5000), reading(130, 4000), reading(150, 3800), peak=140)
    assert (use.load_bytes, use.run_bytes) == (1000, 200)
    use = memory_use(reading(100, 5000), reading(130, 4990), reading(150, 4980), peak=190)
    assert (use.load_bytes, use.run_bytes) == (30, 60)


def test_a_discrete_gpu_has_figures_of_its_own() -> None:
    use = memory_use(
        reading(100, device_used=1000), reading(110, device_used=1500), reading(120, device_used=1600), 110
    )
    assert (use.load_bytes, use.run_bytes) == (10, 10)
    assert (use.device_load_bytes, use.device_run_bytes) == (500, 100)


@given(st.lists(st.integers(0, 2**40), min_size=10, max_size=10))
def test_no_reading_makes_a_negative_figure(values: list[int]) -> None:
    before, loaded, after = (reading(*values[index : index + 3]) for index in (0, 3, 6))
    use = memory_use(before, loaded, after, peak=values[9])
    assert min(use.load_bytes, use.run_bytes, use.device_load_bytes, use.device_run_bytes) >= 0


def test_a_gauge_of_a_board_with_shared_memory_reads_the_machine_and_one_of_the_cpu_does_not() -> None:
    assert MemoryGauge(device_index=0, shares_memory=True).at_rest().available is not None
    assert MemoryGauge().at_rest().available is None


def test_a_kernel_that_does_not_say_is_an_error_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 1 kB\n")
    monkeypatch.setattr(memory_use_module, "_MEMINFO", tmp_path / "meminfo")
    with pytest.raises(RuntimeNotAvailableError, match="meminfo: expected a line 'MemAvailable: N kB'"):
        MemoryGauge(device_index=0, shares_memory=True).at_rest()


def test_a_sandbox_that_forbids_to_measure_a_peak_is_an_error_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clear_refs").mkdir()
    monkeypatch.setattr(memory_use_module, "_PROCESS", tmp_path)
    with pytest.raises(RuntimeNotAvailableError, match="clear_refs: expected a kernel that resets the peak"):
        MemoryGauge().peak_of(lambda: None)
