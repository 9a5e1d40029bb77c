"""Takeoff or recovery: every short history by table, longer ones against a model."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.flight.journal import JournalRecord
from actors.flight.recovery import LIVES_KEPT, ColdStart, Recovery, format_flight_id, plan_start, worth_keeping
from messages import (
    AirborneDeclared,
    AllEnginesLoaded,
    ConfigError,
    FlightClosed,
    FlightOpened,
    JournalError,
    LandedDeclared,
)
from messages.wire import TensorFreeMessage


def opened(flight: int, life: int = 1, generation: int = 0) -> FlightOpened:
    return FlightOpened(
        flight_id=f"demo-{flight:06d}",
        life=life,
        engine_generation=generation or flight,
        manifest_sha256=f"{generation or flight:064x}",
        boot_id="b",
        pid=1,
        opened_at=0,
    )


def journal_of(*messages: TensorFreeMessage) -> list[JournalRecord]:
    return [JournalRecord(sequence, message) for sequence, message in enumerate(messages, 1)]


def recovery_of(flight: int, life: int, generation: int = 0) -> Recovery:
    return Recovery(
        flight_id=f"demo-{flight:06d}",
        life=life,
        engine_generation=generation or flight,
        manifest_sha256=f"{generation or flight:064x}",
    )


AIRBORNE, LANDED, CLOSED = AirborneDeclared(1), LandedDeclared(2), FlightClosed("SIGTERM", 3)


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        pytest.param((), ColdStart(1), id="the first start ever is a takeoff"),
        pytest.param((opened(1),), ColdStart(2), id="killed on the ground: a takeoff"),
        pytest.param((opened(1), CLOSED), ColdStart(2), id="closed on the ground: a takeoff"),
        pytest.param((opened(1), AIRBORNE), recovery_of(1, 2), id="killed in the air: a recovery"),
        pytest.param((opened(1), AIRBORNE, CLOSED), recovery_of(1, 2), id="closed in the air: a recovery"),
        pytest.param((opened(1), AIRBORNE, LANDED), ColdStart(2), id="landed, then killed: a takeoff"),
        pytest.param((opened(1), AIRBORNE, LANDED, CLOSED), ColdStart(2), id="landed and closed: a takeoff"),
        pytest.param((opened(1), AIRBORNE, opened(1, 2)), recovery_of(1, 3), id="killed again while recovering"),
        pytest.param((opened(1), AIRBORNE, opened(1, 2), LANDED), ColdStart(2), id="landed in the second life"),
        pytest.param(
            (opened(1), AIRBORNE, LANDED, AIRBORNE), recovery_of(1, 2), id="touch and go: the last word counts"
        ),
        pytest.param(
            (opened(1), AIRBORNE, LANDED, CLOSED, opened(2)), ColdStart(3), id="the flight before is no business of it"
        ),
        pytest.param(
            (opened(1), AIRBORNE, LANDED, opened(2), AIRBORNE), recovery_of(2, 2), id="the newest flight is recovered"
        ),
        pytest.param(
            (opened(1), CLOSED, opened(2, generation=9), AllEnginesLoaded(("vpr",), 4), AIRBORNE),
            recovery_of(2, 2, generation=9),
            id="the engines are those that the flight took off with",
        ),
        pytest.param((opened(41),), ColdStart(42), id="flights are counted by the journal's newest"),
        pytest.param((opened(1, life=7), AIRBORNE), recovery_of(1, 8), id="lives count on from a compacted journal"),
    ],
)
def test_what_a_start_is(messages: tuple[TensorFreeMessage, ...], expected: ColdStart | Recovery) -> None:
    assert plan_start(journal_of(*messages)) == expected


def test_every_history_of_up_to_six_facts_in_one_flight() -> None:
    for length in range(7):
        for letters in product("OALC", repeat=length):
            life = 0
            messages: list[TensorFreeMessage] = [opened(1)]
            for letter in letters:
                life += letter == "O"
                facts: dict[str, TensorFreeMessage] = {
                    "O": opened(1, life + 1),
                    "A": AIRBORNE,
                    "L": LANDED,
                    "C": CLOSED,
                }
                messages.append(facts[letter])
            declared = [letter for letter in letters if letter in "AL"]
            in_the_air = declared[-1:] == ["A"]
            expected = recovery_of(1, life + 2) if in_the_air else ColdStart(2)
            assert plan_start(journal_of(*messages)) == expected, letters


@pytest.mark.parametrize("orphan", [AIRBORNE, LANDED])
def test_a_declaration_without_a_flight_is_refused_because_nobody_knows_what_flies(orphan: TensorFreeMessage) -> None:
    with pytest.raises(JournalError, match=rf"record 1 is {type(orphan).__name__}; expected FlightOpened before it"):
        plan_start(journal_of(orphan, opened(1)))


def test_a_flight_without_a_counter_is_refused_by_name() -> None:
    strange = FlightOpened("tuesday", 1, 1, "0" * 64, "b", 1, 0)
    with pytest.raises(JournalError, match="'tuesday'; expected a name and a counter"):
        plan_start(journal_of(strange))


Step = tuple[str, int]
_steps = st.lists(st.tuples(st.sampled_from("NOALC"), st.integers(1, 5)), max_size=60)


def history(steps: list[Step]) -> tuple[list[JournalRecord], ColdStart | Recovery]:
    """A journal of many flights, and by a plain reading of the same steps what the next start has to be."""
    flight, life, generation, airborne = 0, 0, 0, False
    messages: list[TensorFreeMessage] = []
    for letter, number in steps:
        if letter == "N" or flight == 0:
            flight, life, generation, airborne = flight + number, 1, number, False
            messages.append(opened(flight, 1, generation))
        elif letter == "O":
            life += 1
            messages.append(opened(flight, life, generation))
        elif letter == "A":
            airborne = True
            messages.append(AirborneDeclared(number))
        elif letter == "L":
            airborne = False
            messages.append(LandedDeclared(number))
        else:
            messages.append(FlightClosed("closed", number))
    expected = recovery_of(flight, life + 1, generation) if airborne else ColdStart(flight + 1)
    return journal_of(*messages), expected


@given(_steps)
def test_any_history_is_read_as_a_person_would_read_it(steps: list[Step]) -> None:
    records, expected = history(steps)
    assert plan_start(records) == expected


@given(_steps, st.integers(2, 4))
def test_compacting_never_changes_what_the_next_start_is(steps: list[Step], lives_kept: int) -> None:
    records, expected = history(steps)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("actors.flight.recovery.LIVES_KEPT", lives_kept)
        kept = worth_keeping(records)
        assert plan_start(kept) == expected
        assert [record for record in records if record in kept] == list(kept)  # in order, nothing new
        assert worth_keeping(kept) == kept
        lives = sum(isinstance(record.message, FlightOpened) for record in kept)
        assert lives <= 2 * lives_kept


def test_a_takeoff_keeps_the_last_finished_flight_and_forgets_the_ones_before() -> None:
    records = journal_of(opened(1), AIRBORNE, LANDED, opened(2), AIRBORNE, opened(2, 2), LANDED, CLOSED)
    assert worth_keeping(records) == tuple(records[3:])


def test_a_recovery_keeps_its_flight_and_the_one_before() -> None:
    records = journal_of(opened(1), opened(2), AIRBORNE, LANDED, opened(3), AIRBORNE)
    assert worth_keeping(records) == tuple(records[1:])


def test_a_flight_that_restarts_for_ever_keeps_its_first_life_its_last_word_and_its_newest_lives() -> None:
    records = journal_of(opened(1), opened(1, 2), AIRBORNE, *(opened(1, life) for life in range(3, 1000)))
    kept = worth_keeping(records)
    assert kept[0] == records[0]
    assert kept[1].message == AIRBORNE
    assert kept[2:] == tuple(records[-LIVES_KEPT + 1 :])
    assert plan_start(kept) == recovery_of(1, 1000)


def test_flight_ids_are_a_name_and_a_counter() -> None:
    assert format_flight_id("demo", 3) == "demo-000003"
    assert format_flight_id("a.b_c-9", 12_345_678) == "a.b_c-9-12345678"


@pytest.mark.parametrize("name", ["", "../up", "a/b", "-x", "ä", "new\nline", "x" * 101])
def test_a_flight_name_that_cannot_be_a_file_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^\[flight\] name: expected"):
        format_flight_id(name, 1)


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True), st.integers(1, 10**12))
def test_the_counter_is_read_back_from_every_flight_id(name: str, sequence: int) -> None:
    flight = FlightOpened(format_flight_id(name, sequence), 1, 1, "0" * 64, "b", 1, 0)
    assert plan_start(journal_of(flight)) == ColdStart(sequence + 1)
