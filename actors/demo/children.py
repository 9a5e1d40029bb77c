"""The real commands, run as child processes: the demonstration has no flight of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType

from messages import FlightProcessError

TAIL_LINES = 20


def run_command(arguments: list[str], log: Path, timeout_s: float) -> None:
    """Run `c7 ARGUMENTS` to its end. Raises FlightProcessError with its last lines where it does not exit with 0."""
    with Child(arguments, log) as child:
        code = child.wait(timeout_s)
    if code != 0:
        raise FlightProcessError(f"`c7 {' '.join(arguments)}` ended with exit code {code}:\n{child.tail}\nlog: {log}")


class Child:
    """One `c7` process. All it prints goes into `log`; a reader thread looks for the line that `awaits` names."""

    def __init__(self, arguments: list[str], log: Path, awaits: str = "") -> None:
        self._arguments = arguments
        self._log = log
        self._awaits = awaits
        self._heard = False
        self._heard_or_ended = threading.Event()
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)
        self._process = subprocess.Popen(  # noqa: S603  # our own command
            [sys.executable, "-m", "actors", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, name="c7-child-log", daemon=True)
        self._reader.start()

    @property
    def tail(self) -> str:
        """The last lines it printed."""
        return "".join(self._lines)

    def wait_until_said(self, timeout_s: float) -> None:
        """Wait for the awaited line. Raises FlightProcessError where it ends or takes too long without it."""
        self._heard_or_ended.wait(timeout_s)
        if not self._heard:
            raise FlightProcessError(
                f"`c7 {' '.join(self._arguments)}` did not say {self._awaits!r} within {timeout_s:g} s "
                f"(exit code {self._process.poll()}):\n{self.tail}\nlog: {self._log}"
            )

    def wait_until_said_again(self, text: str, timeout_s: float) -> None:
        """Wait for the next line with `text`, from now on. Raises FlightProcessError like `wait_until_said`."""
        self._heard_or_ended.clear()
        self._heard = False
        self._awaits = text
        self.wait_until_said(timeout_s)

    def flies_on(self, seconds: float) -> None:
        """Let it run. Raises FlightProcessError where it ends before that."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        raise FlightProcessError(f"the flight process ended early, exit code {code}:\n{self.tail}\nlog: {self._log}")

    def kill(self) -> int:
        """SIGKILL: no handler, no goodbye. Returns the monotonic time of the kill in nanoseconds."""
        killed_at_ns = time.monotonic_ns()
        self._process.kill()
        self.wait(10.0)
        return killed_at_ns

    def terminate(self, timeout_s: float) -> int:
        """SIGTERM, then wait for the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float) -> int:
        """Wait for its end. Raises FlightProcessError after `timeout_s`; the process is then killed."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise FlightProcessError(
                f"`c7 {' '.join(self._arguments)}` did not end within {timeout_s:g} s and was killed; log: {self._log}"
            ) from None
        self._reader.join(timeout_s)
        return code

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101  # a pipe was asked for
        with self._log.open("w", encoding="utf-8") as log, self._process.stdout as lines:
            for line in lines:
                log.write(line)
                log.flush()
                self._lines.append(line)
                if self._awaits and self._awaits in line:
                    self._heard = True
                    self._heard_or_ended.set()
        self._heard_or_ended.set()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10.0)
        self._reader.join(10.0)
