"""What several tests of actors share."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from actors import Supervision
from messages import VirtualClock

LetLoadTimeOut = Callable[[Supervision, VirtualClock, float], None]
"""Of a supervision on this clock, with this load timeout in seconds."""


@pytest.fixture
def let_load_time_out() -> LetLoadTimeOut:
    """The one load that is under way is overdue at once, however long anything takes in real time."""

    def let(c7: Supervision, clock: VirtualClock, load_timeout_s: float) -> None:
        while not c7._timers.waiting:  # type: ignore[attr-defined]
            threading.Event().wait(0.001)  # set right after the engine's thread was started
        clock.advance_ms(load_timeout_s * 1000)

    return let
