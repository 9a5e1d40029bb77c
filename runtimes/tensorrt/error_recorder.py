"""Where TensorRT puts the errors of one runtime or engine, with their codes.

An object that has a recorder tells it its errors, and not the log (`NvInferRuntime.h` of 10.3, setErrorRecorder).
The core asks for `get_num_errors`; the bindings' own documentation names `num_errors` (both are in every version from
10.3 to 11.1).
"""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Protocol, cast

import msgspec

from messages.errors import printable

ERRORS_MAX = 64
TEXT_MAX_CHARS = 2_000


class RecordedError(msgspec.Struct, frozen=True):
    """`code` is its name in `ErrorCodeTRT`."""

    code: str
    text: str


class RecordedErrors:
    """The errors since the last `clear`. Callable from any thread; the oldest are kept where there is no more room."""

    def __init__(self) -> None:
        # Reentrant: the collector may run in here, and what it puts away may be an engine, which reports.
        self._lock = threading.RLock()
        self._errors: list[tuple[object, RecordedError]] = []
        self._overflowed = False

    def add(self, code: object, text: str) -> None:
        error = RecordedError(str(getattr(code, "name", code)), printable(" ".join(text.split()), TEXT_MAX_CHARS))
        with self._lock:
            if len(self._errors) < ERRORS_MAX:
                self._errors.append((code, error))
            else:
                self._overflowed = True

    def clear(self) -> None:
        with self._lock:
            self._errors.clear()
            self._overflowed = False

    def count(self) -> int:
        with self._lock:
            return len(self._errors)

    def overflowed(self) -> bool:
        with self._lock:
            return self._overflowed

    def at(self, index: int) -> tuple[object, RecordedError] | None:
        with self._lock:
            return self._errors[index] if 0 <= index < len(self._errors) else None

    def all(self) -> tuple[RecordedError, ...]:
        with self._lock:
            return tuple(error for _, error in self._errors)


class ErrorRecorder(Protocol):
    """An `IErrorRecorder`, to be assigned to TensorRT's `error_recorder` as it is."""

    @property
    def recorded(self) -> RecordedErrors: ...


def make_error_recorder(trt: ModuleType) -> ErrorRecorder:
    class Recorder(trt.IErrorRecorder):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)
            self.recorded = RecordedErrors()

        def num_errors(self) -> int:
            return self.recorded.count()

        def get_num_errors(self) -> int:
            return self.recorded.count()

        def get_error_code(self, index: int) -> object:
            found = self.recorded.at(index)
            return trt.ErrorCodeTRT.UNSPECIFIED_ERROR if found is None else found[0]

        def get_error_desc(self, index: int) -> str:
            found = self.recorded.at(index)
            return "" if found is None else found[1].text

        def has_overflowed(self) -> bool:
            return self.recorded.overflowed()

        def clear(self) -> None:
            self.recorded.clear()

        def report_error(self, code: object, desc: str) -> bool:
            self.recorded.add(code, desc)
            return True  # fatal: the call that met it ends, and its caller reads what stands here

    return cast("ErrorRecorder", Recorder())
