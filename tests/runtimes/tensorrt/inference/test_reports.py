"""What TensorRT says of one engine: who hears it, until when, and which error outlives which."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from messages import (
    C7Error,
    DeviceContextError,
    DeviceFaultError,
    EngineDeserializeError,
    InferenceError,
    InvalidInputError,
    OutOfMemoryError,
)
from runtimes.cuda.port import Cuda
from runtimes.tensorrt.inference.reports import EngineReports, raise_what_is_graver, settle_after
from runtimes.tensorrt.log import TensorrtLog

if TYPE_CHECKING:
    from tests.doubles.cuda.double import Device


@pytest.fixture
def reports(trt: ModuleType, log: TensorrtLog) -> EngineReports:
    return EngineReports(trt, log, "m")


@pytest.fixture
def say(trt: ModuleType, log: TensorrtLog) -> Callable[[str], None]:
    """One line of TensorRT's log."""
    logger: Any = log

    def say(text: str) -> None:
        logger.log(trt.ILogger.Severity.ERROR, text)

    return say


@pytest.fixture
def record(trt: ModuleType, reports: EngineReports) -> Callable[[str], None]:
    """One error that TensorRT reports to the engine's recorder."""
    recorder: Any = reports.recorder

    def record(text: str) -> None:
        assert recorder.report_error(trt.ErrorCodeTRT.INTERNAL_ERROR, text)

    return record


Speak = Callable[[str], None]


def test_log_and_recorder_are_told_together(reports: EngineReports, say: Speak, record: Speak) -> None:
    with reports.listening():
        say("of the log")
        record("of the recorder")
        assert str(reports.error_of_run("x")).startswith("m: x failed: of the recorder; of the log;")
        load = reports.error_of_load()
    assert type(load) is EngineDeserializeError
    assert "of the recorder; of the log" in str(load)


def test_nothing_counts_that_was_said_before_or_after(reports: EngineReports, say: Speak, record: Speak) -> None:
    with reports.listening():
        say("of the first")
        record("of the first")
    say("between")
    record("between")
    with reports.listening():
        reports.require_silence("x")
        assert "TensorRT says no reason" in str(reports.error_of_run("x"))
        say("of the second")
    say("after")
    assert "TensorRT says no reason" in str(reports.error_of_run("x"))


def test_another_threads_words_count_only_where_they_are_asked_for(
    reports: EngineReports, say: Speak, on_thread: Callable[[Callable[[], Any]], Any]
) -> None:
    with reports.listening():
        on_thread(lambda: say("of another engine"))
        assert "of another engine" not in str(reports.error_of_run("x"))
    with reports.listening(this_thread_only=False):
        on_thread(lambda: say("of a loader's thread"))
        assert "of a loader's thread" in str(reports.error_of_run("x"))


def test_a_call_that_succeeded_raises_nothing_and_one_that_failed_raises_by_its_words(
    reports: EngineReports, record: Speak
) -> None:
    with reports.listening():
        reports.require(True, "x")
        record("Error Code 2: OutOfMemory (Requested size was 8 bytes.)")
        reports.require(True, "x")
        with pytest.raises(OutOfMemoryError):
            reports.require(False, "x")
        with pytest.raises(OutOfMemoryError):
            reports.require_silence("x")


def test_the_subject_of_an_error_is_what_the_engine_is_called_now(reports: EngineReports) -> None:
    reports.subject = "lightglue"
    assert str(reports.error_of_run("execute_async_v3")).startswith("lightglue: execute_async_v3 failed")


# What outlives what.


PLAIN = InferenceError("m: plain")


def raising(error: BaseException) -> Callable[[], None]:
    def step() -> None:
        raise error

    return step


@pytest.mark.parametrize("graver", [DeviceFaultError("the device is lost"), DeviceContextError("the context is lost")])
@pytest.mark.parametrize("error", [PLAIN, OutOfMemoryError("m: none left"), KeyError("of a program")])
def test_a_device_that_is_lost_is_the_story_with_what_came_before(graver: C7Error, error: Exception) -> None:
    with pytest.raises(type(graver), match=r"is lost; it was found after: ") as raised:
        settle_after(error, [raising(graver)])
    assert str(error).strip("'") in str(raised.value)
    assert raised.value.__cause__ is error


def test_a_fault_that_is_known_stays_the_story() -> None:
    settle_after(DeviceFaultError("the first"), [raising(DeviceFaultError("the same again"))])


def test_a_context_that_is_lost_gives_way_to_the_whole_device() -> None:
    with pytest.raises(DeviceFaultError):
        settle_after(DeviceContextError("the context"), [raising(DeviceFaultError("the device"))])


def test_whatever_else_fails_on_the_way_leaves_the_story_as_it_is_and_every_step_is_done() -> None:
    done: list[int] = []
    settle_after(PLAIN, [raising(InferenceError("a free")), lambda: done.append(1), raising(OutOfMemoryError("x"))])
    assert done == [1]


def test_a_programming_error_on_the_way_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        settle_after(PLAIN, [raising(ZeroDivisionError())])


def test_a_device_that_answers_adds_nothing(cuda: Cuda) -> None:
    raise_what_is_graver(cuda, PLAIN)


def test_a_device_that_answers_no_more_is_found_behind_any_error(cuda: Cuda, device: Device) -> None:
    device.fail("cudaStreamSynchronize", 719)
    with pytest.raises(DeviceFaultError, match=r"\(719\).*; it was found after: m: plain$"):
        raise_what_is_graver(cuda, PLAIN)


@pytest.mark.parametrize("error", [InvalidInputError("m: x"), DeviceFaultError("m: x"), DeviceContextError("m: x")])
def test_the_device_is_not_asked_where_that_would_say_nothing_new(cuda: Cuda, device: Device, error: C7Error) -> None:
    device.calls.clear()
    raise_what_is_graver(cuda, error)
    assert device.calls == []
