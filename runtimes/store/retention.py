"""Which generations stay when a store is pruned, and how the others go: out of sight first, then off the disk."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from runtimes.store.engine_store import EngineStore, store_errors

PRUNED_PREFIX = ".pruned-"
"""Of a generation that is being removed. It counts as none; the next prune or provisioner removes what is left."""


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """What a prune leaves, each with the reason, and what it removes; ascending."""

    kept: dict[int, str]
    pruned: tuple[int, ...]


def decide_retention(
    numbers: Collection[int],
    *,
    whole: Collection[int],
    current: int | None,
    in_flights: Mapping[int, str],
    keep: int,
) -> Retention:
    """Pure. Keep the current generation, what flights were opened with, and the `keep` newest that are whole.

    `in_flights` maps a generation to the flight that names it. The highest number stays too, whatever it is worth:
    the next generation counts on from it, and a number is never used twice.
    """
    newest = sorted(set(numbers) & set(whole))[-keep:] if keep > 0 else []
    kept: dict[int, str] = {}
    pruned: list[int] = []
    for number in sorted(numbers):
        if number == current:
            kept[number] = "current"
        elif number in in_flights:
            kept[number] = f"flown by {in_flights[number]}"
        elif number in newest:
            kept[number] = "the newest" if keep == 1 else f"one of the {keep} newest"
        elif number == max(numbers):
            kept[number] = "the highest number, from which the next one is counted"
        else:
            pruned.append(number)
    return Retention(kept=kept, pruned=tuple(pruned))


def hide_generations(store: EngineStore, numbers: Collection[int]) -> None:
    """Take generations out of sight, durably; hold the store's lock. From here on they are none.

    Raises EngineStoreError; some are hidden then, and some are whole and in place.
    """
    with store_errors(store.root, "pruned"):
        for number in numbers:
            folder = store.path_of(number)
            store.disk.replace(folder, store.root / f"{PRUNED_PREFIX}{folder.name}")
        # Before the first file goes: a power cut must not bring back the name of a generation that is half removed.
        store.disk.fsync_folder(store.root)


def remove_hidden(store: EngineStore) -> None:
    """Remove what was hidden, now or by a prune that was killed; hold the store's lock. Raises EngineStoreError.

    A file that another generation has too stays there: it only loses one of its names.
    """
    with store_errors(store.root, "pruned"):
        for entry in store.disk.list_folder(store.root):
            if not entry.name.startswith(PRUNED_PREFIX):
                continue
            if entry.is_dir(follow_symlinks=False):
                store.disk.remove_tree(Path(entry.path))
            else:
                store.disk.unlink(Path(entry.path))
