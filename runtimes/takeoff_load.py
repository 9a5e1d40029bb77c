"""F2, one model: from a committed engine on disk to one that is resident, or a refusal that names it."""

from __future__ import annotations

from messages.errors import EngineDeserializeError
from runtimes.inference_runtime import EngineCacheEntry, EngineHandle, InferenceRuntime


def deserialize_cached_engine(runtime: InferenceRuntime, entry: EngineCacheEntry) -> EngineHandle:
    """Verify and load one engine. The runtime reads the file once and loads the bytes that it hashed.

    Raises EngineDeserializeError naming the model, the file, expected and found, and what to do; OutOfMemoryError.
    """
    label = runtime.current_runtime_label()
    if entry.runtime_label != label:
        raise EngineDeserializeError(
            f"{entry.model} does not take off: {entry.path.name} was compiled by {entry.runtime_label}, configured is"
            f" {label}; compile it again (c7 provision FLIGHT.toml) or configure {entry.runtime_label}"
        )
    try:
        return runtime.deserialize_engine(entry)
    except EngineDeserializeError as error:
        raise EngineDeserializeError(f"{entry.model} does not take off: {error}") from error
