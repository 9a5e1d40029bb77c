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
from pathlib import Path

import pytest

from runtimes.unattended import UnattendedOutput, outliving_the_terminal


def test_a_pipe_without_a_reader_is_given_up_once_and_takes_everything_after_that() -> None:
    receiving, sending = os.pipe()
    with open(sending, "w") as stream:  # noqa: PTH123 - a descriptor has no path
        output = UnattendedOutput(stream)
        output.write("read\n")
        output.flush()
        assert os.read(receiving, 100) == b"read\n"
        os.close(receiving)
        output.write("lost\n")
        output.flush()
        assert output.lost is not None
        assert output.lost.errno == errno.EPIPE
        assert output.write("nowhere\n") == 8
        output.flush()
    # Closing flushed what the stream still held, and did not raise.


def test_a_closed_terminal_is_given_up() -> None:
    master, slave = pty.openpty()
    with open(slave, "w") as stream:  # noqa: PTH123 - a descriptor has no path
        output = UnattendedOutput(stream)
        assert output.isatty()
        os.close(master)
        output.write("lost\n")
        output.flush()
        assert output.lost is not None
        assert output.lost.errno == errno.EIO
        assert not output.isatty()


def test_what_is_read_goes_through_unchanged() -> None:
    stream = io.StringIO()
    output = UnattendedOutput(stream)
    assert output.write("line\n") == 5
    output.flush()
    assert (stream.getvalue(), output.lost, output.encoding) == ("line\n", None, "utf-8")


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
        output.flush()
        assert output.lost is not None
        assert output.lost.errno == errno.ENOSPC
