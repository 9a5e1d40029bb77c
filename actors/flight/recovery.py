"""What a start of the flight process is, decided from the journal alone: a takeoff, or the recovery of a flight."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from actors.flight.journal import JournalRecord
from messages import AirborneDeclared, ConfigError, FlightOpened, JournalError, LandedDeclared
from runtimes.flight_plan import FLIGHT_NAME_PATTERN

LIVES_KEPT: Final = 64
"""Lives of one flight that stay in a compacted journal: its first, and the newest of the others."""

_FLIGHT_NAME: Final = re.compile(FLIGHT_NAME_PATTERN)
_FLIGHT_COUNTER: Final = re.compile(r"-([0-9]{1,18})$")


class ColdStart(msgspec.Struct, frozen=True):
    """Nothing is in the air: take off with the store's current engines, as flight number `flight_id_sequence`."""

    flight_id_sequence: int


class Recovery(msgspec.Struct, frozen=True):
    """The flight `flight_id` is in the air: go on as life `life`, with exactly the engines it took off with."""

    flight_id: str
    life: int
    engine_generation: int
    manifest_sha256: str


def plan_start(records: Sequence[JournalRecord]) -> ColdStart | Recovery:
    """Pure. A flight is in the air from AirborneDeclared until LandedDeclared, whatever became of its processes.

    FlightClosed does not end a flight: a process that closed itself in the air comes back to that same flight.
    Raises JournalError for records that no flight process writes: a declaration before any flight was opened, or a
    flight id without a counter.
    """
    flight: FlightOpened | None = None
    life = 0
    airborne = False
    counter = 0
    for record in records:
        match record.message:
            case FlightOpened() as opened:
                if flight is None or opened.flight_id != flight.flight_id:
                    life, airborne = 0, False
                flight = opened
                life = max(life + 1, opened.life)
                counter = max(counter, _flight_counter(opened.flight_id))
            case AirborneDeclared() | LandedDeclared() as declared:
                if flight is None:
                    raise JournalError(
                        f"the journal's record {record.sequence} is {type(declared).__name__}; expected FlightOpened "
                        "before it. On the ground: move the journal away and start again"
                    )
                airborne = isinstance(declared, AirborneDeclared)
            case _:
                pass
    if flight is not None and airborne:
        return Recovery(
            flight_id=flight.flight_id,
            life=life + 1,
            engine_generation=flight.engine_generation,
            manifest_sha256=flight.manifest_sha256,
        )
    return ColdStart(flight_id_sequence=counter + 1)


def format_flight_id(name: str, sequence: int) -> str:
    """`demo-000003`: counted, never dated, because a Jetson without a battery wakes in 1970.

    Raises ConfigError where `name` cannot be part of a file name.
    """
    if not _FLIGHT_NAME.fullmatch(name):
        raise ConfigError(
            f"[flight] name: expected 1 to 100 letters, digits, '.', '_' or '-', beginning with a letter or digit; "
            f"got {name!r}"
        )
    return f"{name}-{sequence:06d}"


def worth_keeping(records: Sequence[JournalRecord]) -> tuple[JournalRecord, ...]:
    """Pure. What a start leaves in the journal: the newest two flights, which at a takeoff are the last finished one.

    Of a flight that had more than LIVES_KEPT lives, the first and the newest stay, and its last declaration always
    does: `plan_start` gives the same answer before and after.
    """
    flights = _flights(records)
    kept = flights[-2:] if isinstance(plan_start(records), Recovery) else flights[-1:]
    return tuple(record for flight in kept for record in _newest_lives(flight))


def _flight_counter(flight_id: str) -> int:
    found = _FLIGHT_COUNTER.search(flight_id)
    if found is None:
        raise JournalError(
            f"the journal names a flight {flight_id!r}; expected a name and a counter, as in 'demo-000003'. On the "
            "ground: move the journal away and start again"
        )
    return int(found[1])


def _flights(records: Sequence[JournalRecord]) -> list[list[list[JournalRecord]]]:
    """Flights, each a list of lives, each a list of records that begins with its FlightOpened."""
    flights: list[list[list[JournalRecord]]] = []
    flight_id = ""
    for record in records:
        if isinstance(record.message, FlightOpened):
            if not flights or record.message.flight_id != flight_id:
                flight_id = record.message.flight_id
                flights.append([])
            flights[-1].append([])
        if flights:
            flights[-1][-1].append(record)
    return flights


def _newest_lives(lives: Sequence[Sequence[JournalRecord]]) -> list[JournalRecord]:
    if len(lives) <= LIVES_KEPT:
        return [record for life in lives for record in life]
    dropped = [record for life in lives[1 : -LIVES_KEPT + 1] for record in life]
    declared = [record for record in dropped if isinstance(record.message, AirborneDeclared | LandedDeclared)]
    newest = [record for life in lives[-LIVES_KEPT + 1 :] for record in life]
    return [*lives[0], *declared[-1:], *newest]
