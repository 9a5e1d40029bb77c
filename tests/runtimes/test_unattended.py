"""Output that nobody can read any more, and a terminal that is closed."""

from __future__ import annotations

import errno
import io
import os
import pty
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from runtimes.unattended import UnattendedOutput, outliving_the_terminal, unattended_output

ENDS_WITHIN_S = 120.0


def test_a_pipe_without_a_reader_is_given_up_once_and_takes_everything_after_that() -> None:
    receiving, sending = os.pipe()
    with open(sending, "w") as stream:  # noqa: PTH123 - a descriptor has no path
        output = UnattendedOutput(stream)
        output.write("read\n")
        assert os.read(receiving, 100) == b"read\n"
        os.close(receiving)
        output.write("lost\n")
        output.finish(ENDS_WITHIN_S)
        assert output.lost is not None
        assert output.lost.errno == errno.EPIPE
        assert output.write("nowhere\n") == 8


def test_a_closed_terminal_is_given_up() -> None:
    master, slave = pty.openpty()
    with open(slave, "w") as stream:  # noqa: PTH123 - a descriptor has no path
        output = UnattendedOutput(stream)
        assert output.isatty()
        os.close(master)
        output.write("lost\n")
        output.finish(ENDS_WITHIN_S)
        assert output.lost is not None
        assert output.lost.errno == errno.EIO
        assert not output.isatty()


def test_a_reader_that_does_not_read_makes_nobody_wait_and_sees_the_newest_in_the_end() -> None:
    receiving, sending = os.pipe()
    os.set_blocking(sending, False)
    with suppress(BlockingIOError):
        while True:
            os.write(sending, b"." * 4096)
    os.set_blocking(sending, True)
    with open(sending, "w") as stream:  # noqa: PTH123 - a descriptor has no path
        output = UnattendedOutput(stream)
        for number in range(100_000):
            output.write(f"line {number}\n")
        output.finish(0.01)  # the pipe is full: however long it waited, nothing would be written
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(read_to_the_end, receiving)
            output.finish(ENDS_WITHIN_S)
            stream.close()
            lines = reading.result(timeout=ENDS_WITHIN_S).decode().lstrip(".").splitlines()
    assert lines[-1] == "line 99999"
    assert len(lines) < 20_000
    assert output.lost is None


def read_to_the_end(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()


def test_what_is_read_goes_through_unchanged_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("w", encoding="utf-8") as stream, unattended_output(stream) as output:
        for number in range(1000):
            output.write(f"line {number} µ\n")
    assert path.read_text(encoding="utf-8") == "".join(f"line {number} µ\n" for number in range(1000))


def test_a_stream_in_memory_and_one_that_was_closed_before_are_streams_too() -> None:
    stream = io.StringIO()
    with unattended_output(stream) as output:
        assert output.write("line\n") == 5
    assert (stream.getvalue(), output.lost, output.encoding) == ("line\n", None, "utf-8")
    with unattended_output(None) as nowhere:
        assert nowhere.write("line\n") == 5
        assert not nowhere.isatty()


def test_a_hangup_ends_neither_the_process_nor_a_child_of_it() -> None:
    former = signal.getsignal(signal.SIGHUP)
    with outliving_the_terminal():
        os.kill(os.getpid(), signal.SIGHUP)
        child = subprocess.run(
            [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGHUP); print('alive')"],
            capture_output=True,
            text=True,
            check=True,
        )
    assert child.stdout == "alive\n"
    assert signal.getsignal(signal.SIGHUP) == former


def test_outside_the_main_thread_the_signal_is_left_alone() -> None:
    def handler_inside() -> object:
        with outliving_the_terminal():
            return signal.getsignal(signal.SIGHUP)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(handler_inside).result(timeout=60) == signal.getsignal(signal.SIGHUP)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_told_from_a_reader_that_is_gone() -> None:
    with Path("/dev/full").open("w") as stream:
        output = UnattendedOutput(stream)
        output.write("line\n")
        output.finish(ENDS_WITHIN_S)
        assert output.lost is not None
        assert output.lost.errno == errno.ENOSPC
