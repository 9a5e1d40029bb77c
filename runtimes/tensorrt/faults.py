"""Which typed error it is that TensorRT reported, by its words and codes. Pure.

TensorRT raises nothing: a call gives None or False, and the reason stands in the log or the error recorder. Neither
alone tells enough. Memory that runs out is "Error Code 1: Cuda Runtime (out of memory)", or "Error Code 2: OutOfMemory
(Requested size was N bytes.)" (pytorch/TensorRT#4227), and seldom FAILED_ALLOCATION; a device that answers no more is
"Error Code 1: Cuda Runtime (an illegal memory access was encountered)".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from messages import (
    C7Error,
    EngineBuildError,
    EngineDeserializeError,
    InferenceError,
    OutOfMemoryError,
    TransientInferenceError,
)
from messages.errors import printable
from runtimes.cuda_errors import error_of_cuda, find_cuda_error
from runtimes.tensorrt.log import ERRORS

WORDS_MAX_CHARS = 500

_OUT_OF_MEMORY = re.compile(
    r"\bOutOfMemory\b|\bout of memory\b|\bcould not be allocated\b|\bbad_alloc\b|\bRequested size was \d+",
    re.IGNORECASE,
)
_SKIPPED = re.compile(r"\bSkipping tactic\b", re.IGNORECASE)
"""A line of a build that goes on: it left one of several ways out, whatever the reason."""

_CAUSES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(
            r"creator.*not f(?:ind|ound)|(?:could not|cannot) find plugin|plugin.*not (?:found|registered)",
            re.IGNORECASE,
        ),
        "a plugin of the engine is not here; load its library before, or compile the engine without it",
    ),
    (
        re.compile(
            r"not compatible with this version|version.*mismatch|version tag does not match|expecting library version",
            re.IGNORECASE,
        ),
        "the engine is another TensorRT's; compile it on this machine",
    ),
    (
        re.compile(r"compute capability|incompatible device|different device|platform", re.IGNORECASE),
        "the engine is another device's; compile it on this machine",
    ),
)
_COMPILE_AGAIN = "compile it on this machine: c7 provision FLIGHT.toml"


class LogLine(Protocol):
    """One line of TensorRT's log; `severity` is its name in `ILogger.Severity`."""

    @property
    def severity(self) -> str: ...

    @property
    def text(self) -> str: ...


class RecordedError(Protocol):
    """One error of a recorder; `code` is its name in `ErrorCodeTRT`."""

    @property
    def code(self) -> str: ...

    @property
    def text(self) -> str: ...


def error_of_build(subject: str, lines: Iterable[LogLine], recorded: Iterable[RecordedError] = ()) -> C7Error:
    """`subject` is the source model's file."""
    report = _report(lines, recorded)
    found = _of_resource(subject, report)
    if isinstance(found, OutOfMemoryError):
        return OutOfMemoryError(
            f"{subject}: {report.words}: the device has too little free memory for this build; end what else uses it,"
            " or lower workspace_mb"
        )
    return found or EngineBuildError(
        f"{subject}: TensorRT made no engine: {report.words}; change the model, its precision or workspace_mb"
    )


def error_of_load(subject: str, lines: Iterable[LogLine], recorded: Iterable[RecordedError] = ()) -> C7Error:
    """`subject` is the engine's file."""
    report = _report(lines, recorded)
    found = _of_resource(subject, report)
    if found is not None:
        return found
    remedy = next((remedy for cause, remedy in _CAUSES if any(map(cause.search, report.lines))), _COMPILE_AGAIN)
    return EngineDeserializeError(f"{subject}: TensorRT does not load the engine: {report.words}; {remedy}")


def error_of_run(model: str, what: str, lines: Iterable[LogLine], recorded: Iterable[RecordedError] = ()) -> C7Error:
    """`what` is the call that failed."""
    report = _report(lines, recorded)
    return _of_resource(model, report, transient=True) or InferenceError(
        f"{model}: {what} failed: {report.words}; TensorRT does not say that it passes: load the engine again"
    )


def words_of(lines: Iterable[LogLine], recorded: Iterable[RecordedError] = ()) -> str:
    """TensorRT's own words, the line that tells most first."""
    return _report(lines, recorded).words


class _Report(NamedTuple):
    lines: tuple[str, ...]
    codes: tuple[str, ...]

    @property
    def words(self) -> str:
        ranked = sorted(self.lines, key=_rank)
        return printable("; ".join(ranked), WORDS_MAX_CHARS) or "TensorRT says no reason"


def _report(lines: Iterable[LogLine], recorded: Iterable[RecordedError]) -> _Report:
    """An error may stand in recorder, log or both. Warnings count only where there is no error."""
    said = tuple(lines)
    errors = tuple(recorded)
    texts = [error.text for error in errors] + [line.text for line in said if line.severity in ERRORS]
    texts = texts or [line.text for line in said if line.severity == "WARNING"]
    return _Report(tuple(dict.fromkeys(texts)), tuple(error.code for error in errors))


def _of_resource(subject: str, report: _Report, *, transient: bool = False) -> C7Error | None:
    """What the words say of memory or device; None where they say nothing of either."""
    telling = [line for line in report.lines if not _SKIPPED.search(line)]
    for line in sorted(telling, key=_rank)[:1]:
        found = error_of_cuda(subject, line)
        if found is not None and (transient or not isinstance(found, TransientInferenceError)):
            return found
    if "FAILED_ALLOCATION" in report.codes or any(_OUT_OF_MEMORY.search(line) for line in telling):
        return OutOfMemoryError(
            f"{subject}: {report.words}: the device has too little free memory; fly fewer or smaller engines"
        )
    return None


_OUTLOOKS = ("sticky", "context_lost", "out_of_memory", "over")


def _rank(line: str) -> int:
    """CUDA's own errors by how far their damage goes, then memory, then all other words, then what was only skipped."""
    found = find_cuda_error(line)
    if found is not None:
        return _OUTLOOKS.index(found.outlook)
    if _SKIPPED.search(line):
        return len(_OUTLOOKS) + 2
    return len(_OUTLOOKS) + (0 if _OUT_OF_MEMORY.search(line) else 1)
