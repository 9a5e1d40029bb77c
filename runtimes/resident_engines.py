"""Which engines of a runtime are loaded or suspended: releases are final, and nothing is compiled in flight."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Generic, TypeVar

from messages import EngineBuildError, InferenceError
from runtimes.inference_runtime import EngineHandle

HandleT = TypeVar("HandleT", bound=EngineHandle)


def refuse_to_compile(model_path: Path, models: Collection[str]) -> None:
    """Raises EngineBuildError where `models`, those that are loaded, are any at all."""
    if models:
        raise EngineBuildError(
            f"{model_path}: nothing is compiled while engines are loaded ({', '.join(models)}): compile before"
            " the flight, or release them first"
        )


class ResidentEngines(Generic[HandleT]):
    """The handles that one runtime has given out and not taken back. Callable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: dict[int, HandleT] = {}
        self._suspended: dict[int, HandleT] = {}
        self._resuming: set[int] = set()

    def admit(self, handle: HandleT) -> HandleT:
        with self._lock:
            self._loaded[id(handle)] = handle
        return handle

    def dismiss(self, handle: EngineHandle) -> HandleT | None:
        """Take the handle back, loaded or suspended; None where it was taken back before."""
        with self._lock:
            for engines in (self._loaded, self._suspended):
                if engines.get(id(handle)) is handle:
                    return engines.pop(id(handle))
            return None

    def require(self, handle: EngineHandle) -> HandleT:
        """The same handle, known to be loaded here. Raises InferenceError for any other."""
        loaded = self._loaded.get(id(handle))  # one dict read; it needs no lock
        if loaded is None or loaded is not handle:
            raise self._not_loaded(handle)
        return loaded

    def suspend(self, handle: EngineHandle) -> HandleT:
        """From loaded to suspended; a suspended one stays so. Raises InferenceError for any other."""
        with self._lock:
            if self._suspended.get(id(handle)) is not handle:
                if self._loaded.get(id(handle)) is not handle:
                    raise self._not_loaded(handle)
                self._suspended[id(handle)] = self._loaded.pop(id(handle))
            return self._suspended[id(handle)]

    def resume(self, handle: EngineHandle, make: Callable[[HandleT], HandleT]) -> HandleT:
        """The handle that `make` makes of a suspended one, which is dismissed; it stays suspended where `make` raises.

        Raises InferenceError where the handle is not suspended, is being resumed, or is released meanwhile.
        """
        with self._lock:
            suspended = self._suspended.get(id(handle))
            if suspended is None or suspended is not handle or id(handle) in self._resuming:
                raise InferenceError(
                    f"{handle.entry.model}: expected an engine that is suspended here, found one that"
                    f" {self._state(handle)}; deserialise it again"
                )
            self._resuming.add(id(handle))
        try:
            made = make(suspended)
        except BaseException:
            with self._lock:
                self._resuming.discard(id(handle))
            raise
        with self._lock:
            self._resuming.discard(id(handle))
            if self._suspended.pop(id(handle), None) is None:
                raise InferenceError(f"{handle.entry.model}: the engine was released while it was resumed")
            self._loaded[id(made)] = made
        return made

    def models(self) -> tuple[str, ...]:
        """The model of each engine, loaded or suspended, sorted; one that is there twice is listed twice."""
        with self._lock:
            return tuple(
                sorted(each.entry.model for engines in (self._loaded, self._suspended) for each in engines.values())
            )

    def refuse_compile(self, model_path: Path) -> None:
        """Raises EngineBuildError while any engine is loaded."""
        refuse_to_compile(model_path, self.models())

    def _not_loaded(self, handle: EngineHandle) -> InferenceError:
        remedy = "resume it" if self._suspended.get(id(handle)) is handle else "deserialise it again"
        return InferenceError(
            f"{handle.entry.model}: expected an engine that this runtime has loaded, found one that"
            f" {self._state(handle)}; {remedy}"
        )

    def _state(self, handle: EngineHandle) -> str:
        if id(handle) in self._resuming:
            return "is being resumed"
        if self._suspended.get(id(handle)) is handle:
            return "is suspended"
        if self._loaded.get(id(handle)) is handle:
            return "is loaded"
        return "was released or belongs to another runtime"
