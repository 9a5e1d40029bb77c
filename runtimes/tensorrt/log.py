"""The one logger that TensorRT is given in this process, and who listens to it.

TensorRT keeps the first logger that it is given for the whole process (`NvInferRuntime.h` of 10.3, createInferRuntime
and createInferBuilder), and calls it from its own threads too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import Literal, Protocol, cast, get_args

import msgspec

from messages.errors import printable

Severity = Literal["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"]
"""Names of `ILogger.Severity`, the gravest first."""
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
ERRORS: tuple[Severity, ...] = ("INTERNAL_ERROR", "ERROR")

LINE_MAX_CHARS = 2_000
LINES_MAX = 10_000
"""Lines of one listener. A build writes thousands, and a line per tensor without a scale."""
ERRORS_MAX = 100
"""Errors have a room of their own: the one that ends a long build comes last."""


class TensorrtLine(msgspec.Struct, frozen=True):
    """One line of TensorRT's log, and the thread that it came from."""

    severity: Severity
    text: str
    thread: int


class Listener:
    """What TensorRT said while somebody listened, in its order. Read it from any thread, also after the end."""

    def __init__(self, least: Severity, thread: int | None, read: Callable[[TensorrtLine], None] | None) -> None:
        self._read = read
        self._kept: tuple[Severity, ...] = SEVERITIES[: SEVERITIES.index(least) + 1]
        self._thread = thread
        self._lines: list[TensorrtLine] = []
        self._errors = 0
        self.dropped = 0
        """Lines that found no room."""

    @property
    def lines(self) -> tuple[TensorrtLine, ...]:
        return tuple(self._lines)

    @property
    def errors(self) -> tuple[TensorrtLine, ...]:
        return tuple(line for line in self.lines if line.severity in ERRORS)

    def wants(self, severity: Severity, thread: int) -> bool:
        return severity in self._kept and self._thread in (None, thread)

    def take(self, line: TensorrtLine) -> None:
        if self._read is not None:
            self._read(line)
        is_error = line.severity in ERRORS
        if self._errors >= ERRORS_MAX if is_error else len(self._lines) - self._errors >= LINES_MAX:
            self.dropped += 1
            return
        self._errors += is_error
        self._lines.append(line)


class Loudspeaker:
    """Hands each line to all that listen. Callable from any thread, TensorRT's own among them; never raises."""

    def __init__(self) -> None:
        # Reentrant: the collector may run in here, and what it puts away may be an engine, which logs.
        self._lock = threading.RLock()
        self._listeners: tuple[Listener, ...] = ()

    def say(self, severity: Severity, text: str) -> None:
        thread = threading.get_ident()
        if not any(listener.wants(severity, thread) for listener in self._listeners):
            return
        line = TensorrtLine(severity, printable(" ".join(text.split()), LINE_MAX_CHARS), thread)
        with self._lock:
            for listener in self._listeners:
                if listener.wants(severity, thread):
                    listener.take(line)

    @contextmanager
    def listening(
        self,
        least: Severity = "INFO",
        *,
        this_thread_only: bool = False,
        read: Callable[[TensorrtLine], None] | None = None,
    ) -> Iterator[Listener]:
        """All lines of severity `least` and graver, of every thread or of the calling one, until the end.

        `read` is given each of them, also those that find no room to be kept: one at a time, from TensorRT's threads,
        and it must not raise.
        """
        listener = Listener(least, threading.get_ident() if this_thread_only else None, read)
        with self._lock:
            self._listeners = (*self._listeners, listener)
        try:
            yield listener
        finally:
            with self._lock:
                self._listeners = tuple(each for each in self._listeners if each is not listener)


class TensorrtLog(Protocol):
    """The logger itself: an `ILogger`, to be given to TensorRT's Builder, Runtime and parser as it is."""

    def listening(
        self,
        least: Severity = "INFO",
        *,
        this_thread_only: bool = False,
        read: Callable[[TensorrtLine], None] | None = None,
    ) -> AbstractContextManager[Listener]: ...


_lock = threading.Lock()
_process_logs: dict[ModuleType, TensorrtLog] = {}
"""One for each library: a second logger of the same one would hear nothing."""


def process_log(trt: ModuleType) -> TensorrtLog:
    """The logger of this process, made at the first call. Callable from any thread."""
    with _lock:
        if trt not in _process_logs:
            _process_logs[trt] = _make_log(trt)
        return _process_logs[trt]


def _make_log(trt: ModuleType) -> TensorrtLog:
    # `ILogger` and not `Logger`: the latter is C++ throughout and never calls a method of a subclass
    # (python/src/infer/pyCore.cpp, DefaultLogger, tag v10.3.0).
    class ProcessLog(trt.ILogger, Loudspeaker):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            Loudspeaker.__init__(self)

        def log(self, severity: object, msg: str) -> None:
            self.say(_severity(severity), msg)

    return cast("TensorrtLog", ProcessLog())


def _severity(severity: object) -> Severity:
    """By its name; a graver one than is known counts as an error."""
    name = getattr(severity, "name", "")
    return cast("Severity", name) if name in SEVERITIES else "ERROR"
