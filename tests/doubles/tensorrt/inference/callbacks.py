"""What TensorRT calls back: loggers, error recorders and output allocators.

`python/src/infer/pyCore.cpp`, tag v10.3.0: each trampoline prints what Python raised, and gives its default.
"""

# ruff: noqa: N802 - the names are NVIDIA's

from __future__ import annotations

import sys
from typing import Any

from ..core import guarded
from ..enums import ErrorCodeTRT, Severity
from .bound import Callback, incompatible, pure_virtual
from .foundational_types import Dims

_MAX_DESC_LENGTH = 127


class ILogger(Callback):
    """PyLogger: `log` is found by its name in a subclass."""

    __slots__ = ()
    INTERNAL_ERROR = Severity.INTERNAL_ERROR
    ERROR = Severity.ERROR
    WARNING = Severity.WARNING
    INFO = Severity.INFO
    VERBOSE = Severity.VERBOSE

    def __init__(self) -> None:
        super().__init__()

    def log(self, severity: Severity, msg: str) -> None:
        raise pure_virtual("ILogger", "log")


ILogger.Severity = Severity  # type: ignore[attr-defined]


class Logger(ILogger):
    """DefaultLogger: C++ throughout, so that a `log` of a subclass is never called by TensorRT."""

    __slots__ = ("min_severity",)

    def __init__(self, min_severity: Severity = Severity.WARNING) -> None:
        super().__init__()
        self.min_severity = min_severity

    def log(self, severity: Severity, msg: str) -> None:
        if int(severity) <= int(self.min_severity):
            print(f"[TRT] [{Severity(severity).name[0]}] {msg}", file=sys.stdout)


class IErrorRecorder(Callback):
    """PyErrorRecorder: of its methods one is bound as `num_errors` and called as `get_num_errors`."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()

    @property
    def MAX_DESC_LENGTH(self) -> int:
        return _MAX_DESC_LENGTH

    def num_errors(self) -> int:
        raise pure_virtual("IErrorRecorder", "get_num_errors")

    def get_error_code(self, arg0: int, /) -> ErrorCodeTRT:
        raise pure_virtual("IErrorRecorder", "get_error_code")

    def get_error_desc(self, arg0: int, /) -> str:
        raise pure_virtual("IErrorRecorder", "get_error_desc")

    def has_overflowed(self) -> bool:
        raise pure_virtual("IErrorRecorder", "has_overflowed")

    def clear(self) -> None:
        raise pure_virtual("IErrorRecorder", "clear")

    def report_error(self, arg0: ErrorCodeTRT, arg1: str, /) -> bool:
        raise pure_virtual("IErrorRecorder", "report_error")


class IOutputAllocator(Callback):
    """PyOutputAllocator binds the constructor alone; overrides are found by name."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()


def reallocate(allocator: Any, name: str, current: int, size_bytes: int, stream: int) -> int:
    """reallocateOutputAsync: the address, 0 for none. Without that override the older `reallocate_output` is called.

    "size number of bytes required. Always positive, even for an empty tensor" (`NvInferRuntime.h` of 10.3).
    """
    override = getattr(allocator, "reallocate_output_async", None)
    arguments: tuple[object, ...] = (name, current, max(size_bytes, 1), 256)
    if override is not None:
        given = guarded(override, *arguments, stream, default=0)
    else:
        older = getattr(allocator, "reallocate_output", None)
        given = 0 if older is None else guarded(older, *arguments, default=0)
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        called = "reallocateOutputAsync" if override is not None else "reallocateOutput"
        print(f"[ERROR] Return value of {called}() could not be interpreted as an int", file=sys.stderr)
        return 0
    return given


def notify(allocator: Any, name: str, shape: tuple[int, ...]) -> None:
    def notify_shape(name: str, dims: Dims) -> None:
        override = getattr(allocator, "notify_shape", None)
        if override is None:
            raise pure_virtual("IOutputAllocator", "notify_shape")
        override(name, dims)

    guarded(notify_shape, name, Dims(shape), default=None)


def require_recorder(value: object) -> None:
    if value is not None and not isinstance(value, IErrorRecorder):
        raise incompatible("error_recorder", value)
