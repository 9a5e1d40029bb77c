"""The command about engines: `c7 provision`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.status import Status
from rich.table import Column, Table

from messages.clock import NS_PER_S
from runtimes.flight_plan_file import read_flight_plan
from runtimes.provisioning.progress import ProvisionProgress
from runtimes.provisioning.provision import provision as provision_engines
from runtimes.store.engine_store import Generation


class ProvisionedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the result. `build_s` is how long the engine took when it was compiled, now or earlier."""

    model: str
    decision: str
    reason: str
    engine: str
    build_s: float


class ProvisionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `c7 provision --json` prints. `up_to_date`: the store held all of it already."""

    generation: int
    path: str
    manifest_sha256: str
    up_to_date: bool
    models: list[ProvisionedModel]


@click.command()
@click.argument("plan_path", metavar="FLIGHT.toml", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
def provision(plan_path: Path, as_json: bool) -> None:
    """Compile the engines that the store lacks, and commit them as the next generation."""
    plan = read_flight_plan(plan_path)
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console.width = 160  # a log has no edge to wrap at
    with ProvisionView(console) as view:
        generation = provision_engines(plan, progress=view.show)
    report = view.report(generation)
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
        return
    table = Table("model", "decision", Column("reason", overflow="fold"), Column("engine", overflow="fold"), box=None)
    table.add_column("build time", justify="right", no_wrap=True)
    for row in report.models:
        table.add_row(row.model, row.decision, row.reason, row.engine, _duration(row.build_s))
    console.print(table)
    console.print(
        f"the store is up to date: generation {report.generation}"
        if report.up_to_date
        else f"generation {report.generation} is current",
        markup=False,
    )
    console.print(report.path, markup=False, highlight=False, soft_wrap=True)


class ProvisionView(AbstractContextManager["ProvisionView"]):
    """Progress for a person: a live line on a terminal, a line per event elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = Status("reading sources", console=console) if console.is_terminal else None
        self._decided: dict[str, ProvisionProgress] = {}
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
        if progress.step == "decided":
            self._decided[progress.model] = progress
        elif progress.step == "up_to_date":
            self._up_to_date = True
        line = describe(progress)
        if self._status is not None:
            self._status.update(line)
        elif self._worth_a_line(progress):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _worth_a_line(self, progress: ProvisionProgress) -> bool:
        """Elsewhere than on a terminal the heartbeat is a line each ten seconds, and waiting is said once."""
        if progress.step == "compiling":
            return progress.elapsed_ns // NS_PER_S % 10 == 0
        if progress.step == "waiting":
            first, self._waiting_was_said = not self._waiting_was_said, True
            return first
        return progress.step not in ("committed", "up_to_date")

    def report(self, generation: Generation) -> ProvisionReport:
        return ProvisionReport(
            generation=generation.number,
            path=str(generation.path),
            manifest_sha256=generation.manifest_sha256,
            up_to_date=self._up_to_date,
            models=[
                ProvisionedModel(
                    model=model,
                    decision=decided.decision,
                    reason=decided.reason,
                    engine=generation.entries[model].path.name,
                    build_s=generation.entries[model].build_ns / NS_PER_S,
                )
                for model, decided in self._decided.items()
            ],
        )


def describe(progress: ProvisionProgress) -> str:
    """One line of text for one step."""
    if progress.step == "waiting":
        return "waiting for another provisioner of this store"
    if progress.step == "decided":
        return f"{progress.model}: {progress.decision}: {progress.reason}"
    if progress.step == "compiling":
        former = progress.former_build_ns
        last_time = "" if former is None else f", the former build took {_duration(former / NS_PER_S)}"
        return f"{progress.model}: compiling for {progress.elapsed_ns // NS_PER_S} s{last_time}"
    if progress.step == "ready":
        return f"{progress.model}: ready: {progress.engine}"
    if progress.step == "failed":
        return f"{progress.model}: failed: {progress.reason}"
    if progress.reason:
        return f"{progress.model}: {progress.step.replace('_', ' ')}: {progress.reason}"
    return f"generation {progress.generation}: {progress.step.replace('_', ' ')}"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
