"""Which engines of a runtime are loaded: what makes a release final and a compilation in flight impossible."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Generic, TypeVar

from messages import EngineBuildError, InferenceError
from runtimes.inference_runtime import EngineHandle

HandleT = TypeVar("HandleT", bound=EngineHandle)


class ResidentEngines(Generic[HandleT]):
    """The handles that one runtime has given out and not taken back. Callable from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: dict[int, HandleT] = {}

    def admit(self, handle: HandleT) -> HandleT:
        with self._lock:
            self._loaded[id(handle)] = handle
        return handle

    def dismiss(self, handle: EngineHandle) -> HandleT | None:
        """Take the handle back; None where it was taken back before."""
        with self._lock:
            return self._loaded.pop(id(handle), None) if self._loaded.get(id(handle)) is handle else None

    def require(self, handle: EngineHandle) -> HandleT:
        """The same handle, known to be loaded here. Raises InferenceError for any other."""
        loaded = self._loaded.get(id(handle))  # one dict read; it needs no lock
        if loaded is None or loaded is not handle:
            raise InferenceError(
                f"{handle.entry.model}: expected an engine that this runtime has loaded, found one that was released"
                " or belongs to another runtime; deserialise it again"
            )
        return loaded

    def models(self) -> tuple[str, ...]:
        """The model of each loaded engine, sorted; one that is loaded twice is there twice."""
        with self._lock:
            return tuple(sorted(handle.entry.model for handle in self._loaded.values()))

    def refuse_compile(self, model_path: Path) -> None:
        """Raises EngineBuildError while any engine is loaded."""
        models = self.models()
        if models:
            raise EngineBuildError(
                f"{model_path}: nothing is compiled while engines are loaded ({', '.join(models)}): compile before"
                " the flight, or release them first"
            )
