"""Our logger in NVIDIA's bindings: whatever TensorRT says, from whichever thread, while it makes nothing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest

from runtimes.tensorrt.log import SEVERITIES, process_log
from tests.bindings.callbacks import Core


def test_the_core_is_given_the_logger_itself(trt: ModuleType, core: Core) -> None:
    log = process_log(trt)
    for factory in (trt.Builder, trt.Runtime):
        with pytest.raises(TypeError, match="factory function returned nullptr"):
            factory(log)
        assert core.last_logger() == core.address(log)
    assert "PyLogger" in core.class_name(log)


def test_every_severity_arrives_by_its_name(trt: ModuleType, core: Core) -> None:
    log = process_log(trt)
    with log.listening("VERBOSE") as heard:
        for number, severity in enumerate(SEVERITIES):
            core.log(log, number, f"this is {severity}")
    assert [(line.severity, line.text) for line in heard.lines] == [(each, f"this is {each}") for each in SEVERITIES]


def test_a_severity_that_no_version_has_counts_as_an_error(trt: ModuleType, core: Core) -> None:
    log = process_log(trt)
    with log.listening() as heard:
        core.log(log, 77, "worse than anything")
    assert [(line.severity, line.text) for line in heard.errors] == [("ERROR", "worse than anything")]


def test_what_a_factory_says_while_it_makes_nothing_is_heard(trt: ModuleType, core: Core) -> None:
    log = process_log(trt)
    core.will_say(1, "createInferRuntime: Error Code 6: API Usage Error")
    with log.listening("WARNING", this_thread_only=True) as heard, pytest.raises(TypeError):
        trt.Runtime(log)
    assert [line.text for line in heard.errors] == ["createInferRuntime: Error Code 6: API Usage Error"]


def test_a_thread_that_speaks_while_the_factory_holds_the_interpreter_is_heard_after_it(
    trt: ModuleType, core: Core
) -> None:
    log = process_log(trt)
    core.will_say(2, "from afar", from_thread=True)
    core.will_say(3, "from here")
    with log.listening() as all_heard, log.listening(this_thread_only=True) as mine:
        with pytest.raises(TypeError):
            trt.Builder(log)
        core.hear_out()
    assert {line.text for line in all_heard.lines} == {"from here", "from afar"}
    assert [line.text for line in mine.lines] == ["from here"]
    assert {line.thread for line in mine.lines} == {threading.get_ident()}


def test_a_line_tells_whether_it_came_from_the_thread_that_listens(trt: ModuleType, core: Core) -> None:
    log = process_log(trt)
    with log.listening(this_thread_only=True) as mine:
        core.log(log, 1, "whose am I?")
    assert bool(mine.lines) is not core.on_thread


def test_lines_of_many_threads_at_once_all_arrive_whole(trt: ModuleType, core: Core) -> None:
    log = process_log(trt)
    texts = [[f"thread {thread} line {line}" for line in range(50)] for thread in range(8)]
    address = core.address(log)  # asked for once: what the bindings were given last is one for all threads

    def say(mine: list[str]) -> None:
        for text in mine:
            core.log_at(address, 2, text)

    with log.listening() as heard, ThreadPoolExecutor(8) as pool:
        list(pool.map(say, texts, timeout=60))
    assert sorted(line.text for line in heard.lines) == sorted(text for mine in texts for text in mine)


def test_a_line_that_is_no_utf8_is_lost_in_the_bindings_and_ends_nothing(
    trt: ModuleType, core: Core, capfd: pytest.CaptureFixture[str]
) -> None:
    log = process_log(trt)
    with log.listening() as heard:
        core.log(log, 1, b"caf\xe9")
        core.log(log, 1, "and on")
    assert [line.text for line in heard.lines] == ["and on"]
    assert "Exception caught in log()" in capfd.readouterr().err
