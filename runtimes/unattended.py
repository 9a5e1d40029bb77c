"""A command that goes on when the terminal it was started in is closed, stuck, or read by nobody any more."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

PENDING_MAX_BYTES = 64 * 1024
"""What waits for a reader that does not read; the oldest is dropped for the newest."""
FINISH_WITHIN_S = 5.0


class UnattendedOutput(io.TextIOBase):
    """A text stream on which no writer ever waits or fails.

    A thread of its own writes: a remote terminal whose connection hangs blocks that thread alone. The first write that
    fails is the last one, and `lost` says why: EPIPE after the reader of a pipe went away, EIO after a terminal was
    closed. A stream without a descriptor is written to at once, and None, a stream that was closed before the process
    began, takes everything. Any thread may write.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream
        self._descriptor = _descriptor_of(stream)
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._ended = False
        self._changed = threading.Condition()
        self._writer = threading.Thread(target=self._write_pending, name="unattended output", daemon=True)
        self.lost: OSError | None = None
        if self._descriptor is not None:
            self._writer.start()

    @property
    def encoding(self) -> str:  # type: ignore[override] # read-only in Python, whatever typeshed says
        return (self._stream.encoding if self._stream is not None else None) or "utf-8"

    def write(self, text: str) -> int:
        if self._descriptor is None:
            return len(text) if self._stream is None else self._stream.write(text)
        data = text.encode(self.encoding, "replace")
        with self._changed:
            if self.lost is None and not self._ended:
                self._pending.append(data)
                self._pending_bytes += len(data)
                while self._pending_bytes > PENDING_MAX_BYTES and len(self._pending) > 1:
                    self._pending_bytes -= len(self._pending.popleft())
                self._changed.notify_all()
        return len(text)

    def flush(self) -> None:
        if self._descriptor is None and self._stream is not None:
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def writable(self) -> bool:
        return True

    def finish(self, within_s: float = FINISH_WITHIN_S) -> None:
        """Write what is pending and end. Gives up, and leaves the thread behind, where nobody reads for so long."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._writer.is_alive():
            self._writer.join(within_s)

    def _write_pending(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._ended)
                rest = memoryview(b"".join(self._pending))
                self._pending.clear()
                self._pending_bytes = 0
            if not rest:
                return
            try:
                assert self._descriptor is not None  # noqa: S101 - this thread is started only where there is one
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError as error:
                with self._changed:
                    self.lost = error
                    self._pending.clear()
                return


@contextmanager
def unattended_output(stream: TextIO | None) -> Iterator[UnattendedOutput]:
    """The stream for the block, finished at its end."""
    output = UnattendedOutput(stream)
    try:
        yield output
    finally:
        output.finish()


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


def _descriptor_of(stream: TextIO | None) -> int | None:
    """Where the stream writes to, with nothing left in its own buffer; None for one in memory."""
    if stream is None:
        return None
    try:
        descriptor = stream.fileno()
    except io.UnsupportedOperation:
        return None
    stream.flush()
    return descriptor
