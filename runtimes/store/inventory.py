"""What a store holds, generation by generation, as far as it can be read; the engines themselves are not hashed."""

from __future__ import annotations

import msgspec

from messages.errors import EngineStoreError
from runtimes.inference_runtime import EngineCacheEntry, Precision
from runtimes.store.engine_store import EngineStore, no_current
from runtimes.store.storage_budget import stored_bytes


class StoredEngine(msgspec.Struct, frozen=True, kw_only=True):
    """`accuracy` is the worst relative error against the reference, None where it was not measured."""

    model: str
    file: str
    precision: Precision
    runtime: str
    size_bytes: int
    accuracy: float | None


class StoredGeneration(msgspec.Struct, frozen=True, kw_only=True):
    """`problem` says why the generation cannot be read at all, `damaged` maps a model to what is wrong with it."""

    number: int
    current: bool
    engines: list[StoredEngine]
    damaged: dict[str, str]
    problem: str

    @property
    def is_whole(self) -> bool:
        return not self.damaged and not self.problem


class StoreInventory(msgspec.Struct, frozen=True, kw_only=True):
    """`problem` says why `current` leads to no generation, empty where it does or where nothing was committed yet.

    `size_bytes` counts a file once that several generations have; None where a folder cannot be read.
    """

    store: str
    current: int | None
    problem: str
    size_bytes: int | None
    generations: list[StoredGeneration]


def take_inventory(store: EngineStore) -> StoreInventory:
    """Damage is part of the answer. Raises EngineStoreError where the folder itself cannot be listed."""
    current: int | None = None
    problem = ""
    numbers = store.numbers()
    try:
        named = store.read_current()
        current = None if named is None else named[0]
        if named is None and numbers:
            problem = no_current(store.root)
        store.current()
    except EngineStoreError as error:
        problem = str(error)
    return StoreInventory(
        store=str(store.root),
        current=current,
        problem=problem,
        size_bytes=_size_bytes(store),
        generations=[_look_at(store, number, is_current=number == current) for number in numbers],
    )


def _size_bytes(store: EngineStore) -> int | None:
    try:
        return stored_bytes(store.root, store.disk)
    except EngineStoreError:
        return None


def _look_at(store: EngineStore, number: int, *, is_current: bool) -> StoredGeneration:
    try:
        generation = store.generation(number)
    except EngineStoreError as error:
        return StoredGeneration(number=number, current=is_current, engines=[], damaged={}, problem=str(error))
    return StoredGeneration(
        number=number,
        current=is_current,
        engines=[_describe(entry) for entry in generation.entries.values()],
        damaged=generation.damaged,
        problem="",
    )


def _describe(entry: EngineCacheEntry) -> StoredEngine:
    return StoredEngine(
        model=entry.model,
        file=entry.path.name,
        precision=entry.build_config.precision,
        runtime=entry.runtime_label,
        size_bytes=entry.engine_size_bytes,
        accuracy=None if entry.accuracy is None else entry.accuracy.worst,
    )
