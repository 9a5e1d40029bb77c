"""The main job from beginning to end, on this machine: the real commands, a real kill, and the recordings' account.

Nothing here flies, counts or recovers: it writes a plan, runs `c7` as child processes, kills one, and reads what
they recorded. Deleting this folder changes no behaviour.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from actors.demo.account import FlightAccount, account_for, print_account
from actors.demo.children import Child, run_command
from actors.demo.frames import FolderFrames
from actors.demo.model_files import write_models
from actors.demo.networks import DemoRuntime
from actors.demo.plan import plans_a_crash, write_flight_plan
from messages import ConfigError
from telemetry import RecordedMessage, read_recording

FLIES = "C7 flies"
"""What the flight process logs when it takes declarations: at a takeoff every engine answers by then."""
READY = "C7 ready"
"""What it logs when every engine answers: in a recovery later than that."""
FRAME_BEGUN = "C7 infer backbone=backbone"
"""The most urgent engine has answered for a new frame: the others are at work on it."""
MARKER = "c7-demo.txt"
"""Only a folder that holds this file, written here, is ever emptied."""
PROVISION_TIMEOUT_S = 300.0
READY_TIMEOUT_S = 120.0
COMMAND_TIMEOUT_S = 30.0
ORPHAN_FLIES_S = 120.0
"""A demonstration that is killed itself cannot end its flight: that ends by itself this long after the plan."""
KILL_AFTER = 0.6
"""Share of the flight before the kill: the throttle has come and gone and the crashed engine is back."""


class DemoSummary(msgspec.Struct, frozen=True, kw_only=True):
    """`summary.json`: what the table shows, and the files to look at."""

    runtime: str
    flight_s: float
    account: FlightAccount
    files: list[str]


def tell_story(
    directory: Path,
    *,
    runtime: DemoRuntime,
    flight_s: float,
    frames_directory: Path | None,
    as_json: bool,
) -> int:
    """Write everything below `directory` and return 0 where the account holds, 1 where it does not.

    Raises ConfigError for a folder that is not the demonstration's own, FlightProcessError where a child fails.
    """
    console = Console(stderr=as_json)
    if frames_directory is not None:
        FolderFrames(str(frames_directory)).check()  # before an earlier demonstration is emptied for nothing
    _claim(directory)
    directory = directory.resolve()
    console.print(f"[1/6] make small models of real topologies for {runtime}")
    models = write_models(directory / "models", runtime)
    plan = write_flight_plan(
        directory, runtime=runtime, models=models, flight_s=flight_s * KILL_AFTER, frames_directory=frames_directory
    )
    console.print(f"[2/6] c7 provision {plan.name}: compile {len(models)} engines")
    run_command(["provision", str(plan)], directory / "provision.log", PROVISION_TIMEOUT_S)
    crash = ", and an engine that crashes" if plans_a_crash(runtime) else ""
    console.print(f"[3/6] c7 fly: take off; on the way a throttle{crash}")
    killed_at_ns = _first_life(plan, directory / "fly-life1.log", flight_s * KILL_AFTER, console)
    console.print("[5/6] c7 fly again: from its journal, engines in order of priority")
    _second_life(plan, directory / "fly-life2.log", flight_s * (1 - KILL_AFTER), console)
    console.print("[6/6] count what became of every request, from the recordings of both lives")
    recordings = sorted((directory / "recordings").glob("*.mcap"))
    lives: list[list[RecordedMessage]] = [list(read_recording(path)) for path in recordings]
    account = account_for(lives, killed_at_ns, crash_planned=plans_a_crash(runtime))
    logs = [directory / name for name in ("provision.log", "fly-life1.log", "fly-life2.log", "summary.json")]
    summary = DemoSummary(
        runtime=runtime, flight_s=flight_s, account=account, files=[str(path) for path in (*recordings, *logs)]
    )
    (directory / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(summary)) + b"\n")
    if as_json:
        print(msgspec.json.encode(summary).decode())
    else:
        print_account(account, console)
        for path in summary.files:
            console.print(path, markup=False, highlight=False, soft_wrap=True)
    return 0 if account.holds else 1


def _first_life(plan: Path, log: Path, flight_s: float, console: Console) -> int:
    with Child(_fly(plan, flight_s), log, awaits=FLIES) as life:
        life.wait_until_said(READY_TIMEOUT_S)
        run_command(["declare", "airborne", "--flight", str(plan)], log.with_name("declare.log"), COMMAND_TIMEOUT_S)
        _fly_on(life, flight_s, console)
        life.wait_until_said_again(FRAME_BEGUN, COMMAND_TIMEOUT_S)
        console.print("[4/6] kill -9: the flight process dies in the middle of a frame")
        return life.kill()


def _second_life(plan: Path, log: Path, flight_s: float, console: Console) -> None:
    with Child(_fly(plan, flight_s), log, awaits=READY) as life:
        life.wait_until_said(READY_TIMEOUT_S)
        _fly_on(life, flight_s, console)
        run_command(["declare", "landed", "--flight", str(plan)], log.with_name("declare.log"), COMMAND_TIMEOUT_S)
        life.terminate(COMMAND_TIMEOUT_S)


def _fly(plan: Path, flight_s: float) -> list[str]:
    return ["fly", str(plan), "--log-level", "DEBUG", "--for", f"{flight_s + ORPHAN_FLIES_S:g}"]


def _fly_on(life: Child, flight_s: float, console: Console) -> None:
    """Let it fly, with a bar of the seconds that are over where somebody watches."""
    bar = Progress(TextColumn("      in the air"), BarColumn(), TimeElapsedColumn(), console=console, transient=True)
    with bar:
        for _ in bar.track(range(math.ceil(flight_s))):
            life.flies_on(flight_s / math.ceil(flight_s))


def _claim(directory: Path) -> None:
    """Start in an empty folder; an earlier demonstration's own is emptied, anybody else's is left alone."""
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            if not (directory / MARKER).is_file():
                raise ConfigError(
                    f"{directory} exists and is not an earlier demonstration's; name another one with --out"
                )
            shutil.rmtree(directory)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / MARKER).write_text("Written by `c7 demo`, which empties this folder when it starts.\n")
    except OSError as error:
        raise ConfigError(
            f"{directory} cannot be used: {error}; expected a folder that this user may write: --out"
        ) from error
