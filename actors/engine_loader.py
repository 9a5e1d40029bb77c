"""Who holds which engine: the first one to ask has it loaded, the last one to let go has it stopped."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
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
        self._let_go: deque[str] = deque()

    def models(self) -> tuple[str, ...]:
        """Those that are held, sorted, also while their engine restarts."""
        return tuple(sorted(self._held.copy()))

    def hold(self, entry: EngineCacheEntry) -> None:
        """Have the engine loaded and tested, or share it; the engines of the flight itself are not waited for.

        An engine is the same wherever its file lies: a generation of the store links what it has not changed.

        Raises as `InferenceRuntime.deserialize_engine`, and EngineDeserializeError where another engine of the same
        model is loaded.
        """
        model = entry.model
        with self._in_turn() as is_my_turn:
            if not is_my_turn:
                raise EngineDeserializeError(f"{model}: other engines have been loading for {self._patience_s:g} s")
            held = self._held.get(model)
            if not self._supervisor.is_alive():
                raise _stopped(model)
            if held is None:
                self._refuse_twice(entry)
                self._load(entry)
                self._held[model] = _Held(entry)
            elif msgspec.structs.replace(entry, path=held.entry.path) == held.entry:
                held.holders += 1
            else:
                raise EngineDeserializeError(
                    f"{model}: another engine of this model is loaded: expected {_identity(held.entry)}, found"
                    f" {_identity(entry)}; release every handle of the one before loading the other"
                )

    def let_go(self, model: str) -> None:
        """Undo one `hold`. The last one waits until the engine is gone; what takes too long is logged and left."""
        self._let_go.append(model)  # whoever has the turn next does it where this wait is interrupted, or too long
        with self._in_turn() as is_my_turn:
            if not is_my_turn:
                self._log_not_released(model)

    def _refuse_twice(self, entry: EngineCacheEntry) -> None:
        for name, held in self._held.items():
            if held.entry.model == entry.model:
                raise EngineDeserializeError(
                    f"{entry.model}: flies under the name {name}, and would be loaded a second time: expected engines"
                    " that components load to fly under their own models' names"
                )

    def _load(self, entry: EngineCacheEntry) -> None:
        reply = Reply(self._scheduling)
        if not self._told(LoadEngine(self._spec_of(entry), reply)):
            raise _stopped(entry.model)
        try:
            answered = self._answered(reply)
        except BaseException:  # a Ctrl-C: nobody will hold it
            self._told(ReleaseEngine(entry.model, Reply(self._scheduling)))
            raise
        if not answered:
            if not self._told(ReleaseEngine(entry.model, Reply(self._scheduling))):
                raise _stopped(entry.model)
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
            if mine:
                self._release_what_was_let_go()
            yield mine
        finally:
            if mine:
                self._turn.release()

    def _release_what_was_let_go(self) -> None:
        while self._let_go:
            model = self._let_go.popleft()
            held = self._held[model]
            held.holders -= 1
            if held.holders:
                continue
            del self._held[model]
            reply = Reply(self._scheduling)
            if self._told(ReleaseEngine(model, reply)) and not self._answered(reply) and self._supervisor.is_alive():
                self._log_not_released(model)

    def _log_not_released(self, model: str) -> None:
        logger.error("C7 engine not released within {:g} s; backbone={}", self._patience_s, model)

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


def _stopped(model: str) -> EngineDeserializeError:
    return EngineDeserializeError(f"{model}: expected a runtime that flies, found one that was stopped")


def _identity(entry: EngineCacheEntry) -> str:
    return f"{entry.path} (sha256 {entry.engine_sha256[:12]})"
