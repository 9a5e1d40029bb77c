"""What a child process says to the provisioner on its pipe: now and then how far it is, at the end its answer.

One JSON document a line. The child writes from its library's own threads, and seldom: a builder that is slowed while it
measures makes another engine (pytorch/TensorRT#3215).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import msgspec

from messages.clock import NS_PER_S
from messages.errors import printable
from runtimes.provisioning.build_request import ANSWER_MAX_BYTES, Answer, encode

TELL_EVERY_S = 0.5
PHASE_MAX_CHARS = 300


class BuildStepped(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """How far a build is, in the library's own words."""

    phase: str


class AnswerPipe:
    """The child's end. Callable from any thread."""

    def __init__(self, descriptor: int, monotonic_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._descriptor = descriptor
        self._monotonic_ns = monotonic_ns
        self._lock = threading.Lock()
        self._told_ns: int | None = None

    def tell(self, phase: str) -> None:
        """At most each TELL_EVERY_S, and never waiting for another thread: what is left out is old by then."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            now_ns = self._monotonic_ns()
            if self._told_ns is None or now_ns - self._told_ns >= TELL_EVERY_S * NS_PER_S:
                self._told_ns = now_ns
                stepped = BuildStepped(printable(phase, PHASE_MAX_CHARS))
                os.write(self._descriptor, msgspec.json.encode(stepped) + b"\n")  # under PIPE_BUF: whole or not at all
        finally:
            self._lock.release()

    def answer(self, answer: Answer) -> None:
        with self._lock, open(self._descriptor, "wb", closefd=False) as pipe:
            pipe.write(encode(answer) + b"\n")


class AnswerStream:
    """The provisioner's end: takes what comes, whatever it is, within bounds."""

    def __init__(self) -> None:
        self.phase = ""
        """The newest."""
        self.answer = b""
        """The document that is no `BuildStepped`: the last one, complete or not, and cut off where it is too long."""
        self._line = b""

    def take(self, chunk: bytes) -> None:
        """One piece of what the child wrote; b"" for its end."""
        *lines, self._line = (self._line + chunk).split(b"\n")
        for line in filter(None, lines):
            self._take_line(line)
        self._line = self._line[: ANSWER_MAX_BYTES + 1]
        if not chunk and self._line:
            self._take_line(self._line)
            self._line = b""

    def _take_line(self, line: bytes) -> None:
        try:
            self.phase = msgspec.json.decode(line, type=BuildStepped).phase[:PHASE_MAX_CHARS]
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.answer = line[: ANSWER_MAX_BYTES + 1]
