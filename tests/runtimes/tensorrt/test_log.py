"""What TensorRT says is heard by those who listen: in order, in bounds, and of their own thread where they ask so."""

from __future__ import annotations

import threading
from enum import IntEnum
from types import ModuleType

import pytest

from runtimes.tensorrt.log import (
    ERRORS_MAX,
    LINE_MAX_CHARS,
    LINES_MAX,
    SEVERITIES,
    Listener,
    Loudspeaker,
    TensorrtLine,
    process_log,
)


class BareLogger:
    """The little that the logger asks of the library."""


def library() -> ModuleType:
    module = ModuleType("tensorrt")
    module.ILogger = BareLogger  # type: ignore[attr-defined]
    return module


def test_a_listener_hears_what_is_said_while_it_listens_and_nothing_else() -> None:
    speaker = Loudspeaker()
    speaker.say("ERROR", "before")
    with speaker.listening() as listener:
        speaker.say("WARNING", "skipped a tactic")
        speaker.say("ERROR", "out of memory")
    speaker.say("ERROR", "after")
    me = threading.get_ident()
    assert listener.lines == (
        TensorrtLine("WARNING", "skipped a tactic", me),
        TensorrtLine("ERROR", "out of memory", me),
    )
    assert [line.text for line in listener.errors] == ["out of memory"]


def test_two_listeners_hear_the_same_line() -> None:
    speaker = Loudspeaker()
    with speaker.listening() as one, speaker.listening("ERROR") as other:
        speaker.say("INFO", "a detail")
        speaker.say("INTERNAL_ERROR", "assertion")
    assert [line.text for line in one.lines] == ["a detail", "assertion"]
    assert [line.text for line in other.lines] == ["assertion"]


def test_each_severity_is_heard_from_itself_upwards() -> None:
    for position, least in enumerate(SEVERITIES):
        speaker = Loudspeaker()
        with speaker.listening(least) as listener:
            for severity in SEVERITIES:
                speaker.say(severity, severity)
        assert [line.severity for line in listener.lines] == list(SEVERITIES[: position + 1])


def test_a_listener_of_one_thread_hears_no_other_engine() -> None:
    speaker = Loudspeaker()
    with speaker.listening(this_thread_only=True) as mine, speaker.listening() as everybodys:
        other = threading.Thread(target=speaker.say, args=("ERROR", "another engine's"))
        other.start()
        other.join(10)
        speaker.say("ERROR", "mine")
    assert [line.text for line in mine.lines] == ["mine"]
    assert [line.text for line in everybodys.lines] == ["another engine's", "mine"]


def test_a_line_is_one_bounded_printable_line() -> None:
    speaker = Loudspeaker()
    with speaker.listening() as listener:
        speaker.say("ERROR", "first\n  second\x1b[31m")
        speaker.say("ERROR", "x" * 5 * LINE_MAX_CHARS)
    first, long = listener.lines
    assert first.text == "first second\\x1b[31m"
    assert len(long.text) == LINE_MAX_CHARS


def test_the_error_that_ends_a_build_is_kept_however_much_was_said_before() -> None:
    speaker = Loudspeaker()
    with speaker.listening() as listener:
        for number in range(LINES_MAX + 5):
            speaker.say("INFO", f"line {number}")
        speaker.say("ERROR", "could not find any implementation")
        for _ in range(ERRORS_MAX):
            speaker.say("ERROR", "and one more")
    assert len(listener.lines) == LINES_MAX + ERRORS_MAX
    assert listener.errors[0].text == "could not find any implementation"
    assert listener.dropped == 5 + 1


def test_a_line_may_be_said_while_another_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    speaker = Loudspeaker()
    take = Listener.take

    def collect(listener: Listener, line: TensorrtLine) -> None:
        """As the collector does, which puts an engine away wherever it runs."""
        monkeypatch.setattr(Listener, "take", take)
        speaker.say("ERROR", "of the engine that went")
        take(listener, line)

    monkeypatch.setattr(Listener, "take", collect)
    with speaker.listening() as listener:
        saying = threading.Thread(target=speaker.say, args=("ERROR", "of the run"), daemon=True)
        saying.start()
        saying.join(60)
        assert not saying.is_alive()
    assert [line.text for line in listener.lines] == ["of the engine that went", "of the run"]


def test_the_process_has_one_logger() -> None:
    trt = library()
    log = process_log(trt)
    assert process_log(trt) is log
    assert isinstance(log, BareLogger)
    assert process_log(library()) is not log
    assert process_log(trt) is log, "another library in between takes it from nobody"


def test_the_logger_tells_the_severity_by_name() -> None:
    class Severity(IntEnum):
        ERROR = 1
        INFO = 3
        DISASTER = 7

    log = process_log(library())
    with log.listening() as listener:
        log.log(Severity.INFO, "a detail")  # type: ignore[attr-defined]
        log.log(Severity.ERROR, "a fault")  # type: ignore[attr-defined]
        log.log(Severity.DISASTER, "unheard of")  # type: ignore[attr-defined]
    assert [(line.severity, line.text) for line in listener.lines] == [
        ("INFO", "a detail"),
        ("ERROR", "a fault"),
        ("ERROR", "unheard of"),
    ]
