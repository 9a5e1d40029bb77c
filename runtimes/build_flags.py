"""Which runtimes this build of the software may use at all: `BUILD_*` variables of the environment, ON or OFF."""

from __future__ import annotations

import os
from collections.abc import Mapping

from messages.errors import ConfigError


def read_build_flag(flag: str, environ: Mapping[str, str] = os.environ) -> bool:
    """True for ON or where it is not set, False for OFF. Raises ConfigError for any other value."""
    value = environ.get(flag, "ON")
    if value not in ("ON", "OFF"):
        raise ConfigError(f"environment variable {flag}: expected ON or OFF, got {value!r:.80}")
    return value == "ON"
