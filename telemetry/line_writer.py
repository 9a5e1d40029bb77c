"""Lines of text that leave on a thread of their own, so that no reader and no disk can hold up the writer."""

from __future__ import annotations

import atexit
import os
import queue
import threading
from pathlib import Path
from typing import BinaryIO, Final, TextIO

LINES_MAX = 4096
FILE_MAX_BYTES = 16 * 1024 * 1024
FILES_KEPT = 4
EXIT_TIMEOUT_S: Final = 1.0


class LineWriter:
    """Writes to a text stream, or to a file that is rotated: `c7.log` is full, becomes `c7.log.1`, and so on.

    The stream stays the caller's and is not closed. A stream or disk that fails loses lines, which are counted in
    `lost`; the next line is tried again. Raises OSError where the file cannot be opened.
    """

    def __init__(self, sink: TextIO | Path, *, file_max_bytes: int = FILE_MAX_BYTES) -> None:
        self._stream = sink if not isinstance(sink, Path) else None
        self._file = RotatedFile(sink, file_max_bytes) if isinstance(sink, Path) else None
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock = threading.RLock()  # re-entrant: a finaliser may log while a line is queued
        self._closed = False
        self._lost = 0
        self._thread = threading.Thread(target=self._write, name="c7-log", daemon=True)
        self._thread.start()
        atexit.register(self.close, EXIT_TIMEOUT_S)

    @property
    def lost(self) -> int:
        return self._lost

    def write(self, line: bytes) -> None:
        """Queue one line, newline included. Never blocks and never raises."""
        with self._lock:
            if self._closed or self._queue.qsize() >= LINES_MAX:
                self.lose()
            else:
                self._queue.put(line)

    def close(self, timeout_s: float) -> bool:
        """Bring out what is queued; False where it was not taken in `timeout_s`. Closing twice does nothing more."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join(timeout_s)
        atexit.unregister(self.close)
        return not self._thread.is_alive()

    def lose(self) -> None:
        """Count a line that could not even be made."""
        with self._lock:
            self._lost += 1

    def _write(self) -> None:
        while (line := self._queue.get()) is not None:
            self._bring_out(line)
        if self._file is not None:
            self._file.close()

    def _bring_out(self, line: bytes) -> None:
        try:
            if self._file is not None:
                self._file.append(line)
            elif self._stream is not None:
                self._stream.write(line.decode())
                self._stream.flush()
        except Exception:  # noqa: BLE001 (a stream is the caller's object; whatever it does, the next line is tried)
            self.lose()


class RotatedFile:
    """A file that is moved aside when the next line would make it longer than `max_bytes`; the oldest are deleted."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._file = self._opened()
        self._torn = False

    def append(self, line: bytes) -> None:
        if self._file.closed:
            self._file = self._opened()
        size_bytes = os.fstat(self._file.fileno()).st_size
        if size_bytes and size_bytes + len(line) > self._max_bytes:
            self._file.close()
            for number in range(FILES_KEPT - 1, 0, -1):
                older = self._numbered(number)
                if older.exists():
                    older.replace(self._numbered(number + 1))
            self._path.replace(self._numbered(1))
            self._numbered(FILES_KEPT).unlink(missing_ok=True)
            self._file = self._opened()
        data = b"\n" + line if self._torn else line
        self._torn = True
        self._torn = self._file.write(data) != len(data)

    def close(self) -> None:
        self._file.close()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _opened(self) -> BinaryIO:
        return self._path.open("ab", buffering=0)
