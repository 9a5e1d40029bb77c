"""The sampler against sources that answer, fail and hang."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from messages import TelemetryUnavailableError
from telemetry import InlineSampler, Sampler, ThermalReading, ThermalSampler, ThermalSource

COOL = ThermalReading(gpu_temp_c=50)


class BlockingAttribute:
    """Opens a FIFO as a naive reader opens sysfs: it hangs until somebody writes."""

    name = "sysfs"

    def __init__(self, path: Path) -> None:
        self._path = path
        self.reads = 0

    def read(self) -> ThermalReading:
        self.reads += 1
        return ThermalReading(gpu_temp_c=float(self._path.read_text()))


class Scripted:
    name = "scripted"

    def __init__(self, *answers: ThermalReading | Exception) -> None:
        self._answers: Iterator[ThermalReading | Exception] = iter(answers)

    def read(self) -> ThermalReading:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def reading_threads() -> int:
    return sum(thread.name == "c7-thermal-read" for thread in threading.enumerate())


def on_a_thread(source: ThermalSource) -> Sampler:
    return ThermalSampler(source, timeout_s=30)


@pytest.mark.parametrize("sampler", [on_a_thread, InlineSampler])
def test_a_source_that_answers_is_passed_on(sampler: Callable[[ThermalSource], Sampler]) -> None:
    assert sampler(Scripted(COOL)).sample() is COOL


def test_a_source_that_cannot_hang_is_read_where_it_is_asked() -> None:
    asked_on: list[threading.Thread] = []

    class Here(Scripted):
        def read(self) -> ThermalReading:
            asked_on.append(threading.current_thread())
            return super().read()

    InlineSampler(Here(COOL)).sample()
    assert asked_on == [threading.current_thread()]


def test_a_hanging_source_costs_one_thread_however_often_it_is_asked(tmp_path: Path) -> None:
    fifo = tmp_path / "temp"
    os.mkfifo(fifo)
    source = BlockingAttribute(fifo)
    sampler = ThermalSampler(source, timeout_s=0.02)
    for _ in range(5):
        with pytest.raises(TelemetryUnavailableError, match=r"sysfs hung: expected a reading within 0.02 s"):
            sampler.sample()
    assert source.reads == 1
    assert reading_threads() == 1
    fifo.write_text("51")


def test_a_source_that_wakes_up_is_read_again_and_its_late_answer_is_dropped(tmp_path: Path) -> None:
    fifo = tmp_path / "temp"
    os.mkfifo(fifo)
    source = BlockingAttribute(fifo)
    sampler = ThermalSampler(source, timeout_s=0.02)
    with pytest.raises(TelemetryUnavailableError):
        sampler.sample()
    fifo.write_text("51")
    fifo.unlink()
    fifo.write_text("52")
    sampler._timeout_s = 30
    assert sampler.sample().gpu_temp_c == 52
    assert source.reads == 2


@pytest.mark.parametrize("sampler", [on_a_thread, InlineSampler])
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (TelemetryUnavailableError("no zones"), "scripted failed: no zones"),
        (ZeroDivisionError("a bug"), "scripted failed: ZeroDivisionError: a bug"),
    ],
)
def test_a_failing_source_is_unavailable_and_is_asked_again(
    fault: Exception, says: str, sampler: Callable[[ThermalSource], Sampler]
) -> None:
    asks = sampler(Scripted(fault, COOL))
    with pytest.raises(TelemetryUnavailableError, match=says):
        asks.sample()
    assert asks.sample() is COOL
