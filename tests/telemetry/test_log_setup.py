"""The log: its lines, its bounds, its levels, and sinks that fail under it."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from loguru import logger

from messages import LogRecorded, OutOfMemoryError
from telemetry import FlightRecorder, LogLevel, LogSetup, configure_logging, read_recording

Configure = Callable[..., LogSetup]


@pytest.fixture
def configure() -> Iterator[Configure]:
    setups: list[LogSetup] = []

    def start(**options: Any) -> LogSetup:
        setups.append(configure_logging(**options))
        return setups[-1]

    yield start
    for setup in setups:
        setup.close(30)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_both_clocks_and_what_was_bound(configure: Configure) -> None:
    stream = io.StringIO()
    setup = configure(sink=stream)
    logger.bind(model="ultravpr", frame=12345, engines=["a", "b"], ratio=0.5).error(
        "C7 OOM during infer; backbone={}; frame={}", "ultravpr", 12345
    )
    assert setup.close()
    (line,) = lines(stream)
    assert line.pop("monotonic_ns") > 0
    assert line.pop("wall_clock").startswith("20")
    assert line == {
        "level": "ERROR",
        "message": "C7 OOM during infer; backbone=ultravpr; frame=12345",
        "extra": {"model": "ultravpr", "frame": 12345, "engines": "['a', 'b']", "ratio": 0.5},
    }


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("ERROR", ["ERROR"]),
        ("WARN", ["WARN", "ERROR"]),
        ("INFO", ["INFO", "WARN", "ERROR"]),
        ("DEBUG", ["DEBUG", "INFO", "WARN", "ERROR"]),
    ],
)
def test_the_levels_are_the_four_of_the_specification(configure: Configure, level: LogLevel, shown: list[str]) -> None:
    stream = io.StringIO()
    setup = configure(level=level, sink=stream)
    for log in (logger.trace, logger.debug, logger.info, logger.warning, logger.error):
        log("C7")
    assert setup.close()
    assert [line["level"] for line in lines(stream)] == shown


def test_warnings_and_errors_are_recorded_whatever_the_logs_own_level(configure: Configure, tmp_path: Path) -> None:
    recorder = FlightRecorder(tmp_path / "flight.mcap")
    configure(level="ERROR", sink=io.StringIO(), recorder=recorder)
    logger.info("C7 ready")
    logger.warning("C7 thermal throttle active; gpu_temp=83C; clock=750mhz")
    logger.error("x" * 5000)
    assert recorder.close()
    warn, error = (each.message for each in read_recording(recorder.path))
    assert warn == LogRecorded("WARN", "C7 thermal throttle active; gpu_temp=83C; clock=750mhz")
    assert isinstance(error, LogRecorded)
    assert (error.level, len(error.text)) == ("ERROR", 1000)


def test_an_error_is_logged_with_its_bounded_trace(configure: Configure) -> None:
    stream = io.StringIO()
    setup = configure(sink=stream)
    try:
        raise OutOfMemoryError("716 bytes" + "!" * 9000)
    except OutOfMemoryError:
        logger.exception("C7 run failed")
    assert setup.close()
    (line,) = lines(stream)
    assert line["error"].startswith("716 bytes!!!")
    assert len(line["error"]) == 1000
    assert len(line["traceback"]) == 4000


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_lines_stay_bounded_and_whole_whatever_is_logged(configure: Configure) -> None:
    stream = io.StringIO()
    setup = configure(sink=stream)
    logger.info("a file \udcff\n of " + "x" * 10_000)
    logger.bind(**{f"key{number}": "y" * 1000 for number in range(100)}).info("many")
    logger.bind(huge=10**400, nan=float("nan"), deep=[[]]).info("odd")
    logger.bind(extra=Unprintable()).info("unprintable")
    logger.info("after it")
    assert setup.close()
    long, many, odd, after = lines(stream)
    assert long["message"].startswith("a file ?\n of xxx")
    assert len(long["message"]) == 1000
    assert len(many["extra"]) == 32
    assert all(len(value) == 200 for value in many["extra"].values())
    assert len(odd["extra"]["huge"]) == 200
    assert (odd["extra"]["nan"], odd["extra"]["deep"]) == (None, "[[]]")
    assert after["message"] == "after it"
    assert setup.lost == 1


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_broken_and_a_closed_stream_raise_nothing_and_are_counted(configure: Configure) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (Broken(), closed):
        setup = configure(sink=stream)
        logger.error("C7 one")
        logger.error("C7 two")
        assert setup.close()
        assert setup.lost == 2


def test_a_reader_that_stopped_reading_blocks_nobody(configure: Configure) -> None:
    out, into = os.pipe()
    with os.fdopen(out) as reader, os.fdopen(into, "w") as pipe:
        setup = configure(sink=pipe)
        for _ in range(6000):
            logger.error("C7 " + "x" * 900)
        assert not setup.close(timeout_s=0.01)
        assert setup.lost > 0
        resumed = threading.Thread(target=reader.read)
        resumed.start()
        assert setup.close(timeout_s=30)
        pipe.close()
        resumed.join()


def test_a_new_configuration_replaces_the_old_one(configure: Configure) -> None:
    first, second = io.StringIO(), io.StringIO()
    old = configure(sink=first)
    logger.info("one")
    new = configure(sink=second)
    logger.info("two")
    assert old.close(30)
    logger.info("three")
    assert new.close(30)
    assert [line["message"] for line in lines(first)] == ["one"]
    assert [line["message"] for line in lines(second)] == ["two", "three"]
