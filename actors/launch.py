"""What an engine actor is started with, and what it hands back when it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from actors.device_gate import DeviceGate
from actors.scheduling import THREADS, Scheduling
from messages import NS_PER_S, Clock, EngineDied, EngineLoaded, EngineLoadFailed, FaultClass
from runtimes import EngineCacheEntry, EngineHandle, InferenceRuntime
from runtimes.available_memory import AvailableMemory
from runtimes.sign_off.self_test import SELF_TEST_TOLERANCE

RUN_LIMIT_NS = 5 * NS_PER_S
"""After which a run is taken for one that never returns. A hundred times what a run takes on the board, so that no
run that is only slow costs the process."""


class EngineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One engine of the flight. A lower `priority` is more urgent.

    `self_test_tolerance` bounds the relative error of its known answers after each load; an engine without known
    answers, which was compiled but never provisioned, has no self-test. A run that has not returned after
    `run_limit_ns` hangs.
    """

    model: str
    entry: EngineCacheEntry
    priority: int = 100
    self_test_tolerance: float = SELF_TEST_TOLERANCE
    run_limit_ns: int = RUN_LIMIT_NS


class Kept(NamedTuple):
    """What an engine's next start need not read and verify again: its suspended handle and its known answers."""

    handle: EngineHandle
    answers: bytes | None


class Launch(NamedTuple):
    """One start of an engine. `may_keep`: should it die, what it verified is not suspect yet."""

    generation: int
    kept: Kept | None = None
    may_keep: bool = False


class EngineEnded(NamedTuple):
    """To the supervisor: an engine has let go of everything but what is kept for its next start."""

    fact: EngineDied | EngineLoadFailed
    kept: Kept | None = None


class EngineSurroundings(NamedTuple):
    """What all engines of one device have around them. `load_timeout_ns` bounds the wait for the device to test one."""

    runtime: InferenceRuntime
    gate: DeviceGate
    clock: Clock
    report: Callable[[EngineLoaded | EngineEnded], None]
    count_fault: Callable[[str, FaultClass], None]
    load_timeout_ns: int
    available_memory: Callable[[], AvailableMemory] | None = None
    scheduling: Scheduling = THREADS
