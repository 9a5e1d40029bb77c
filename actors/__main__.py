"""The command `c7`: assembles what each package says of its own subject, and is the one place of exit codes."""

from __future__ import annotations

import sys
import traceback

import click
import msgspec

from actors.cli import declare, demo, doctor, fly, preflight
from actors.flight.process import RestartNeededError
from messages import C7Error, ConfigError
from runtimes.cli import provision
from runtimes.cli_infer import infer
from telemetry import configure_logging

DONE = 0
REFUSED = 1
UNUSABLE_INPUT = 2
INTERNAL_ERROR = 70
RESTART_ME = 75


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="c7-inference", prog_name="c7")
def c7() -> None:
    """The on-board inference runtime: provision engines, rehearse a takeoff, fly, and see what happened."""


for command in (doctor, provision, preflight, fly, declare, infer, demo):
    c7.add_command(command)


def exit_code(error: BaseException) -> int:
    """0 done, 1 refused, 2 wrong usage or unreadable input, 70 internal error, 75 please start me again."""
    if isinstance(error, RestartNeededError):
        return RESTART_ME
    if isinstance(error, ConfigError | click.UsageError):
        return UNUSABLE_INPUT
    if isinstance(error, C7Error | click.ClickException | click.Abort):
        return REFUSED
    return INTERNAL_ERROR


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code. Errors go to stderr; with `--json` also as the one document."""
    arguments = sys.argv[1:] if arguments is None else arguments
    log = configure_logging(level="WARN")
    try:
        outcome = c7.main(args=arguments, prog_name="c7", standalone_mode=False)
    except Exception as error:  # noqa: BLE001  # the outermost frame: every error becomes a text and an exit code
        _explain(error, as_json="--json" in arguments)
        return exit_code(error)
    finally:
        log.close()
    return outcome if isinstance(outcome, int) else DONE


def _explain(error: Exception, *, as_json: bool) -> None:
    if isinstance(error, click.ClickException):
        error.show()
        text = error.format_message()
    elif isinstance(error, C7Error):
        text = str(error)
        click.echo(f"c7: {text}", err=True)
    elif isinstance(error, click.Abort):
        text = "interrupted"
        click.echo("c7: interrupted", err=True)
    else:
        text = f"internal error: {type(error).__name__}: {error}"
        traceback.print_exception(error)
        click.echo(f"c7: {text}", err=True)
    if as_json:
        document = {"error": text, "kind": type(error).__name__, "exit_code": exit_code(error)}
        click.echo(msgspec.json.encode(document).decode())


if __name__ == "__main__":
    sys.exit(main())
