"""The command `c7`: assembles what each package says of its own subject, and is the one place of exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import click
import msgspec

from actors.cli import declare, demo, doctor, fly, preflight
from actors.cli_engines import prune
from actors.flight.process import RestartNeededError
from messages import C7Error, ConfigError
from messages.errors import printable_lines
from runtimes.cli import provision
from runtimes.cli_engine_store import list_generations, rollback
from runtimes.cli_engines import engines
from runtimes.cli_infer import infer
from telemetry import configure_logging

DONE = 0
REFUSED = 1
UNUSABLE_INPUT = 2
INTERNAL_ERROR = 70
RESTART_ME = 75
INTERRUPTING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="c7-inference", prog_name="c7")
def c7() -> None:
    """The on-board inference runtime: provision engines, rehearse a takeoff, fly, and see what happened."""


for command in (doctor, provision, engines, preflight, fly, declare, infer, demo):
    c7.add_command(command)
for command in (list_generations, rollback, prune):
    engines.add_command(command)


def exit_code(error: BaseException) -> int:
    """0 done, 1 refused, 2 wrong usage or unreadable input, 70 internal error, 75 please start me again."""
    if isinstance(error, RestartNeededError):
        return RESTART_ME
    if isinstance(error, ConfigError | click.UsageError):
        return UNUSABLE_INPUT
    if isinstance(error, C7Error | click.ClickException | click.Abort) or _is_of_stdout(error):
        return REFUSED
    return INTERNAL_ERROR


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code. Errors go to stderr; with `--json` also as the one document.

    Without `arguments` it runs this process's own, and ends the process itself where threads had to be left behind:
    the end of the interpreter would break into a daemon, which foreign code such as ONNX Runtime answers with an abort,
    and would wait for any other, such as a camera's, without end.
    """
    code = _run(sys.argv[1:] if arguments is None else arguments)
    if arguments is None and threading.active_count() > 1:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, AttributeError):  # a reader that is gone, or a stream that was closed
                stream.flush()
        os._exit(code)
    return code


def _run(arguments: list[str]) -> int:
    log = configure_logging(level="WARN")
    try:
        with _interruptible():
            outcome = c7.main(args=arguments, prog_name="c7", standalone_mode=False)
    except Exception as error:  # noqa: BLE001  # the outermost frame: every error becomes a text and an exit code
        _explain(error, as_json="--json" in arguments)
        return exit_code(error)
    finally:
        log.close()
    return outcome if isinstance(outcome, int) else DONE


def _is_of_stdout(error: BaseException) -> bool:
    """An OSError that names no file, from a full disk or a reader that is gone: where the result was printed to."""
    return isinstance(error, OSError) and error.filename is None and error.errno in (errno.ENOSPC, errno.EPIPE)


@contextmanager
def _interruptible() -> Iterator[None]:
    """A signal ends a command as Ctrl-C does, so that it takes its children and its scratch files along."""
    former = {number: signal.getsignal(number) for number in INTERRUPTING_SIGNALS}
    taken = [number for number, handler in former.items() if handler != signal.SIG_IGN]  # nohup stays nohup

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  # the signature is Python's
        for each in taken:
            signal.signal(each, signal.SIG_IGN)  # what ends is bounded; a second signal must not break it off
        raise KeyboardInterrupt

    try:
        for number in taken:
            signal.signal(number, interrupt)
        yield
    finally:
        for number in taken:
            signal.signal(number, former[number])


def _explain(error: Exception, *, as_json: bool) -> None:
    if isinstance(error, click.ClickException):
        error.show()
        text = error.format_message()
    elif isinstance(error, C7Error):
        text = printable_lines(str(error))
        click.echo(f"c7: {text}", err=True)
    elif isinstance(error, click.Abort):
        text = "interrupted"
        click.echo("c7: interrupted", err=True)
    elif _is_of_stdout(error):
        text = f"the result cannot be written to stdout: {error}"
        click.echo(f"c7: {text}", err=True)
        return
    else:
        text = f"internal error: {type(error).__name__}: {error}"
        traceback.print_exception(error)
        click.echo(f"c7: {text}", err=True)
    if as_json:
        document = {"error": text, "kind": type(error).__name__, "exit_code": exit_code(error)}
        click.echo(msgspec.json.encode(document).decode())


if __name__ == "__main__":
    sys.exit(main())
