"""Options as a flight plan writes them: of the right type and range, or refused before takeoff and not in flight."""

from __future__ import annotations

import math

from messages import ConfigError


def require_counts(component: str, **counts: object) -> None:
    """Raise ConfigError naming the option that is no whole number of 1 or more."""
    for option, found in counts.items():
        if isinstance(found, bool) or not isinstance(found, int) or found < 1:
            raise ConfigError(f"{component} {option}: expected a whole number of 1 or more, found {found!r:.130}")


def require_amount(component: str, option: str, found: object) -> None:
    """Raise ConfigError naming the option that is no number of 0 or more."""
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < math.inf:
        raise ConfigError(f"{component} {option}: expected a number of 0 or more, found {found!r:.130}")
