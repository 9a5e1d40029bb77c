"""What a flight needs besides its engines, looked at before anything is loaded, so that a go means that it can fly."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from loguru import logger

from actors.consumer import check_source
from actors.flight.consumers import check_consumers
from actors.flight.recovery import format_flight_id
from actors.thermal import configured_source
from messages import Clock, ConfigError, RuntimeNotAvailableError, TakeoffRefusedError, describe_error
from runtimes import EngineCacheEntry, FlightPlan, build_inference_runtime
from runtimes.available_memory import read_available_memory
from runtimes.memory_budget import MemoryBudget, plan_memory, refuse_if_short


def check_surroundings(plan: FlightPlan, clock: Clock, *, in_the_air: bool = False) -> None:
    """Raises ConfigError naming table and key, or TelemetryUnavailableError. Writes and constructs nothing.

    The modules that the plan names are imported. In the air only the folders are looked at: a consumer that cannot be
    had costs only itself there, and frame source and thermal source are looked for again until they are there.
    """
    format_flight_id(plan.flight.name, 1)
    if not in_the_air:
        if plan.frames is not None:
            check_source(plan.frames)
        check_consumers(plan)
        configured_source(plan.thermal, clock)
    _check_folder(plan.flight.state, "state")
    _check_folder(plan.flight.recordings, "recordings")


def load_order(plan: FlightPlan, entries: Mapping[str, EngineCacheEntry]) -> list[EngineCacheEntry]:
    """The engines as they are loaded: the most urgent first."""
    return sorted(entries.values(), key=lambda entry: plan.models[entry.model].priority)


def memory_budget(plan: FlightPlan, entries: Mapping[str, EngineCacheEntry]) -> MemoryBudget:
    """What loading takes, against what is left once the runtime's own library is in memory.

    Raises RuntimeNotAvailableError where the runtime cannot run here, or the memory cannot be read.
    """
    build_inference_runtime(plan.runtime)  # what its library takes, once, is in no engine's measurement
    return _reckon(plan, entries)


def check_memory(plan: FlightPlan, entries: Mapping[str, EngineCacheEntry], *, in_the_air: bool) -> None:
    """Refuse a takeoff whose engines do not fit into memory, before the first one is loaded.

    Raises TakeoffRefusedError, RuntimeNotAvailableError. In the air nothing is refused, it is only logged: what fits
    flies, and an engine that does not is the supervisor's to handle.
    """
    try:
        refuse_if_short(_reckon(plan, entries) if in_the_air else memory_budget(plan, entries))
    except (TakeoffRefusedError, RuntimeNotAvailableError) as error:
        if not in_the_air:
            raise
        logger.error("C7 memory may not last for all engines; {}", describe_error(error))


def _reckon(plan: FlightPlan, entries: Mapping[str, EngineCacheEntry]) -> MemoryBudget:
    available = read_available_memory(plan.runtime)
    return plan_memory(
        load_order(plan, entries),
        available,
        reserve_mb=plan.flight.memory_reserve_mb,
        share_activation_memory=plan.runtime.tensorrt.share_activation_memory,
    )


def _check_folder(folder: Path, key: str) -> None:
    """It is a folder that this user may write, or can be made in one."""
    existing = next((each for each in (folder, *folder.parents) if os.path.lexists(each)), folder)
    if not existing.is_dir():
        raise ConfigError(f"[flight] {key}: expected a folder, or room for one, at {folder}; {existing} is no folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise ConfigError(f"[flight] {key}: expected a folder that this user may write; {existing} cannot be written")
