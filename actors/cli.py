"""The commands about a flight: look at the board, rehearse, fly, declare, and the demonstration of all of it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Literal

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from actors.demo.networks import DEMO_RUNTIMES, DemoRuntime
from actors.demo.story import tell_story
from actors.flight.control_socket import declare as send_declaration
from actors.flight.life import engines_for_takeoff
from actors.flight.preflight import rehearse
from actors.flight.preflight_table import print_verdict
from actors.flight.process import fly_plan
from actors.flight.surroundings import check_surroundings, load_order, memory_budget
from messages import (
    DeclarationRefused,
    DeclareAirborne,
    DeclareLanded,
    FlightProcessError,
    MonotonicClock,
    RuntimeNotAvailableError,
    TelemetryUnavailableError,
)
from runtimes import HostTuple, RuntimeAvailability, build_inference_runtime, doctor_runtimes, read_flight_plan
from runtimes import detect_host as detect_host_tuple
from runtimes.host import NOT_INSTALLED
from runtimes.measurements import PowerMode
from runtimes.power_mode import detect_power_mode
from runtimes.store.read_ahead import ReadAhead
from telemetry import open_thermal_source

DECLARE_TIMEOUT_S = 5.0
FLY_FOR_MAX_S = 1_000_000
"""Eleven days: without `--for` a flight has no end of its own."""
DEVICE_NODES = ("/dev/nvmap", "/dev/nvhost-gpu", "/dev/nvgpu/igpu0", "/dev/nvidiactl", "/dev/nvidia0")
"""What a process opens to reach an NVIDIA GPU: the first three on a Jetson (group `video`), the others elsewhere."""

PLAN = click.argument("plan_path", metavar="FLIGHT.toml", type=click.Path(path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")


class Seconds(click.FloatRange):
    """A duration within its bounds. NaN is in no range, and passes every comparison of a `FloatRange`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"expected a number of seconds, found {value}", param, ctx)
        return seconds


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What `c7 doctor` found. `permissions` maps a device node that exists to what this user may do with it.

    `power` is a Jetson's power mode, or why it cannot be told; None elsewhere.
    """

    host: HostTuple
    power: PowerMode | str | None
    runtimes: list[RuntimeAvailability]
    thermal: str
    permissions: dict[str, str]


@click.command()
@JSON
def doctor(as_json: bool) -> None:
    """Say what this machine is, which runtimes can run here and why not, and whether its heat can be seen."""
    runtimes = doctor_runtimes()
    tensorrt = next((each.detail for each in runtimes if each.available and each.label == "tensorrt"), NOT_INSTALLED)
    diagnosis = Diagnosis(
        host=detect_host_tuple(NOT_INSTALLED, tensorrt=tensorrt),
        power=_power_mode(),
        runtimes=runtimes,
        thermal=_describe_thermal(),
        permissions={node: _describe_access(node) for node in DEVICE_NODES if Path(node).exists()},
    )
    if as_json:
        _print_json(diagnosis)
        return
    console = Console()
    host = Table("host", "", box=None)
    for name, value in msgspec.structs.asdict(diagnosis.host).items():
        if name != "runtime_version":
            host.add_row(name, escape(str(value)))
    if diagnosis.power is not None:
        host.add_row("power mode", escape(_describe_power(diagnosis.power)))
    host.add_row("thermal", escape(diagnosis.thermal))
    for node, access in diagnosis.permissions.items():
        host.add_row(node, access)
    console.print(host)
    table = Table("runtime", "runs here", "version or reason")
    for each in diagnosis.runtimes:
        table.add_row(escape(each.label), "yes" if each.available else "no", escape(each.detail))
    console.print(table)


def _power_mode() -> PowerMode | str | None:
    try:
        return detect_power_mode()
    except RuntimeNotAvailableError as error:
        return f"not known: {error}"


def _describe_power(power: PowerMode | str) -> str:
    if isinstance(power, str):
        return power
    return f"{power.name}: CPU up to {power.cpu_max_mhz} MHz, GPU up to {power.gpu_max_mhz} MHz"


def _describe_thermal() -> str:
    try:
        source = open_thermal_source("auto", None, MonotonicClock())
        reading = source.read()
    except TelemetryUnavailableError as error:
        return f"not available: {error}"
    gpu = "not read" if math.isnan(reading.gpu_temp_c) else f"{reading.gpu_temp_c:.0f} °C"
    cpu = "not read" if math.isnan(reading.cpu_temp_c) else f"{reading.cpu_temp_c:.0f} °C"
    return f"{source.name}: gpu {gpu}, cpu {cpu}, throttled by {', '.join(reading.throttled_by) or 'nothing'}"


def _describe_access(node: str) -> str:
    return "accessible" if os.access(node, os.R_OK | os.W_OK) else "no access: add this user to the group `video`"


@click.command()
@PLAN
@JSON
def preflight(plan_path: Path, as_json: bool) -> int:
    """Rehearse the takeoff: verify, load, self-test, construct, run, measure, release; a go or a no-go."""
    plan = read_flight_plan(plan_path)
    check_surroundings(plan, MonotonicClock())
    entries = engines_for_takeoff(plan).entries
    memory = memory_budget(plan, entries)
    with ReadAhead([] if memory.shortages else load_order(plan, entries)) as ahead:
        verdict = rehearse(plan, build_inference_runtime(plan.runtime, read=ahead.read), entries, memory)
    if as_json:
        _print_json(verdict)
    else:
        print_verdict(verdict, Console())
    return 0 if verdict.go else 1


@click.command()
@PLAN
@click.option(
    "--for",
    "duration_s",
    type=Seconds(min=0, min_open=True, max=FLY_FOR_MAX_S),
    help="Seconds to fly; else until a signal.",
)
@click.option("--log-level", type=click.Choice(["DEBUG", "INFO", "WARN", "ERROR"]), default="INFO", show_default=True)
def fly(plan_path: Path, duration_s: float | None, log_level: Literal["DEBUG", "INFO", "WARN", "ERROR"]) -> None:
    """Run the flight process: take off, or recover the flight that is in the air. Logs JSON lines on stdout."""
    fly_plan(read_flight_plan(plan_path), duration_s=duration_s, log_level=log_level)


@click.command()
@click.argument("state", type=click.Choice(["airborne", "landed"]))
@click.option("--flight", "plan_path", type=click.Path(path_type=Path), default=Path("flight.toml"), show_default=True)
@JSON
def declare(state: str, plan_path: Path, as_json: bool) -> int:
    """Tell the running flight process that the aircraft is airborne, or has landed."""
    plan = read_flight_plan(plan_path)
    command = DeclareAirborne() if state == "airborne" else DeclareLanded()
    answer = send_declaration(plan.flight.state, command, timeout_s=DECLARE_TIMEOUT_S)
    if isinstance(answer, DeclarationRefused):
        raise FlightProcessError(f"refused: {answer.detail}")
    if as_json:
        _print_json(answer)
    else:
        click.echo(f"{state}: flight {answer.flight_id}, life {answer.life}")
    return 0


@click.command()
@click.option("--seconds", "flight_s", type=Seconds(min=12, max=3600), default=24.0, show_default=True)
@click.option("--out", "directory", type=click.Path(path_type=Path), default=Path("demo-flight"), show_default=True)
@click.option("--runtime", type=click.Choice(DEMO_RUNTIMES), default="onnx_trt_ep", show_default=True)
@click.option("--frames", "frames_directory", type=click.Path(path_type=Path), help="A folder of your own pictures.")
@JSON
def demo(
    flight_s: float,
    directory: Path,
    runtime: DemoRuntime,
    frames_directory: Path | None,
    as_json: bool,
) -> int:
    """Tell the whole story on this machine: provision, take off, throttle, crash, be killed, recover, land."""
    return tell_story(directory, runtime=runtime, flight_s=flight_s, frames_directory=frames_directory, as_json=as_json)


def _print_json(document: msgspec.Struct) -> None:
    click.echo(msgspec.json.encode(document).decode())
