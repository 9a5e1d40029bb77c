"""LightGlue, loaded once: C2.5 ranks tiles with it and C3 matches keyframes."""

from __future__ import annotations

from collections.abc import Mapping

from messages import Tensor
from runtimes import EngineCacheEntry, InferenceRuntime, deserialize_cached_engine


class LightGlueRuntime:
    """One resident LightGlue engine on a runtime that its consumers share.

    Loads at construction; raises what `deserialize_cached_engine` raises. C2.5 and C3 have threads of their own, so the
    runtime's handles must be usable from several threads at once: each of its runs is a message to the engine's actor.
    """

    def __init__(self, runtime: InferenceRuntime, entry: EngineCacheEntry) -> None:
        self._runtime = runtime
        self._handle = deserialize_cached_engine(runtime, entry)

    @property
    def entry(self) -> EngineCacheEntry:
        """Which engine it is: its inputs and outputs, precision and profile."""
        return self._handle.entry

    def runs_on(self, runtime: object) -> bool:
        """Whether it is this very runtime that its runs go through."""
        return self._runtime is runtime

    def match(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Match one pair of feature sets: the engine's own inputs and outputs. Raises as `InferenceRuntime.infer`."""
        return self._runtime.infer(self._handle, inputs)

    def release(self) -> None:
        """Let the engine go. Releasing twice does nothing."""
        self._runtime.release_engine(self._handle)
