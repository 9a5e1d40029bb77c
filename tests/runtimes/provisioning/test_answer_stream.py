"""How far a build is and what came of it share one pipe: within bounds, and the answer is never lost to the telling."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtimes.provisioning.answer_stream import PHASE_MAX_CHARS, AnswerPipe, AnswerStream
from runtimes.provisioning.build_request import ANSWER_MAX_BYTES, EngineBuilt, RequestFailed, decode_answer


class Clock:
    now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


@pytest.fixture
def ends() -> Iterator[tuple[int, int]]:
    receiving, sending = os.pipe()
    yield receiving, sending
    os.close(receiving)
    os.close(sending)


def received(ends: tuple[int, int]) -> AnswerStream:
    os.set_blocking(ends[0], False)
    stream = AnswerStream()
    stream.take(os.read(ends[0], 1 << 20))
    return stream


def test_the_newest_phase_and_the_answer_come_out(ends: tuple[int, int]) -> None:
    clock = Clock()
    pipe = AnswerPipe(ends[1], clock)
    pipe.tell("parsing")
    clock.now_ns = 600_000_000
    pipe.tell("timing tactics\x1b[2K")
    pipe.answer(EngineBuilt("vpr.engine"))
    stream = received(ends)
    assert stream.phase == r"timing tactics\x1b[2K"
    assert decode_answer(stream.answer) == EngineBuilt("vpr.engine")


def test_a_library_that_tells_often_is_written_down_seldom(ends: tuple[int, int]) -> None:
    clock = Clock()
    pipe = AnswerPipe(ends[1], clock)
    for step in range(100):
        clock.now_ns = step * 10_000_000
        pipe.tell(f"step {step}")
    os.set_blocking(ends[0], False)
    assert os.read(ends[0], 1 << 20).count(b"\n") == 2
    assert os.fstat(ends[1])  # it is still open: the answer comes on it


def test_a_thread_that_finds_another_one_telling_goes_on(ends: tuple[int, int]) -> None:
    pipe = AnswerPipe(ends[1], Clock())
    with pipe._lock:
        teller = threading.Thread(target=pipe.tell, args=("late",))
        teller.start()
        teller.join(timeout=60)
        assert not teller.is_alive()
    os.set_blocking(ends[0], False)
    with pytest.raises(BlockingIOError):
        os.read(ends[0], 1)


@given(st.lists(st.integers(1, 40), max_size=20))
def test_in_whatever_pieces_it_comes_the_same_is_understood(cuts: list[int]) -> None:
    data = (
        b'{"type":"BuildStepped","phase":"one"}\n{"type":"BuildStepped","phase":"two \xc3\xa9"}\n'
        b'{"type":"EngineBuilt","engine":"x.engine"}'
    )
    stream = AnswerStream()
    for size in cuts:
        piece, data = data[:size], data[size:]
        if piece:
            stream.take(piece)
    if data:
        stream.take(data)
    stream.take(b"")
    assert stream.phase == "two é"
    assert decode_answer(stream.answer) == EngineBuilt("x.engine")


@given(st.binary(max_size=300))
def test_no_bytes_at_all_are_too_strange(data: bytes) -> None:
    stream = AnswerStream()
    stream.take(data) if data else None
    stream.take(b"")
    assert len(stream.phase) <= PHASE_MAX_CHARS
    assert len(stream.answer) <= ANSWER_MAX_BYTES + 1


def test_a_line_without_end_is_cut_off() -> None:
    stream = AnswerStream()
    for _ in range(10):
        stream.take(b"x" * ANSWER_MAX_BYTES)
    stream.take(b"")
    assert len(stream.answer) == ANSWER_MAX_BYTES + 1


def test_an_answer_of_many_lines_in_its_text_is_one_line(ends: tuple[int, int]) -> None:
    failed = RequestFailed("EngineBuildError", "expected\nthis\n")
    AnswerPipe(ends[1]).answer(failed)
    assert decode_answer(received(ends).answer) == failed


def test_an_empty_line_takes_no_answers_place() -> None:
    stream = AnswerStream()
    stream.take(b'{"type":"EngineBuilt","engine":"x.engine"}\n\n')
    stream.take(b"")
    assert decode_answer(stream.answer) == EngineBuilt("x.engine")
