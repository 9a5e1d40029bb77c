"""The next generation while it is made: under the store's lock, out of sight, and gone unless it is committed.

The order of a commit, each step durable before the next one begins:

1. every file of every engine;
2. the manifest, under a hidden name and then its own, and with it all names in the generation's folder;
3. the folder under its number, in the store's root;
4. the next `current` under a hidden name;
5. `current`, replaced: readers see the new generation from here on;
6. the root: the new generation outlasts a power cut from here on, and only here is it reported as committed.

A power cut before 6 leaves `current` as it was or as it will be, and both name a generation that is whole. An fsync
that fails is never tried again, and what it was for is not committed. Where that is the last one, what the disk holds
is unknown: the former `current` is put back, so that what is reported, what readers see and what the next run finds
agree, and the generation's folder stays, because a power cut may yet bring back the `current` that names it. A disk
that refuses this too (ext4 turns read-only after such an error) shows the new generation; the error names the one
that is current.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from messages.errors import EngineStoreError
from messages.lifecycle import Sha256
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.store.draft_engines import DRAFTS_NAME, DraftEngines
from runtimes.store.durable_files import discard, write_atomically, write_hidden
from runtimes.store.engine_artifact import artifact_files, read_stored_entry, verify_artifact
from runtimes.store.engine_store import (
    CURRENT_MAX_BYTES,
    CURRENT_NAME,
    EngineStore,
    Generation,
    format_current,
    store_errors,
)
from runtimes.store.manifest import GENERATION_MAX, MANIFEST_NAME, describe_files
from runtimes.store.regular_file import read_regular_file
from runtimes.store.retention import PRUNED_PREFIX
from runtimes.store.sha256_sidecar import sha256_of
from runtimes.store.store_lock import PROVISIONER_WAITS_S, store_lock

_LEFTOVERS = (".staging-*", f"{PRUNED_PREFIX}*", f".{CURRENT_NAME}.*.part", f"{DRAFTS_NAME}/.*")


class StagedGeneration:
    """A generation that nobody sees yet. Put engines into `directory`; use `scratch` for anything else."""

    def __init__(self, store: EngineStore, folder: Path, former: Generation | None, former_damage: str) -> None:
        self._store = store
        self._disk = store.disk
        self._folder = folder
        self._drafts = DraftEngines(store.root, store.disk)
        self.former = former
        """The current generation, None where there is none or it cannot be used."""
        self.former_damage = former_damage
        """Why the current generation cannot be used, empty where it can."""
        self.directory = folder / "generation"
        self.scratch = folder / "scratch"
        with store_errors(store.root, "written"):
            self._disk.make_folder(self.directory)
            self._disk.make_folder(self.scratch)

    def scratch_folder(self, name: str) -> Path:
        """An empty folder of this name in `scratch`. Raises EngineStoreError."""
        with store_errors(self._store.root, "written"):
            self._disk.make_folder(self.scratch / name)
        return self.scratch / name

    def link(self, entry: EngineCacheEntry) -> EngineCacheEntry:
        """Take a finished engine of another generation or a draft over without copying it. Raises EngineStoreError."""
        with store_errors(self._store.root, "written"):
            for path in artifact_files(entry):
                self._disk.link(path, self.directory / path.name)
        return read_stored_entry(self.directory / entry.path.name)

    def keep_draft(self, entry: EngineCacheEntry) -> None:
        """From here on this engine of `directory`, finished and signed off, outlasts a kill of this run.

        A draft of the same engine file that an earlier run kept goes. Raises EngineStoreError.
        """
        with store_errors(self._store.root, "written"):
            self._drafts.keep(entry)

    def drafts(self) -> dict[str, list[EngineCacheEntry]]:
        """By model, the engines that interrupted runs had finished; `link` takes one over.

        Every file of them was hashed. One that is damaged is removed. Raises EngineStoreError.
        """
        with store_errors(self._store.root, "written"):
            return self._drafts.read()

    def remove_drafts(self) -> None:
        """Give the room of all drafts back. Raises EngineStoreError."""
        with store_errors(self._store.root, "written"):
            self._drafts.remove()

    def commit(self) -> Generation:
        """Verify every engine, make all of it durable, make it current, and remove the drafts.

        Raises EngineDeserializeError for an engine that is not whole, EngineStoreError where it cannot be written;
        the former generation is current then, as before, unless the error says otherwise.
        """
        number = self._next_number()
        entries = self._verified_entries()
        final = self._store.path_of(number)
        with store_errors(self._store.root, "written"):
            manifest = describe_files(number, entries).encode()
            for entry in entries.values():
                for path in artifact_files(entry):
                    self._disk.fsync_file(path)
            write_atomically(self.directory / MANIFEST_NAME, manifest, self._disk)
            self._disk.replace(self.directory, final)
            try:
                self._disk.fsync_folder(self._store.root)
                self._disk.fsync_folder(self._folder)
            except OSError:
                self._discard(number)
                raise
        self._make_current(number, sha256_of(manifest))
        committed = self._store.current()
        if committed is None or committed.number != number or committed.damaged:
            raise EngineStoreError(f"{self._store.root}: expected generation {number} to be current, found {committed}")
        with _cleaning_up(self._store.root):
            self._drafts.remove()
        return committed

    def _make_current(self, number: int, manifest_sha256: Sha256) -> None:
        current = self._store.root / CURRENT_NAME
        former = self._former_current()
        with store_errors(self._store.root, "written"):
            try:
                hidden = write_hidden(current, format_current(number, manifest_sha256), self._disk)
            except OSError:
                self._discard(number)
                raise
            try:
                self._disk.replace(hidden, current)
            except OSError:
                discard(hidden, self._disk)
                self._discard(number)
                raise
        try:
            self._disk.fsync_folder(self._store.root)
        except OSError as error:
            self._put_back(former)
            raise EngineStoreError(
                f"{self._store.root}: the disk does not confirm generation {number} ({error.strerror or error}):"
                f" {self._what_is_current()}; after a power cut it may be that one or the other, each of them whole;"
                " check the disk, then provision again: c7 provision FLIGHT.toml"
            ) from error

    def _former_current(self) -> bytes | None:
        """The content of `current`, b"" where there is none, None where it is nothing that could be put back."""
        try:
            return read_regular_file(self._store.root / CURRENT_NAME, max_bytes=CURRENT_MAX_BYTES)
        except FileNotFoundError:
            return b""
        except OSError:
            return None

    def _put_back(self, former: bytes | None) -> None:
        current = self._store.root / CURRENT_NAME
        with contextlib.suppress(OSError):  # the error on its way says what is current, whether or not this succeeds
            if former:
                write_atomically(current, former, self._disk)
            elif former is not None:
                self._disk.unlink(current)

    def _what_is_current(self) -> str:
        try:
            current = self._store.read_current()
        except EngineStoreError:
            return "no generation is current"
        return "no generation is current" if current is None else _is_current(current[0])

    def _discard(self, number: int) -> None:
        """Take a generation that is not to be out of sight, unless the disk made it current in spite of its error."""
        if self._what_is_current() != _is_current(number):
            with contextlib.suppress(OSError):  # another error is on its way, and no reader looks for it
                self._disk.replace(self._store.path_of(number), self.directory)

    def _next_number(self) -> int:
        try:
            named = self._store.read_current()
        except EngineStoreError:
            named = None  # it is about to be replaced; the folders tell which numbers were used
        number = 1 + max([0 if named is None else named[0], *self._store.numbers()])
        if number > GENERATION_MAX:
            raise EngineStoreError(
                f"{self._store.root}: expected generations up to {GENERATION_MAX}, found them used up; name another"
                " store in [flight] store"
            )
        return number

    def _verified_entries(self) -> dict[str, EngineCacheEntry]:
        entries: dict[str, EngineCacheEntry] = {}
        for path in sorted(self.directory.glob("*.engine")):
            entry = read_stored_entry(path)
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
    store: EngineStore, *, timeout_s: float = PROVISIONER_WAITS_S, waiting: Callable[[], None] | None = None
) -> Iterator[StagedGeneration]:
    """Hold the store's lock, remove what a killed provisioner left, and stage the next generation.

    `waiting` is called now and then while another provisioner holds the lock. Raises EngineStoreError when it still
    does after `timeout_s`, or when the store cannot be written. What is not committed is removed at the end, but for
    drafts.
    """
    with store_errors(store.root, "written"):
        store.disk.make_folders(store.root)
    with store_lock(store, timeout_s=timeout_s, waiting=waiting):
        folder = store.root / f".staging-{secrets.token_hex(8)}"
        try:
            with store_errors(store.root, "written"):
                _remove_leftovers(store)
                store.disk.make_folder(folder)
            yield StagedGeneration(store, folder, *_former(store))
        except BaseException:
            with contextlib.suppress(OSError):  # the error on its way says more; the next run removes what is left
                store.disk.remove_tree(folder)
            raise
        with _cleaning_up(store.root):
            store.disk.remove_tree(folder)


def _is_current(number: int) -> str:
    return f"generation {number} is current"


@contextmanager
def _cleaning_up(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EngineStoreError(
            f"{root}: what this run left behind cannot be removed: {error.filename or root}:"
            f" {error.strerror or error}; what was committed is current, and stays so; the next run removes the rest:"
            " check the disk"
        ) from error


def _former(store: EngineStore) -> tuple[Generation | None, str]:
    try:
        return store.current(), ""
    except EngineStoreError as error:
        return None, str(error)


def _remove_leftovers(store: EngineStore) -> None:
    drafts = store.root / DRAFTS_NAME
    if drafts.is_symlink():
        store.disk.unlink(drafts)
    for pattern in _LEFTOVERS:
        for path in sorted(store.root.glob(pattern)):
            if path.is_dir() and not path.is_symlink():
                store.disk.remove_tree(path)
            else:
                store.disk.unlink(path)
