"""The recorder keeps what TensorRT reports, under both names that it is asked by."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from types import ModuleType
from typing import Any

from runtimes.tensorrt.error_recorder import ERRORS_MAX, RecordedError, make_error_recorder


class ErrorCode(IntEnum):
    UNSPECIFIED_ERROR = 1
    FAILED_ALLOCATION = 5


class BareRecorder:
    """The little that a recorder asks of the library: that its base is initialised."""

    def __init__(self) -> None:
        self.initialised = True


def recorder() -> Any:
    module = ModuleType("tensorrt")
    module.IErrorRecorder = BareRecorder  # type: ignore[attr-defined]
    module.ErrorCodeTRT = ErrorCode  # type: ignore[attr-defined]
    return make_error_recorder(module)


def test_a_recorder_gives_back_what_was_reported_under_both_names() -> None:
    it = recorder()
    assert it.initialised
    assert it.report_error(ErrorCode.FAILED_ALLOCATION, "no room\nfor 8 bytes") is True
    assert (it.num_errors(), it.get_num_errors()) == (1, 1)
    assert it.get_error_code(0) is ErrorCode.FAILED_ALLOCATION
    assert it.get_error_desc(0) == "no room for 8 bytes"
    assert it.recorded.all() == (RecordedError("FAILED_ALLOCATION", "no room for 8 bytes"),)


def test_an_index_that_is_not_there_is_answered_as_the_header_says() -> None:
    it = recorder()
    for index in (-1, 0, 5):
        assert it.get_error_code(index) is ErrorCode.UNSPECIFIED_ERROR
        assert it.get_error_desc(index) == ""


def test_a_recorder_is_bounded_and_says_when_it_overflowed() -> None:
    it = recorder()
    for number in range(ERRORS_MAX):
        it.report_error(ErrorCode.UNSPECIFIED_ERROR, f"error {number}")
    assert not it.has_overflowed()
    it.report_error(ErrorCode.UNSPECIFIED_ERROR, "one too many")
    assert it.has_overflowed()
    assert it.num_errors() == ERRORS_MAX
    it.clear()
    assert (it.num_errors(), it.has_overflowed()) == (0, False)


def test_many_threads_report_at_once_and_nothing_is_lost() -> None:
    it = recorder()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: it.report_error(ErrorCode.UNSPECIFIED_ERROR, str(number)), range(ERRORS_MAX)))
    assert {error.text for error in it.recorded.all()} == {str(number) for number in range(ERRORS_MAX)}


def test_an_error_may_be_reported_while_another_is_taken() -> None:
    it = recorder()

    class Collecting(list[Any]):
        """Puts an engine away while it grows, as the collector does wherever it runs."""

        def append(self, error: Any) -> None:
            if not self:
                super().append((ErrorCode.UNSPECIFIED_ERROR, RecordedError("UNSPECIFIED_ERROR", "first")))
                it.report_error(ErrorCode.UNSPECIFIED_ERROR, "of the engine that went")
            super().append(error)

    it.recorded._errors = Collecting()
    reporting = threading.Thread(target=it.report_error, args=(ErrorCode.FAILED_ALLOCATION, "of the run"), daemon=True)
    reporting.start()
    reporting.join(60)
    assert not reporting.is_alive()
    assert [error.text for error in it.recorded.all()] == ["first", "of the engine that went", "of the run"]
