"""Going back to a generation that was committed before."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from messages.errors import EngineStoreError
from messages.lifecycle import Sha256
from runtimes.store.durable_files import write_atomically
from runtimes.store.engine_store import CURRENT_NAME, EngineStore, format_current, store_errors
from runtimes.store.store_lock import OPERATOR_WAITS_S, store_lock
from runtimes.store.verification import Hashing, verify_generation


class RolledBack(msgspec.Struct, frozen=True, kw_only=True):
    """What became of `current`. `former` is None where it could not be read; `skipped` maps what is damaged to why."""

    former: int | None
    generation: int
    manifest_sha256: Sha256
    skipped: dict[int, str]


def roll_back(
    store: EngineStore,
    number: int | None = None,
    *,
    timeout_s: float = OPERATOR_WAITS_S,
    waiting: Callable[[], None] | None = None,
    hashing: Hashing | None = None,
) -> RolledBack:
    """Hash every file of a generation, and make it current: `number`, or the next lower one that is whole.

    Holds the store's lock. Replacing `current` is one step that survives a power cut; a flight in the air keeps the
    generation that it took off with. Raises EngineStoreError where the generation is missing or damaged, where none
    is left to go back to, and where the store is held by another or cannot be written: nothing has changed then,
    unless the error says which generation is current.
    """
    if not store.numbers():  # before a lock file is left in a folder that is no store
        raise EngineStoreError(f"{store.root}: expected a store with generations to go back to, found none")
    with store_lock(store, timeout_s=timeout_s, waiting=waiting):
        named, damage = _named_by_current(store)
        skipped: dict[int, str] = {}
        if number is not None:
            _check_present(store, number)
            if named is not None and named[0] == number:
                store.current()  # the one generation whose manifest has a hash to be held against
            sha256 = _verified_sha256(store, number, hashing)
        elif named is None:
            raise EngineStoreError(f"{damage}. Or say which generation to go back to: --generation N")
        else:
            number, sha256, skipped = _next_lower(store, named[0], hashing)
        if named != (number, sha256):
            _make_current(store, number, sha256)
    former = None if named is None else named[0]
    return RolledBack(former=former, generation=number, manifest_sha256=sha256, skipped=skipped)


def _make_current(store: EngineStore, number: int, sha256: Sha256) -> None:
    try:
        with store_errors(store.root, "rolled back"):
            write_atomically(store.root / CURRENT_NAME, format_current(number, sha256), store.disk)
    except EngineStoreError as error:
        if store.read_current() != (number, sha256):
            raise
        raise EngineStoreError(
            f"{store.root}: the disk does not confirm that it was rolled back ({error.__cause__}): generation {number}"
            " is current, and after a power cut it or the one before may be; check the disk, then roll back again"
        ) from error


def _check_present(store: EngineStore, number: int) -> None:
    numbers = store.numbers()
    if number not in numbers:
        listed = ", ".join(map(str, numbers)) or "none"
        raise EngineStoreError(f"{store.root}: expected one of its generations ({listed}), got {number}")


def _named_by_current(store: EngineStore) -> tuple[tuple[int, Sha256] | None, str]:
    """Number and manifest hash; or None and why there are none."""
    try:
        named = store.read_current()
    except EngineStoreError as error:
        return None, str(error)
    return named, "" if named else f"{store.root / CURRENT_NAME}: expected it to name a generation, found no such file"


def _next_lower(store: EngineStore, former: int, hashing: Hashing | None) -> tuple[int, Sha256, dict[int, str]]:
    skipped: dict[int, str] = {}
    for number in sorted((each for each in store.numbers() if each < former), reverse=True):
        try:
            return number, _verified_sha256(store, number, hashing), skipped
        except EngineStoreError as error:  # noqa: PERF203 - each generation is judged on its own
            skipped[number] = str(error)
    damaged = "".join(f"; generation {number} is damaged: {problem}" for number, problem in skipped.items())
    above = [number for number in store.numbers() if number > former]
    hint = f"; above it there are {', '.join(map(str, above))}: say which one, --generation N" if above else ""
    raise EngineStoreError(f"{store.root}: expected a whole generation below {former}, found none{damaged}{hint}")


def _verified_sha256(store: EngineStore, number: int, hashing: Hashing | None) -> Sha256:
    generation = store.generation(number)
    findings = verify_generation(generation, hashing=hashing)
    if findings:
        raise EngineStoreError("; ".join(finding.problem for finding in findings))
    return generation.manifest_sha256
