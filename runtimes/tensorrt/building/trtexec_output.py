"""What trtexec prints, read: its verdict, its version and TensorRT's own lines.

By samples/common/logging.h and samples/trtexec/trtexec.cpp of tag v10.3.0:

    &&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=...
    [11/24/2026-08:37:49] [I] TensorRT version: 10.3.0
    [11/24/2026-08:37:49] [W] [TRT] Skipping tactic ...
    &&&& PASSED TensorRT.trtexec [TensorRT v100300] # trtexec --onnx=...
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

LINES_MAX = 20_000
"""Kept of TensorRT's warnings. What comes after them is counted."""
ERRORS_MAX = 100
"""Errors have a room of their own: the one that ends a long build comes last."""
LINE_MAX_CHARS = 2_000

_LINE = re.compile(r"\[\d{2}/\d{2}/\d{4}-\d{2}:\d{2}:\d{2}\] \[(?P<severity>[FEWIV])\] (?:\[TRT\] )?(?P<text>.*)")
_VERDICT = re.compile(r"&&&& (PASSED|FAILED) TensorRT\.trtexec")
_VERSION = re.compile(r"TensorRT version: (\d+\.\d+\.\d+)")
_SEVERITIES = {"F": "INTERNAL_ERROR", "E": "ERROR", "W": "WARNING", "I": "INFO", "V": "VERBOSE"}
_KEPT = ("INTERNAL_ERROR", "ERROR", "WARNING")


class TrtexecLine(msgspec.Struct, frozen=True):
    """One line of the log, as `build_findings.LogLine` has it."""

    severity: str
    text: str


class TrtexecOutput:
    """Takes the lines as they come. Bounded, whatever is printed; `read` is given each warning and error."""

    def __init__(self, read: Callable[[TrtexecLine], None] | None = None) -> None:
        self._read = read
        self.verdict = ""
        """PASSED, FAILED, or "" where it did not come to one."""
        self.version = ""
        """TensorRT's version in three parts, "" before it was printed."""
        self.lines: list[TrtexecLine] = []
        """Warnings and errors."""
        self.left_out = 0
        self._errors = 0
        self.last = ""
        """The last line of all."""

    def take(self, line: str) -> None:
        text = line.rstrip()[:LINE_MAX_CHARS]
        if not text:
            return
        self.last = text
        verdict = _VERDICT.match(text)
        if verdict is not None:
            self.verdict = verdict[1]
            return
        match = _LINE.match(text)
        severity = "INFO" if match is None else _SEVERITIES[match["severity"]]
        said = text if match is None else match["text"]
        version = _VERSION.match(said)
        if version is not None and severity == "INFO":
            self.version = version[1]
        if severity in _KEPT:
            taken = TrtexecLine(severity, said)
            if self._read is not None:
                self._read(taken)
            is_error = severity != "WARNING"
            if self._errors >= ERRORS_MAX if is_error else len(self.lines) - self._errors >= LINES_MAX:
                self.left_out += 1
                return
            self._errors += is_error
            self.lines.append(taken)
