"""Running trtexec: bounded in time and output, in a process group of its own, and never longer than this process."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import IO

from messages import EngineBuildError
from messages.clock import NS_PER_S
from runtimes.tensorrt.building.trtexec_output import LINE_MAX_CHARS, TrtexecLine, TrtexecOutput

POLL_S = 0.5
_EXIT_TIMEOUT_S = 30.0
_READ_BYTES = 64 * 1024

_DIE_WITH_PARENT = (
    "import ctypes, os, signal, sys;"
    "ctypes.CDLL(None).prctl(1, signal.SIGKILL);"  # PR_SET_PDEATHSIG of linux/prctl.h; it outlives exec
    "os.getppid() == int(sys.argv[1]) or os.kill(os.getpid(), signal.SIGKILL);"
    "os.execv(sys.argv[2], sys.argv[2:])"
)


def run_trtexec(
    command: Sequence[str],
    *,
    timeout_s: float,
    cancelled: Callable[[], str] = str,
    read: Callable[[TrtexecLine], None] | None = None,
) -> tuple[int, TrtexecOutput]:
    """Its exit code and what it printed; `command[0]` is an absolute path. `read` as `TrtexecOutput` has it.

    Raises EngineBuildError where it cannot be started, takes longer than `timeout_s`, or `cancelled` gives a reason.
    It has ended then, with all that it started.
    """
    launcher = (sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()))
    try:
        child = subprocess.Popen(  # noqa: S603 - a list of arguments, no shell
            [*launcher, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise EngineBuildError(f"{command[0]}: cannot be started: {error.strerror}") from error
    output = TrtexecOutput(read)
    with child:
        try:
            assert child.stdout is not None  # noqa: S101 - it was asked for
            _listen(child.stdout, output, time.monotonic_ns() + int(timeout_s * NS_PER_S), timeout_s, cancelled)
            code = child.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise EngineBuildError(f"trtexec closed its output and did not end in {_EXIT_TIMEOUT_S:.0f} s") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    return code, output


def _listen(
    stdout: IO[bytes], output: TrtexecOutput, until_ns: int, timeout_s: float, cancelled: Callable[[], str]
) -> None:
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        while True:
            reason = cancelled()
            if reason:
                raise EngineBuildError(f"the build was ended: {reason}")
            if time.monotonic_ns() >= until_ns:
                raise EngineBuildError(
                    f"trtexec did not end in {timeout_s:.0f} s; its last line: {output.last[:200] or 'none'}"
                )
            if not selector.select(POLL_S):
                continue
            data = os.read(stdout.fileno(), _READ_BYTES)
            if not data:
                output.take(rest.decode("utf-8", errors="replace"))
                return
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                output.take(line.decode("utf-8", errors="replace"))
            rest = rest[: LINE_MAX_CHARS * 4]
