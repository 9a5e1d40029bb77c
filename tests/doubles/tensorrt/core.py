"""What a test says to the double of TensorRT, and how all of it reports: `CORE`, one for the process.

A child process is told through the environment variable TENSORRT_DOUBLE, a JSON object:
{"version": [10, 3, 0, 26], "device": "double", "fail": [["build_serialized_network", "Error Code 10: ...", "ERROR"]]}.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

from .enums import ErrorCodeTRT, Severity


@dataclass
class Failure:
    """One call that does not do its work: it says `text` and gives None or False, and raises nothing."""

    call: str
    text: str
    code: str
    after: int
    times: int
    goes_on: bool = False
    """The call says it and does its work all the same."""


@dataclass
class Core:
    version: tuple[int, int, int, int] = (10, 3, 0, 26)
    device: str = "double"
    compute: str = "8.7"
    """The device's compute capability."""
    logger: Any = None
    """The first that any Builder or Runtime was given; TensorRT keeps that one for the whole process
    (`NvInferRuntime.h` of 10.3, createInferRuntime)."""
    plugins: set[str] = field(default_factory=set)
    """Creators that are registered."""
    plugins_register: bool = True
    slow_types: set[str] = field(default_factory=set)
    """Names of `DataType` in which no kernel is the fastest: a build that may choose takes none of them."""
    tactic_bytes: int = 0
    """The scratch memory that one more tactic of each convolution asks a build for."""
    unscaled: set[str] = field(default_factory=set)
    """Tensors for which calibration finds no scale."""
    timed: list[str] = field(default_factory=list)
    """What builds measured, in order; what they found in a timing cache is in `found_timed`."""
    found_timed: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    """The methods that were called on anything, in order, where a test wants to know."""
    _failures: list[Failure] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def reset(self) -> None:
        self.__init__()  # type: ignore[misc]
        told = json.loads(os.environ.get("TENSORRT_DOUBLE", "{}"))
        self.version = tuple(told.get("version", self.version))
        self.device = told.get("device", self.device)
        self.compute = told.get("compute", self.compute)
        self.slow_types = set(told.get("slow_types", []))
        self.tactic_bytes = told.get("tactic_bytes", self.tactic_bytes)
        self.unscaled = set(told.get("unscaled", []))
        for failure in told.get("fail", []):
            self.fail(*failure)

    def fail(
        self,
        call: str,
        text: str,
        code: str = "INTERNAL_ERROR",
        after: int = 0,
        times: int = 1,
        *,
        goes_on: bool = False,
    ) -> None:
        """Let the method of this name fail `times` times, after `after` calls that do not. `code` is a name of
        `ErrorCodeTRT`. With an empty text it fails without a word.
        """
        with self._lock:
            self._failures.append(Failure(call, text, code, after, times, goes_on))

    def injected(self, call: str) -> Failure | None:
        with self._lock:
            self.calls.append(call)
            for failure in self._failures:
                if failure.call != call or failure.times == 0:
                    continue
                if failure.after > 0:
                    failure.after -= 1
                    continue
                failure.times -= 1
                return failure
        return None

    def report(self, recorder: Any, code: str, text: str) -> None:
        """An error: to the recorder of the object that met it, else to the log, never to both (`NvInferRuntime.h` of
        10.3, setErrorRecorder: "If an error recorder is not set, messages will be sent to the global log stream").
        """
        if not text:
            return
        if recorder is not None:
            guarded(recorder.report_error, ErrorCodeTRT[code], text, default=False)
            guarded(_count_errors, recorder, default=-1)
        else:
            self.say("ERROR", text)

    def say(self, severity: str, text: str) -> None:
        if self.logger is not None:
            guarded(self.logger.log, Severity[severity], text, default=None)


def _count_errors(recorder: Any) -> int:
    """getNbErrors of `python/src/infer/pyCore.cpp`, tag v10.3.0: the override that is called is `get_num_errors`."""
    return int(recorder.get_num_errors())


def guarded(function: Any, *arguments: Any, default: Any) -> Any:
    """A callback into Python: what it raises is printed and forgotten, as the real trampolines do."""
    try:
        return function(*arguments)
    except BaseException as error:  # noqa: BLE001 - the trampolines catch everything
        print(f"[ERROR] Exception caught in {getattr(function, '__name__', '?')}(): {error}", file=sys.stderr)
        return default


CORE = Core()
CORE.reset()
