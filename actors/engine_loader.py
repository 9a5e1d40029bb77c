"""Who holds which engine: the first one to ask has it loaded, the last one to let go has it stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pykka
from loguru import logger

from actors.engine_orders import LoadEngine, ReleaseEngine, Reply
from actors.launch import EngineSpec
from actors.scheduling import THREADS, Scheduling
from messages import (
    CorruptEngineError,
    DeviceContextError,
    DeviceFaultError,
    EngineDeserializeError,
    EngineLoadFailed,
    FaultClass,
    InferenceError,
    OutOfMemoryError,
)
from runtimes import EngineCacheEntry
from runtimes.takeoff_load import refusal_prefix

LOOKS_EVERY_S = 0.1
"""How often whoever waits for the supervisor looks whether it still lives."""


@dataclass
class _Held:
    entry: EngineCacheEntry
    holders: int = 1


class EngineLoader:
    """One per supervision. Thread-safe; its calls wait, bounded, and one after the other.

    `flight` are the engines that it began with, by the name under which they fly: they are held by the flight itself.
    """

    def __init__(
        self,
        supervisor: pykka.ActorRef[Any],
        flight: Mapping[str, EngineCacheEntry],
        spec_of: Callable[[EngineCacheEntry], EngineSpec],
        load_timeout_s: float,
        scheduling: Scheduling = THREADS,
    ) -> None:
        self._supervisor = supervisor
        self._spec_of = spec_of
        self._load_timeout_s = load_timeout_s
        self._scheduling = scheduling
        self._turn = scheduling.signal()
        self._held = {model: _Held(entry) for model, entry in flight.items()}

    def hold(self, entry: EngineCacheEntry) -> None:
        """Have the engine loaded and tested, or share it; the engines of the flight itself are not waited for.

        Raises as `InferenceRuntime.deserialize_engine`, and EngineDeserializeError where another engine of the same
        model is loaded.
        """
        model = entry.model
        with self._in_turn() as is_my_turn:
            if not is_my_turn:
                raise EngineDeserializeError(f"{model}: other engines have been loading for {self._patience_s:g} s")
            held = self._held.get(model)
            if held is None:
                self._load(entry)
                self._held[model] = _Held(entry)
            elif held.entry == entry:
                held.holders += 1
            else:
                raise EngineDeserializeError(
                    f"{model}: another engine of this model is loaded: expected {_identity(held.entry)}, found"
                    f" {_identity(entry)}; release every handle of the one before loading the other"
                )

    def let_go(self, model: str) -> None:
        """Undo one `hold`. The last one waits until the engine is gone; what takes too long is logged and left."""
        with self._in_turn() as is_my_turn:
            if is_my_turn:
                held = self._held[model]
                held.holders -= 1
                if held.holders:
                    return
                del self._held[model]
            reply = Reply(self._scheduling)
            if not is_my_turn or (self._told(ReleaseEngine(model, reply)) and not self._answered(reply)):
                logger.error("C7 engine not released within {:g} s; backbone={}", self._patience_s, model)

    def _load(self, entry: EngineCacheEntry) -> None:
        reply = Reply(self._scheduling)
        gone = EngineDeserializeError(f"{entry.model}: expected a runtime that flies, found one that was stopped")
        if not self._told(LoadEngine(self._spec_of(entry), reply)):
            raise gone
        try:
            answered = self._answered(reply)
        except BaseException:  # a Ctrl-C: nobody will hold it
            self._told(ReleaseEngine(entry.model, Reply(self._scheduling)))
            raise
        if not answered:
            if not self._told(ReleaseEngine(entry.model, Reply(self._scheduling))):
                raise gone
            raise EngineDeserializeError(f"{entry.model}: not loaded within {self._patience_s:g} s")
        if reply.failure is not None:
            raise error_of(reply.failure)

    def _told(self, order: LoadEngine | ReleaseEngine) -> bool:
        try:
            self._supervisor.tell(order)
        except pykka.ActorDeadError:
            return False
        return True

    def _answered(self, reply: Reply) -> bool:
        # Counted, so that a stepped test waits in its own time.
        for _ in range(math.ceil(self._patience_s / LOOKS_EVERY_S)):
            if reply.wait(LOOKS_EVERY_S):
                return True
            if not self._supervisor.is_alive():
                return reply.wait(0.0)
        return False

    @contextmanager
    def _in_turn(self) -> Iterator[bool]:
        mine = self._turn.acquire(timeout=self._patience_s)
        try:
            yield mine
        finally:
            if mine:
                self._turn.release()

    @property
    def _patience_s(self) -> float:
        """Each engine may have to be loaded again first, and each has its own timeout."""
        return self._load_timeout_s * (len(self._held) + 2)


def error_of(failure: EngineLoadFailed) -> EngineDeserializeError | InferenceError | OutOfMemoryError:
    """The error that a load ended with, where a runtime's caller expects one."""
    detail = failure.detail.removeprefix(refusal_prefix(failure.model))
    return _LOAD_ERRORS.get(failure.fault, EngineDeserializeError)(detail)


_LOAD_ERRORS: Mapping[FaultClass, type[EngineDeserializeError | InferenceError | OutOfMemoryError]] = {
    "corrupt_engine": CorruptEngineError,
    "out_of_memory": OutOfMemoryError,
    "context_fault": DeviceContextError,
    "device_fault": DeviceFaultError,
}


def _identity(entry: EngineCacheEntry) -> str:
    return f"{entry.path} (sha256 {entry.engine_sha256[:12]})"
