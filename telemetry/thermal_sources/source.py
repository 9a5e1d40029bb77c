"""What a thermal source tells."""

from __future__ import annotations

import math
from typing import Protocol

import msgspec


class ThermalReading(msgspec.Struct, frozen=True):
    """One look at the board, as it was found and before anything is decided.

    Temperatures are degrees Celsius, NaN where no sensor answered; `gpu_clock_mhz` is 0 where it was not read.
    `throttled_by` names the cooling devices that slow the board down at this moment. `headroom_c` is how far the
    hottest zone is below the trip at which it makes the board slow down, NaN where the board does not tell.
    """

    cpu_temp_c: float = math.nan
    gpu_temp_c: float = math.nan
    gpu_clock_mhz: int = 0
    throttled_by: tuple[str, ...] = ()
    headroom_c: float = math.nan


class ThermalSource(Protocol):
    """Where readings come from. Read by one thread at a time."""

    @property
    def name(self) -> str: ...

    def read(self) -> ThermalReading:
        """Look now. May block for ever: it is the sampler that bounds it. Raises TelemetryUnavailableError."""
        ...
