"""An engine of TensorRT that is resident: what runs it, and what is kept of it across a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from messages import InferenceError
from runtimes.engine_use import EngineUse
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.tensorrt.inference.engine import LoadedEngine
from runtimes.tensorrt.inference.execution import Execution

Open = Callable[[EngineCacheEntry, LoadedEngine], Execution]


class TensorrtHandle:
    """A loaded or suspended engine. Callable from any thread; a run under way at a release gives the memory back."""

    def __init__(self, entry: EngineCacheEntry, loaded: LoadedEngine, open_execution: Open) -> None:
        """Opens what a run needs. Raises as `Execution` does."""
        self.entry = entry
        self._loaded: LoadedEngine | None = loaded
        self._execution: Execution | None = open_execution(entry, loaded)
        self._use = EngineUse(entry.model)

    @contextmanager
    def running(self) -> Iterator[Execution]:
        """For one run. Raises InferenceError where the engine is suspended or released."""
        with self._use.running():
            execution = self._execution
            if execution is None:
                raise InferenceError(f"{self.entry.model}: the engine was put away while it was to run")
            yield execution

    def suspend(self) -> None:
        """Give back contexts, stream, graphs and memory; the engine with its weights stays. Raises as `close` does."""
        self._use.end(self._close)

    def resumed(self, open_execution: Open) -> TensorrtHandle:
        """A handle around the engine of this one, which keeps it no longer. Where this raises it stays suspended."""
        loaded = self._loaded
        if loaded is None:
            raise InferenceError(f"{self.entry.model}: the engine was released while it was resumed")
        handle = TensorrtHandle(self.entry, loaded, open_execution)
        self._loaded = None
        return handle

    def release(self) -> None:
        """Give everything back. Raises what CUDA says, once all is given back as far as it goes."""
        self._use.end(self._free)

    def _close(self) -> None:
        execution, self._execution = self._execution, None
        if execution is not None:
            execution.close()

    def _free(self) -> None:
        try:
            self._close()
        finally:
            self._loaded = None  # with the last reference TensorRT frees the weights, after every context
