"""The flight process and its parts: journal, recovery, lock, control socket, frame loop."""

from actors.flight.control_socket import ControlSocket, declare
from actors.flight.flight_lock import FlightLock
from actors.flight.frame_loop import FrameCounts, FrameLoop
from actors.flight.journal import Journal, JournalRecord, read_journal
from actors.flight.recovery import ColdStart, Recovery, format_flight_id, plan_start, worth_keeping

__all__ = [
    "ColdStart",
    "ControlSocket",
    "FlightLock",
    "FrameCounts",
    "FrameLoop",
    "Journal",
    "JournalRecord",
    "Recovery",
    "declare",
    "format_flight_id",
    "plan_start",
    "read_journal",
    "worth_keeping",
]
