"""`flight.toml`: what a person writes about a flight, checked whole before anything is done with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from messages.tensor import Name
from runtimes.config import C7InferenceConfig
from runtimes.inference_runtime import BuildConfig, Precision, Shape

Options = dict[str, str | int | float | bool]
ImportPath = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
"""`package.module:Class`."""
FLIGHT_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z"
FlightName = Annotated[str, msgspec.Meta(pattern=FLIGHT_NAME_PATTERN)]
"""Part of the names of recordings: 1 to 100 letters, digits, '.', '_' or '-', beginning with a letter or digit."""


class FlightSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[flight]`. Folders and files are relative to the plan's own folder.

    `public_key` is a PEM file with the Ed25519 key that the manifest must be signed with; without it signatures are
    not asked for. `storage_budget_mb` bounds all files of the store together, `memory_reserve_mb` is what must remain
    of the machine's memory once every engine is loaded, both in MiB.

    An engine that does not return within `run_limit_ms` hangs, and the process asks to be started again. At most
    `runs_at_once` engines run on the device together.

    `lightglue` is the model that consumers share as `c3_lightglue_runtime`, where any of them needs it.
    """

    name: FlightName
    store: Path = Path("engines")
    state: Path = Path("state")
    recordings: Path = Path("recordings")
    load_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 120.0
    run_limit_ms: Annotated[float, msgspec.Meta(gt=0, le=600_000)] = 5_000.0
    runs_at_once: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    public_key: Path | None = None
    storage_budget_mb: Annotated[int, msgspec.Meta(ge=1)] = 1500
    memory_reserve_mb: Annotated[int, msgspec.Meta(ge=0)] = 256
    allow_other_power_mode: bool = False
    lightglue: Name | None = None


class ThermalSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[thermal]`. `auto` takes the board's own sensors where it has any and flies without telemetry elsewhere."""

    source: Literal["auto", "sysfs", "replay"] = "auto"
    trace: Path | None = None
    period_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 1.0


class ProfileSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shapes of one dynamic input."""

    min: Shape
    opt: Shape
    max: Shape


class ModelSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[models.NAME]`. A lower `priority` is more urgent: it goes first at the device and comes back first.

    `deadline_ms` and `calls_per_frame` are what a preflight holds measured runs against; in flight each request brings
    its own deadline. `consumers` says who uses the model: for the reader, and held against `[consumers]`.

    `samples` is an .npz file, or a folder of them, with inputs as they come in flight: accuracy, known answers and
    timings are taken on them, and on made-up inputs without. An engine whose `AccuracyRecord.worst` is over
    `accuracy_tolerance` is refused; without a tolerance its accuracy is recorded and not judged. `self_test_tolerance`
    bounds the relative error of the known answers when the engine is loaded again.
    """

    source: Path
    precision: Precision = "fp16"
    priority: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 100
    deadline_ms: Annotated[float, msgspec.Meta(gt=0, le=60_000)]
    calls_per_frame: Annotated[float, msgspec.Meta(ge=0, le=1000)] = 1
    consumers: tuple[Name, ...] = ()
    workspace_mb: Annotated[int, msgspec.Meta(ge=1)] = 1024
    calibration_dataset: Path | None = None
    samples: Path | None = None
    accuracy_tolerance: Annotated[float, msgspec.Meta(gt=0)] | None = None
    self_test_tolerance: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1e-3
    profiles: dict[Name, ProfileSection] = {}

    def build_config(self) -> BuildConfig:
        return BuildConfig(
            precision=self.precision,
            workspace_mb=self.workspace_mb,
            calibration_dataset=self.calibration_dataset,
            optimization_profiles=tuple((name, p.min, p.opt, p.max) for name, p in self.profiles.items()),
        )


class FramesSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[frames]`: where pictures come from. Without it a plan has no consumers either: frames drive them."""

    source: ImportPath
    rate_hz: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 3.0
    options: Options = {}


class ConsumerSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[consumers.NAME]`: a component, constructed through `compose_root` and called on a thread of its own.

    Either `class = "module:Class"`, or the name of a registered strategy of the component NAME. `engines` says which
    option is the path of the compiled engine of which model. `within_ms` bounds all its calls for one frame; without it
    they have the period of the frames.
    """

    factory: ImportPath | None = msgspec.field(name="class", default=None)
    strategy: Name | None = None
    engines: dict[Name, Name] = {}
    within_ms: Annotated[float, msgspec.Meta(gt=0, le=60_000)] | None = None
    options: Options = {}


class FlightPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file. `models` is never empty."""

    flight: FlightSection
    runtime: C7InferenceConfig
    models: Annotated[dict[Name, ModelSection], msgspec.Meta(min_length=1, max_length=64)]
    thermal: ThermalSection = ThermalSection()
    frames: FramesSection | None = None
    consumers: Annotated[dict[Name, ConsumerSection], msgspec.Meta(max_length=64)] = {}
