"""Airborne and landed: what the aircraft says of itself, brought to the journal before it is believed."""

from __future__ import annotations

from collections.abc import Callable

from loguru import logger

from actors.flight.journal import Journal
from messages import (
    AirborneDeclared,
    Clock,
    DeclarationAccepted,
    DeclarationRefused,
    DeclareAirborne,
    DeclareLanded,
    JournalError,
    LandedDeclared,
    Message,
    describe_error,
)


class Declarations:
    """Answers the control socket. One thread at a time; blocks for the journal's fsync."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        record: Callable[[Message], None],
        *,
        flight_id: str,
        life: int,
        airborne: bool,
    ) -> None:
        self._journal = journal
        self._clock = clock
        self._record = record
        self._accepted = DeclarationAccepted(flight_id, life)
        self._airborne = airborne

    def answer(self, command: DeclareAirborne | DeclareLanded) -> DeclarationAccepted | DeclarationRefused:
        """Accepted means: on disk. Declaring airborne twice changes nothing; landing without a flight is refused."""
        if isinstance(command, DeclareAirborne):
            return self._accepted if self._airborne else self._note(airborne=True)
        if not self._airborne:
            return DeclarationRefused("landed was declared, but this flight was never declared airborne")
        return self._note(airborne=False)

    def _note(self, *, airborne: bool) -> DeclarationAccepted | DeclarationRefused:
        fact = (AirborneDeclared if airborne else LandedDeclared)(self._clock.monotonic_ns())
        try:
            self._journal.append(fact)
        except JournalError as error:
            logger.error("C7 declaration not recorded; {}", describe_error(error))
            return DeclarationRefused(describe_error(error))
        self._airborne = airborne
        self._record(fact)
        logger.info("C7 declared {}; flight={}", "airborne" if airborne else "landed", self._accepted.flight_id)
        return self._accepted
