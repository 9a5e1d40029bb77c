"""Running one request in a child process: bounded in time and in output, with a heartbeat while it lasts."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import msgspec

from messages.clock import NS_PER_S
from messages.errors import EngineBuildError
from runtimes.config import C7InferenceConfig
from runtimes.provisioning.answer_stream import AnswerStream
from runtimes.provisioning.build_request import (
    Answer,
    BuildEngine,
    EngineBuilt,
    ProbeRuntime,
    Request,
    RequestFailed,
    RuntimeProbed,
    decode_answer,
    encode,
)

Heartbeat = Callable[[int, str], None]
"""Called with the nanoseconds since the build began, and how far the library says that it is, "" where it does not."""

BUILD_TIMEOUT_S = 4 * 3600.0
"""INT8 builds with calibration take tens of minutes on a Jetson."""
PROBE_TIMEOUT_S = 180.0
"""A cold import of torch from an SD card takes tens of seconds."""
HEARTBEAT_S = 1.0
_EXIT_TIMEOUT_S = 30.0
_TAIL_BYTES = 16 * 1024
_TAIL_CHARS = 500
_READ_BYTES = 64 * 1024

COMMAND: tuple[str, ...] = (sys.executable, "-m", "runtimes.provisioning.build_one")


def probe_runtime(
    config: C7InferenceConfig, *, timeout_s: float = PROBE_TIMEOUT_S, command: Sequence[str] = COMMAND
) -> RuntimeProbed:
    """Which label and host tuple the configured runtime has here, found by constructing it in a child process.

    Raises what `build_inference_runtime` raises, and EngineBuildError where the child crashes or hangs.
    """
    answer = run_request(ProbeRuntime(config), timeout_s=timeout_s, command=command)
    if not isinstance(answer, RuntimeProbed):
        raise EngineBuildError(f"{config.runtime}: expected its label, got {type(answer).__name__}")
    return answer


def build_engine(
    request: BuildEngine,
    *,
    timeout_s: float = BUILD_TIMEOUT_S,
    heartbeat: Heartbeat | None = None,
    command: Sequence[str] = COMMAND,
) -> EngineBuilt:
    """Compile one engine. `heartbeat` is called each second.

    Raises the typed error of the build, and EngineBuildError where the child crashes or takes too long.
    """
    answer = run_request(request, timeout_s=timeout_s, heartbeat=heartbeat, command=command)
    if not isinstance(answer, EngineBuilt):
        raise EngineBuildError(f"{request.model}: expected an engine, got {type(answer).__name__}")
    return answer


def run_request(
    request: Request,
    *,
    timeout_s: float,
    heartbeat: Heartbeat | None = None,
    command: Sequence[str] = COMMAND,
) -> Answer:
    """Run a request in a child process and wait for its answer. Raises its typed error, or EngineBuildError.

    The child and what it started have ended then, but for a process that left its group. Where this process is killed
    the child ends too, and what it started does not.
    """
    subject = request.model if isinstance(request, BuildEngine) else request.config.runtime
    with (
        # What left its group may be writing there still; that is no reason to lose the answer.
        tempfile.TemporaryDirectory(prefix="c7-build-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as stdin,
    ):
        empty, temporary = Path(folder) / "empty", Path(folder) / "temporary"
        empty.mkdir()
        temporary.mkdir()
        stdin.write(encode(request))
        stdin.seek(0)
        receiving, sending = os.pipe()
        try:
            child = subprocess.Popen(  # noqa: S603 - our own module, no shell
                [*command, str(sending), str(os.getpid())],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(sending,),
                # A group of its own, so that what it starts ends with it. No terminal's Ctrl-C reaches it: we end it.
                start_new_session=True,
                # An empty folder: `python -m` puts the working directory first on the module path.
                cwd=empty,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in sys.path),
                    # Ours to remove: a build that is killed leaves its copy of the model, and half an engine.
                    "TMPDIR": str(temporary),
                },
            )
        except BaseException:
            os.close(receiving)
            raise
        finally:
            os.close(sending)
        with child, open(receiving, "rb", buffering=0) as answers:  # noqa: PTH123 - a descriptor has no path
            try:
                output, data = _listen(child, answers, subject, timeout_s, heartbeat)
            finally:
                # Whatever it left behind would go on writing into folders that are about to be removed.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                # After a Ctrl-C `Popen` itself waits a quarter of a second; the child may be writing until it ends.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(_EXIT_TIMEOUT_S)
    return _judge(child.returncode, output, data, subject)


def _listen(
    child: subprocess.Popen[bytes],
    answers: IO[bytes],
    subject: str,
    timeout_s: float,
    heartbeat: Heartbeat | None,
) -> tuple[bytes, bytes]:
    """The end of what the child printed, and its answer, once both have ended."""
    began_ns = time.monotonic_ns()
    ended_ns: int | None = None
    beats = 0
    output = b""
    stream = AnswerStream()
    with selectors.DefaultSelector() as selector:
        assert child.stdout is not None  # noqa: S101 - it was asked for
        selector.register(child.stdout, selectors.EVENT_READ, "output")
        selector.register(answers, selectors.EVENT_READ, "answer")
        while selector.get_map():
            ready = selector.select(HEARTBEAT_S)
            for key, _ in ready:
                chunk = os.read(key.fd, _READ_BYTES)
                if not chunk:
                    selector.unregister(key.fileobj)
                if key.data == "answer":
                    stream.take(chunk)
                else:
                    output = (output + chunk)[-_TAIL_BYTES:]
            elapsed_ns = time.monotonic_ns() - began_ns
            if elapsed_ns > timeout_s * NS_PER_S:
                raise EngineBuildError(f"{subject}: the build was stopped after {timeout_s:.0f} s{_last_words(output)}")
            if heartbeat is not None and elapsed_ns // NS_PER_S > beats:
                beats = elapsed_ns // NS_PER_S
                heartbeat(elapsed_ns, stream.phase)
            if child.poll() is not None:
                # What it wrote itself is in the pipes by now; a process that it left behind may hold them, and write.
                ended_ns = ended_ns or time.monotonic_ns()
                if not ready or time.monotonic_ns() - ended_ns > HEARTBEAT_S * NS_PER_S:
                    break
    try:
        child.wait(_EXIT_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise EngineBuildError(
            f"{subject}: the build closed its output but did not end within {_EXIT_TIMEOUT_S:.0f} s"
        ) from error
    stream.take(b"")
    return output, stream.answer


def _judge(returncode: int, output: bytes, data: bytes, subject: str) -> Answer:
    try:
        answer = decode_answer(data) if data else None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EngineBuildError(f"{subject}: the build's answer is garbled: {str(error)[:200]}") from error
    if isinstance(answer, RequestFailed):
        raise answer.error()
    if answer is None or returncode != 0:
        raise EngineBuildError(f"{subject}: the build {_how_it_ended(returncode)}{_last_words(output)}")
    return answer


def _how_it_ended(returncode: int) -> str:
    if returncode >= 0:
        return f"ended with exit code {returncode} and no answer"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    hint = " (the kernel does so when memory runs out)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def _last_words(output: bytes) -> str:
    lines = output.decode("utf-8", errors="replace").splitlines()
    printable = ("".join(char for char in line if char.isprintable()).strip() for line in lines)
    text = " | ".join(line for line in printable if line)[-_TAIL_CHARS:]
    return f"; its last words: {text}" if text else "; it printed nothing"
