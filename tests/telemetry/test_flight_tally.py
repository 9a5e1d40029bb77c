"""Counting a flight from its recordings."""

from __future__ import annotations

from messages import EngineLoaded, Infer, InferCompleted, InferRejected, RejectReason, TensorSpec, WireMessage
from telemetry import RecordedMessage
from telemetry.flight_tally import Spread, spread, tally_flight


def recorded(message: WireMessage) -> RecordedMessage:
    return RecordedMessage(0, message)


def asked(request_id: int) -> RecordedMessage:
    specs: dict[str, TensorSpec] = {}
    return recorded(Infer("vpr", specs, "c2", 1, 10, request_id))


def answered(request_id: int, run_ns: int = 5_000_000) -> RecordedMessage:
    specs: dict[str, TensorSpec] = {}
    return recorded(InferCompleted("vpr", "c2", 1, request_id, specs, 1, 1_000_000, run_ns))


def refused(request_id: int, reason: RejectReason = "shed") -> RecordedMessage:
    return recorded(InferRejected("vpr", "c2", 1, request_id, reason))


def test_a_request_without_an_outcome_is_lost_and_the_sum_holds() -> None:
    row = tally_flight([[asked(1), answered(1), asked(2), refused(2), asked(3)]])["vpr"]
    assert (row.submitted, row.completed, row.rejected, row.lost) == (3, 1, {"shed": 1}, 1)
    assert row.conserved


def test_request_ids_start_anew_in_each_life() -> None:
    row = tally_flight([[asked(1)], [asked(1), answered(1)]])["vpr"]
    assert (row.submitted, row.completed, row.lost) == (2, 1, 1)
    assert row.conserved


def test_an_outcome_that_was_recorded_twice_breaks_the_sum() -> None:
    assert not tally_flight([[asked(1), answered(1), answered(1)]])["vpr"].conserved


def test_an_outcome_for_a_request_that_nobody_made_breaks_the_sum() -> None:
    assert not tally_flight([[asked(1), answered(1), refused(9)]])["vpr"].conserved


def test_loads_after_the_first_of_a_life_are_restarts() -> None:
    lives = [
        [recorded(EngineLoaded("vpr", 1, 5)), recorded(EngineLoaded("vpr", 2, 5))],
        [recorded(EngineLoaded("vpr", 1, 5))],
    ]
    assert tally_flight(lives)["vpr"].restarts == 1


def test_percentiles_are_by_nearest_rank() -> None:
    assert spread([n * 1_000_000 for n in range(1, 101)]) == Spread(p50_ms=50, p99_ms=99, max_ms=100)
    assert spread([3_000_000]) == Spread(p50_ms=3, p99_ms=3, max_ms=3)
    assert spread([]) == Spread()
