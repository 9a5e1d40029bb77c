"""The next generation while it is made: under the store's lock, out of sight, and gone unless it is committed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from messages.errors import EngineStoreError
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.store.engine_artifact import artifact_files, read_entry, verify_artifact
from runtimes.store.engine_store import (
    CURRENT_NAME,
    LOCK_TIMEOUT_S,
    EngineStore,
    Generation,
    format_current,
    store_errors,
)
from runtimes.store.manifest import MANIFEST_NAME, describe_files
from runtimes.store.sha256_sidecar import fsync_directory, sha256_of, write_atomically
from runtimes.store.store_lock import store_lock

_LEFTOVERS = (".staging-*", ".pruned-*", f".{CURRENT_NAME}.*.part")


class StagedGeneration:
    """A generation that nobody sees yet. Put engines into `directory`; use `scratch` for anything else."""

    def __init__(self, store: EngineStore, folder: Path, former: Generation | None, former_damage: str) -> None:
        self._store = store
        self.former = former
        """The current generation, None where there is none or it cannot be used."""
        self.former_damage = former_damage
        """Why the current generation cannot be used, empty where it can."""
        self.directory = folder / "generation"
        self.scratch = folder / "scratch"
        with store_errors(store.root, "written"):
            self.directory.mkdir(mode=0o755)
            self.scratch.mkdir(mode=0o755)

    def link(self, entry: EngineCacheEntry) -> EngineCacheEntry:
        """Take an unchanged engine of another generation over without copying it. Raises EngineStoreError."""
        with store_errors(self._store.root, "written"):
            for path in artifact_files(entry):
                os.link(path, self.directory / path.name, follow_symlinks=False)
        return read_entry(self.directory / entry.path.name)

    def commit(self) -> Generation:
        """Verify every engine, make all of it durable, and make it current.

        Raises EngineDeserializeError for an engine that is not whole, EngineStoreError where it cannot be written;
        the former generation is current then, as before.
        """
        number = self._next_number()
        entries = self._verified_entries()
        final = self._store.path_of(number)
        with store_errors(self._store.root, "written"):
            manifest = describe_files(number, entries).encode()
            for entry in entries.values():
                for path in artifact_files(entry):
                    _fsync_file(path)
            write_atomically(self.directory / MANIFEST_NAME, manifest)
            self.directory.rename(final)
            try:
                fsync_directory(self._store.root)
                write_atomically(self._store.root / CURRENT_NAME, format_current(number, sha256_of(manifest)))
            except OSError:
                if self._store.read_current() != (number, sha256_of(manifest)):
                    shutil.rmtree(final)
                raise
        committed = self._store.current()
        if committed is None or committed.number != number or committed.damaged:
            raise EngineStoreError(f"{self._store.root}: expected generation {number} to be current, found {committed}")
        return committed

    def _next_number(self) -> int:
        try:
            named = self._store.read_current()
        except EngineStoreError:
            named = None  # it is about to be replaced; the folders tell which numbers were used
        return 1 + max([0 if named is None else named[0], *self._store.numbers()])

    def _verified_entries(self) -> dict[str, EngineCacheEntry]:
        entries: dict[str, EngineCacheEntry] = {}
        for path in sorted(self.directory.glob("*.engine")):
            entry = read_entry(path)
            verify_artifact(entry)
            if entry.model in entries:
                raise EngineStoreError(
                    f"{self.directory}: expected one engine of {entry.model}, found"
                    f" {entries[entry.model].path.name} and {path.name}"
                )
            entries[entry.model] = entry
        expected = {file.name for entry in entries.values() for file in artifact_files(entry)}
        unexpected = sorted({path.name for path in self.directory.iterdir()} - expected)
        if unexpected or not entries:
            raise EngineStoreError(f"{self.directory}: expected whole engines alone, found {unexpected or 'none'}")
        return entries


@contextmanager
def stage_generation(
    store: EngineStore, *, timeout_s: float = LOCK_TIMEOUT_S, waiting: Callable[[], None] | None = None
) -> Iterator[StagedGeneration]:
    """Hold the store's lock, remove what a killed provisioner left, and stage the next generation.

    `waiting` is called now and then while another provisioner holds the lock. Raises EngineStoreError when it still
    does after `timeout_s`, or when the store cannot be written. What is not committed is removed at the end.
    """
    with store_errors(store.root, "written"):
        store.root.mkdir(parents=True, exist_ok=True)
    with store_lock(store, timeout_s=timeout_s, waiting=waiting):
        with store_errors(store.root, "written"):
            _remove_leftovers(store.root)
            folder = Path(tempfile.mkdtemp(prefix=".staging-", dir=store.root))
        try:
            yield StagedGeneration(store, folder, *_former(store))
        finally:
            with store_errors(store.root, "written"):
                shutil.rmtree(folder)


def _former(store: EngineStore) -> tuple[Generation | None, str]:
    try:
        return store.current(), ""
    except EngineStoreError as error:
        return None, str(error)


def _remove_leftovers(root: Path) -> None:
    for pattern in _LEFTOVERS:
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _fsync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
