"""Our error recorder in NVIDIA's bindings: what TensorRT reports, and what it asks back."""

from __future__ import annotations

from types import ModuleType

import pytest

from runtimes.tensorrt.error_recorder import ERRORS_MAX, ErrorRecorder, make_error_recorder
from tests.bindings.callbacks import Core


@pytest.fixture
def recorder(trt: ModuleType) -> ErrorRecorder:
    return make_error_recorder(trt)


def test_it_is_the_interface_that_its_vtable_was_written_down_for(core: Core, recorder: ErrorRecorder) -> None:
    assert "PyErrorRecorder" in core.class_name(recorder)
    assert core.interface(recorder) == ("IErrorRecorder", 1)


def test_an_error_is_kept_with_the_name_of_its_code(trt: ModuleType, core: Core, recorder: ErrorRecorder) -> None:
    for code in trt.ErrorCodeTRT.__members__.values():
        assert core.report_error(recorder, int(code), f"it was {code.name}")
    kept = [(error.code, error.text) for error in recorder.recorded.all()]
    assert kept == [(name, f"it was {name}") for name in trt.ErrorCodeTRT.__members__]


def test_the_core_reads_back_what_it_reported(trt: ModuleType, core: Core, recorder: ErrorRecorder) -> None:
    core.report_error(recorder, int(trt.ErrorCodeTRT.FAILED_ALLOCATION), "Requested size was 7 bytes.")
    assert core.error_count(recorder) == 1
    assert core.error_code(recorder, 0) == int(trt.ErrorCodeTRT.FAILED_ALLOCATION)
    assert core.error_text(recorder, 0) == "Requested size was 7 bytes."


def test_an_index_that_is_none_has_an_answer_too(trt: ModuleType, core: Core, recorder: ErrorRecorder) -> None:
    assert core.error_code(recorder, 3) == int(trt.ErrorCodeTRT.UNSPECIFIED_ERROR)
    assert core.error_text(recorder, -1) == ""


def test_what_finds_no_room_is_told_to_the_core_until_it_clears(core: Core, recorder: ErrorRecorder) -> None:
    for number in range(ERRORS_MAX):
        core.report_error(recorder, 1, f"error {number}")
    assert not core.overflowed(recorder)
    core.report_error(recorder, 1, "one too many")
    assert core.overflowed(recorder)
    assert core.error_count(recorder) == ERRORS_MAX

    core.clear(recorder)
    assert (core.error_count(recorder), core.overflowed(recorder)) == (0, False)


def test_a_code_that_this_version_has_no_name_for_is_kept(core: Core, recorder: ErrorRecorder) -> None:
    assert core.report_error(recorder, 99, "of a later version")
    assert [error.text for error in recorder.recorded.all()] == ["of a later version"]
    assert core.error_code(recorder, 0) == 99


def test_the_core_asks_for_get_num_errors_and_not_for_the_documented_name(
    trt: ModuleType, core: Core, capfd: pytest.CaptureFixture[str]
) -> None:
    class AsDocumented(trt.IErrorRecorder):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)

        def num_errors(self) -> int:
            return 5

    assert core.error_count(AsDocumented()) == -1
    assert "get_num_errors" in capfd.readouterr().err


def test_its_references_are_counted_by_the_bindings(core: Core, recorder: ErrorRecorder) -> None:
    before = core.references(recorder, 1)
    assert core.references(recorder, 1) == before + 1
    assert core.references(recorder, -1) == before
