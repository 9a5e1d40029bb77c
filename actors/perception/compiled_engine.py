"""The compiled engine of a component: what it must take and give is looked at before it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from messages import ConfigError, Tensor, TensorSpec
from runtimes import EngineCacheEntry, InferenceRuntime, deserialize_cached_engine, read_entry

FLOATS = ("float16", "float32")
RANK_OF_PICTURES = 4

Engine = str | EngineCacheEntry
"""The path of a compiled engine, as a flight plan's options hold it, or its entry."""


class CompiledEngine:
    """One engine on the runtime that all components share.

    Loads at construction; raises what `read_entry` and `deserialize_cached_engine` raise. One thread at a time.
    """

    def __init__(self, c7_inference: InferenceRuntime, entry: EngineCacheEntry) -> None:
        self._runtime = c7_inference
        self._handle = deserialize_cached_engine(c7_inference, entry)

    @property
    def model(self) -> str:
        return self._handle.entry.model

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Raises as `InferenceRuntime.infer`."""
        return self._runtime.infer(self._handle, inputs)


def entry_of(engine: Engine) -> EngineCacheEntry:
    """Raises ConfigError for what is neither, and what `read_entry` raises."""
    if isinstance(engine, EngineCacheEntry):
        return engine
    if not isinstance(engine, str) or not engine:
        raise ConfigError(f"engine: expected the path of a compiled engine or its entry, found {engine!r:.130}")
    return read_entry(Path(engine))


def picture_input(entry: EngineCacheEntry, name: str, *, channels: int) -> TensorSpec:
    """The input that takes pictures. Raises ConfigError unless it is float[1, channels, height, width], all fixed."""
    spec = entry.inputs.get(name)
    fits = (
        spec is not None
        and spec.dtype in FLOATS
        and len(spec.shape) == RANK_OF_PICTURES
        and spec.shape[:2] == (1, channels)
        and min(spec.shape) > 0
    )
    if spec is None or not fits:
        raise ConfigError(
            f"{entry.model}: expected an input {name} of {' or '.join(FLOATS)}[1, {channels}, height, width] with a"
            f" fixed height and width, found {_described(entry.inputs)}; name an engine that was compiled for this"
        )
    return spec


def require_inputs(entry: EngineCacheEntry, *names: str) -> None:
    """Raise ConfigError unless the engine takes exactly these inputs."""
    if set(entry.inputs) != set(names):
        raise ConfigError(
            f"{entry.model}: expected the inputs {', '.join(names)}, found {_described(entry.inputs)};"
            " name an engine that was compiled for this"
        )


def require_outputs(entry: EngineCacheEntry, *names: str) -> None:
    """Raise ConfigError where one is missing. What a scripted engine computes is not known beforehand: it passes."""
    if entry.outputs and not set(names) <= set(entry.outputs):
        raise ConfigError(
            f"{entry.model}: expected the outputs {', '.join(names)}, found {_described(entry.outputs)};"
            " name an engine that was compiled for this"
        )


def _described(specs: Mapping[str, TensorSpec]) -> str:
    return ", ".join(f"{name} {spec}" for name, spec in specs.items()) or "none"
