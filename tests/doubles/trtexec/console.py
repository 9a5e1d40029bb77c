"""How trtexec speaks (`samples/common/logging.h` and `ErrorRecorder.h`, v10.3.0)."""

from __future__ import annotations

import datetime
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.doubles import tensorrt as trt
else:
    import tensorrt as trt

_LETTERS = {"INTERNAL_ERROR": "F", "ERROR": "E", "WARNING": "W", "INFO": "I"}
"""Lines of severity VERBOSE are not printed without `--verbose`."""


def say(severity: str, text: str) -> None:
    """Errors go to stderr, all else to stdout (severityOstream)."""
    now = datetime.datetime.now(tz=datetime.timezone.utc)
    stream = sys.stderr if severity in "FE" else sys.stdout
    sys.stdout.flush()
    print(f"[{now:%m/%d/%Y-%H:%M:%S}] [{severity}] {text}", file=stream, flush=True)


class Log(trt.ILogger):
    def log(self, severity: Any, msg: str) -> None:
        if severity.name in _LETTERS:
            say(_LETTERS[severity.name], f"[TRT] {msg}")


class Recorder(trt.IErrorRecorder):
    """SampleErrorRecorder: an error is printed as `Error[code]: text`, without the mark of TensorRT's log."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def report_error(self, arg0: Any, arg1: str, /) -> bool:
        say("E", f"Error[{int(arg0)}]: {arg1}")
        self._count += 1
        return True

    def get_num_errors(self) -> int:
        return self._count
