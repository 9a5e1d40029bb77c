"""What an engine actor is started with, and what it hands back when it ends."""

from __future__ import annotations

import threading
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


class KeptShelf:
    """Where an engine leaves what its next start begins from. Thread-safe.

    Whoever wants no such start closes it, before or after the engine has ended; an engine that finds it closed frees
    what it would have left there.
    """

    def __init__(self, *, is_open: bool) -> None:
        self._lock = threading.Lock()
        self._open = is_open
        self._kept: Kept | None = None

    @property
    def is_open(self) -> bool:
        return self._open

    def put(self, kept: Kept) -> bool:
        """False where it is closed: then the caller still owns it."""
        with self._lock:
            if self._open:
                self._kept = kept
            return self._open

    def close(self) -> Kept | None:
        """Take nothing more, and give away what is there."""
        with self._lock:
            self._open = False
            kept, self._kept = self._kept, None
            return kept


class Launch(NamedTuple):
    """One start of an engine. Should it die at `keeps_from_ns` or later, what it verified is not suspect yet: then it
    leaves it on `shelf`, where that is open.

    `stale` is what was kept and nothing may begin from any more: this start frees it before it loads. One that does not
    load ends after that.
    """

    generation: int
    kept: Kept | None = None
    shelf: KeptShelf = KeptShelf(is_open=False)  # a closed one stays closed
    stale: tuple[Kept, ...] = ()
    keeps_from_ns: int = 0
    loads: bool = True


class EngineEnded(NamedTuple):
    """To the supervisor: an engine has let go of everything but what lies on its shelf."""

    fact: EngineDied | EngineLoadFailed


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
