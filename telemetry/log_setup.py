"""The log: one JSON object per line, with the levels ERROR, WARN, INFO and DEBUG.

    {"level":"WARN","message":"C7 thermal throttle active; gpu_temp=83C; clock=750mhz","monotonic_ns":81239912,
     "wall_clock":"2025-03-01T10:00:00.123456+00:00","extra":{"model":"ultravpr"}}

`monotonic_ns` is what orders lines and compares with recordings; the wall clock is information only.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

import msgspec
from loguru import logger

from messages import LogRecorded, MonotonicClock, describe_error
from messages.errors import DETAIL_MAX_CHARS
from telemetry.flight_recorder import FlightRecorder
from telemetry.line_writer import LineWriter

if TYPE_CHECKING:
    import loguru

LogLevel = Literal["ERROR", "WARN", "INFO", "DEBUG"]

EXTRAS_MAX = 32
EXTRA_MAX_CHARS = 200
TRACEBACK_MAX_CHARS = 4000

_LOGURU_LEVELS: Mapping[LogLevel, str] = {"ERROR": "ERROR", "WARN": "WARNING", "INFO": "INFO", "DEBUG": "DEBUG"}


class LogSetup:
    """What `configure_logging` set up."""

    def __init__(self, writer: LineWriter, handlers: tuple[int, ...]) -> None:
        self._writer = writer
        self._handlers = handlers

    @property
    def lost(self) -> int:
        """Lines that did not reach the sink: it failed, or could not keep up."""
        return self._writer.lost

    def close(self, timeout_s: float = 2.0) -> bool:
        """Stop logging and bring out what is queued; False where the sink did not take it in `timeout_s`."""
        for handler in self._handlers:
            with suppress(ValueError):  # a later configuration has removed it already
                logger.remove(handler)
        return self._writer.close(timeout_s)


def configure_logging(
    *, level: LogLevel = "INFO", sink: TextIO | Path | None = None, recorder: FlightRecorder | None = None
) -> LogSetup:
    """Send the whole process's log to `sink`: a text stream (by default stderr), or a file that is rotated by size.

    A line is written by a thread of its own: a full pipe, a full disk or a closed stream neither blocks nor raises
    into the code that logs; what it could not take is counted. With a `recorder`, WARN and ERROR lines are recorded
    whatever `level` is. Replaces what was configured before. Raises OSError where a file cannot be opened.
    """
    writer = LineWriter(sys.stderr if sink is None else sink)
    logger.remove()

    def write_line(line: loguru.Message) -> None:
        try:
            writer.write(_json_line(line.record))
        except Exception:  # noqa: BLE001 (an extra or an error that cannot be printed must not raise where it was logged)
            writer.lose()

    handlers = [_add(write_line, _LOGURU_LEVELS[level])]
    if recorder is not None:
        record = recorder.record
        handlers.append(
            _add(
                lambda line: record(LogRecorded(level=_level(line.record), text=_text(line.record["message"]))),
                "WARNING",
            )
        )
    return LogSetup(writer, tuple(handlers))


def _add(sink: Callable[[loguru.Message], None], level: str) -> int:
    """`catch` keeps what a sink raises from the caller; tracebacks are made here, without the values of variables."""
    return logger.add(sink, level=level, format=_no_text, catch=True, backtrace=False, diagnose=False)


def _no_text(_record: loguru.Record) -> str:
    """The line is made from the record itself."""
    return ""


def _json_line(record: loguru.Record) -> bytes:
    line: dict[str, object] = {
        "level": _level(record),
        "message": _text(record["message"]),
        "monotonic_ns": MonotonicClock.monotonic_ns(),
        "wall_clock": record["time"].isoformat(),
    }
    if record["extra"]:
        extras = list(record["extra"].items())[:EXTRAS_MAX]
        line["extra"] = {_text(str(name), EXTRA_MAX_CHARS): _extra(value) for name, value in extras}
    cause = record["exception"]
    if cause is not None and cause.value is not None:
        line["error"] = _text(describe_error(cause.value))
        trace = "".join(traceback.format_exception(cause.type, cause.value, cause.traceback))
        line["traceback"] = _text(trace[-TRACEBACK_MAX_CHARS:], TRACEBACK_MAX_CHARS)
    return msgspec.json.encode(line) + b"\n"


def _level(record: loguru.Record) -> LogLevel:
    severity = record["level"].no
    if severity >= 40:
        return "ERROR"
    if severity >= 30:
        return "WARN"
    return "INFO" if severity >= 20 else "DEBUG"


def _extra(value: object) -> object:
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return value
    return _text(str(value), EXTRA_MAX_CHARS)


def _text(text: str, max_chars: int = DETAIL_MAX_CHARS) -> str:
    """Bounded, and whole Unicode: a file's name may hold bytes that are no text."""
    clipped = text if len(text) <= max_chars else text[: max_chars - 1] + "…"
    return clipped.encode("utf-8", "replace").decode()
