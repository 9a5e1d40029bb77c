"""The command about provisioning: `c7 provision`."""

from __future__ import annotations

import errno
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, cast

import click
import msgspec
from loguru import logger
from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Column, Table

from messages.clock import NS_PER_S
from messages.errors import printable
from runtimes.flight_plan import FlightPlan
from runtimes.flight_plan_file import read_flight_plan
from runtimes.provisioning.progress import ProvisionProgress
from runtimes.provisioning.provision import provision as provision_engines
from runtimes.store.engine_store import Generation
from runtimes.store.storage_budget import MIB, stored_bytes
from runtimes.unattended import UnattendedOutput, outliving_the_terminal, unattended_output

_NOTICES = ("calibration_cache_refused", "timing_cache_dropped", "accuracy_not_measured")


class ProvisionedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the result.

    `reason` says why the engine was compiled, or where it comes from. `build_s` is how long it took when it was
    compiled, now or earlier. `worst_error` is the largest relative error of an output against the fp32 reference of
    the source, None where it was not measured.
    """

    model: str
    decision: str
    reason: str
    engine: str
    size_bytes: int
    worst_error: float | None
    build_s: float


class ProvisionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `c7 provision --json` prints.

    `up_to_date`: the store held all of it already. `notices` are what of former builds was not used, and why.
    """

    generation: int
    path: str
    manifest_sha256: str
    up_to_date: bool
    models: list[ProvisionedModel]
    notices: list[str]
    stored_bytes: int
    storage_budget_mb: int


@click.command()
@click.argument("plan_path", metavar="FLIGHT.toml", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def provision(plan_path: Path, as_json: bool) -> None:
    """Compile the engines that the store lacks, and commit them as the next generation.

    Goes on when the terminal is closed. A run that was ended is taken up where it was by the next one.
    """
    plan = read_flight_plan(plan_path)
    with unattended_output(sys.stderr if as_json else sys.stdout) as output, outliving_the_terminal():
        console = _console(output)
        with ProvisionView(console) as view:
            generation = provision_engines(plan, progress=view.show)
        report = view.report(plan, generation)
        if not as_json:
            view.print(report)
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
    elif output.lost is not None and output.lost.errno == errno.ENOSPC:
        raise output.lost


class ProvisionView(AbstractContextManager["ProvisionView"]):
    """Progress for a person: a live line on a terminal, a line per event elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = Status("reading sources", console=console) if console.is_terminal else None
        self._decided: dict[str, ProvisionProgress] = {}
        self._notices: list[str] = []
        self._up_to_date = False
        self._waiting_was_said = False

    def __enter__(self) -> ProvisionView:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def show(self, progress: ProvisionProgress) -> None:
        line = describe(progress)
        if progress.step == "decided":
            self._decided[progress.model] = progress
        elif progress.step == "up_to_date":
            self._up_to_date = True
        elif progress.step in _NOTICES:
            self._notices.append(line)
        if progress.step == "calibration_cache_refused":
            logger.error("C7 calibration cache refused, calibrating anew; model={} {}", progress.model, progress.reason)
        if self._status is not None and progress.step not in (*_NOTICES, "failed"):
            self._status.update(escape(printable(line)))
        elif self._worth_a_line(progress):
            self._print_line(line)

    def _worth_a_line(self, progress: ProvisionProgress) -> bool:
        """Elsewhere than on a terminal the heartbeat is a line each ten seconds, and waiting is said once."""
        if progress.step == "compiling":
            return progress.elapsed_ns // NS_PER_S % 10 == 0
        if progress.step == "waiting":
            first, self._waiting_was_said = not self._waiting_was_said, True
            return first
        return progress.step not in ("committed", "up_to_date")

    def report(self, plan: FlightPlan, generation: Generation) -> ProvisionReport:
        rows: list[ProvisionedModel] = []
        for model, decided in self._decided.items():
            entry = generation.entries[model]
            rows.append(
                ProvisionedModel(
                    model=model,
                    decision=decided.decision,
                    reason=decided.reason,
                    engine=entry.path.name,
                    size_bytes=entry.engine_size_bytes,
                    worst_error=None if entry.accuracy is None else entry.accuracy.worst,
                    build_s=entry.build_ns / NS_PER_S,
                )
            )
        return ProvisionReport(
            generation=generation.number,
            path=str(generation.path),
            manifest_sha256=generation.manifest_sha256,
            up_to_date=self._up_to_date,
            models=rows,
            notices=self._notices,
            stored_bytes=stored_bytes(plan.flight.store),
            storage_budget_mb=plan.flight.storage_budget_mb,
        )

    def print(self, report: ProvisionReport) -> None:
        table = Table("model", "decision", Column("reason", overflow="fold"), box=None)
        for column in ("size", "error", "build time"):
            table.add_column(column, justify="right", no_wrap=True)
        for row in report.models:
            error = "" if row.worst_error is None else f"{row.worst_error:.2g}"
            size = f"{row.size_bytes / MIB:.1f} MiB"
            table.add_row(row.model, row.decision, escape(printable(row.reason)), size, error, _duration(row.build_s))
        self._console.print(table)
        state = "the store is up to date" if report.up_to_date else "committed"
        self._print_line(f"{state}: generation {report.generation} is current")
        used = f"{report.stored_bytes / MIB:.1f} MiB of {report.storage_budget_mb} MiB are used"
        self._print_line(f"{report.path}; {used}")

    def _print_line(self, line: str) -> None:
        self._console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def describe(progress: ProvisionProgress) -> str:
    """One line of text for one step."""
    if progress.step == "waiting":
        return "waiting for another provisioner of this store"
    if progress.step == "decided":
        return f"{progress.model}: {progress.decision}: {progress.reason}"
    if progress.step == "compiling":
        former = progress.former_build_ns
        last_time = "" if former is None else f", the former build took {_duration(former / NS_PER_S)}"
        phase = f": {progress.phase}" if progress.phase else ""
        return f"{progress.model}: compiling for {progress.elapsed_ns // NS_PER_S} s{last_time}{phase}"
    if progress.step == "ready":
        return f"{progress.model}: ready: {progress.engine}"
    words = progress.step.replace("_", " ")
    if progress.reason:
        return f"{progress.model}: {words}: {progress.reason}"
    return f"generation {progress.generation}: {words}"


def _console(output: UnattendedOutput) -> Console:
    console = Console(file=cast("IO[str]", output))
    if not console.is_terminal:
        console.width = 160  # a log has no edge to wrap at
    return console


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
