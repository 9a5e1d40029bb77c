"""Facts about engines and about the life of the flight process, and the commands that change it.

Fields named `..._at` are CLOCK_MONOTONIC nanoseconds of the boot in which the message was made.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from messages.faults import FaultClass
from messages.infer import Counter, Detail
from messages.tensor import Name

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Models = Annotated[tuple[Name, ...], msgspec.Meta(max_length=256)]


class EngineLoaded(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """An engine answers. `generation` counts its starts in this life; `load_ns` is from opening to ready."""

    model: Name
    generation: Counter
    load_ns: Counter


class EngineLoadFailed(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """An engine could not be opened."""

    model: Name
    generation: Counter
    detail: Detail
    fault: FaultClass = "engine_fault"


class EngineDied(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """An engine that had been loaded stopped by a fault; what it held has its outcomes."""

    model: Name
    generation: Counter
    detail: Detail
    fault: FaultClass = "engine_fault"


class EngineHung(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """A call into an engine has not returned within its limit: its requests have their outcomes, and no other engine
    touches the device any more.
    """

    model: Name
    generation: Counter
    running_ns: Counter


class ProcessRestartNeeded(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """No engine of this process will answer again; only a new process can."""

    detail: Detail
    fault: FaultClass


class EngineRestartScheduled(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The supervisor will start the engine again after `delay_ns`."""

    model: Name
    attempt: Counter
    delay_ns: Counter


class EngineQuarantined(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The engine is not started again for now; the others fly on.

    `probation_in_ns` from now it is tried once more; 0: never in this life.
    """

    model: Name
    detail: Detail
    probation_in_ns: Counter = 0


class FlightOpened(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """A life of the flight process began. `life` is 1 for a fresh flight and counts on across reboots.

    `engine_generation` is the number of the engine store's generation that flies, and `manifest_sha256` its manifest's
    hash; the `generation` of the other messages counts the starts of one engine.
    """

    flight_id: Name
    life: Counter
    engine_generation: Counter
    manifest_sha256: Sha256
    boot_id: Annotated[str, msgspec.Meta(max_length=64)]
    pid: Counter
    opened_at: Counter


class AllEnginesLoaded(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Every engine that is not quarantined answers."""

    models: Models
    loaded_at: Counter


class AirborneDeclared(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """From here on a new start of the process is a recovery, not a takeoff."""

    declared_at: Counter


class LandedDeclared(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The flight is over: the next start is a takeoff again."""

    declared_at: Counter


class FlightClosed(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """This life ended by its own decision."""

    detail: Detail
    closed_at: Counter


class DeclareAirborne(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Command: the aircraft has left the ground."""


class DeclareLanded(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Command: the aircraft is on the ground."""


class DeclarationAccepted(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The declaration is in the journal, on disk."""

    flight_id: Name
    life: Counter


class DeclarationRefused(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The declaration was not taken, and why."""

    detail: Detail


class LogRecorded(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """A WARN or ERROR line of the log, as the recording keeps it."""

    level: Annotated[str, msgspec.Meta(max_length=16)]
    text: Detail


class ConsumerReported(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """What a consumer made of one frame: good, or degraded and why."""

    consumer: Name
    frame_id: Counter
    good: bool
    detail: Detail = ""
