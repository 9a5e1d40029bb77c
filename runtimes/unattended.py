"""A command that goes on when the terminal it was started in is closed, or nobody reads its output any more."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


class UnattendedOutput(io.TextIOBase):
    """A text stream that is given up at the first write that fails, and takes everything from then on.

    `lost` is why: EPIPE after the reader of a pipe went away, EIO after a terminal was closed. Any thread may write.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self.lost: OSError | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override] # read-only in Python, whatever typeshed says
        return self._stream.encoding or "utf-8"

    def write(self, text: str) -> int:
        try:
            return len(text) if self.lost else self._stream.write(text)
        except OSError as error:
            self._give_up(error)
            return len(text)

    def flush(self) -> None:
        try:
            if not self.lost:
                self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    def _give_up(self, error: OSError) -> None:
        self.lost = error
        with suppress(io.UnsupportedOperation):  # a stream in memory has no descriptor
            descriptor = self._stream.fileno()
            # What the stream still holds is written at the end of the process; let it be written to nowhere.
            nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


@contextmanager
def outliving_the_terminal() -> Iterator[None]:
    """SIGHUP ends neither this process nor, because ignoring is inherited, a child that it starts meanwhile.

    Does nothing outside the main thread, which alone may set signal handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, former)
