"""The engine store: numbered generations, of which one is current.

    engines/current                 the one commit: `<sha256>  gen-000007/manifest.json`
    engines/gen-000007/             engines, their metadata and sidecars, and the manifest over all of them
    engines/gen-000007/manifest.sig the signature of the manifest, where the ground station gave one
    engines/timing/                 what former builds timed, for the next build alone (`timing_cache`)
    engines/.staging-*/             what a provisioner has not committed; the next one removes it
    engines/.drafts/                engines that a provisioner has finished and not committed (`draft_engines`)
    engines/.drafts/                engines that a provisioner had finished when it was ended; the next one takes them
    engines/.pruned-*               what a prune is removing; no generation any more
    engines/timing/                 what former builds timed on this machine
    engines/.lock                   held (flock) by the one provisioner, signer, rollback or prune at work

Replacing `current` is the only commit. Readers need no lock: a committed generation is never written again, but for
its signature.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from messages.errors import CorruptEngineError, EngineDeserializeError, EngineStoreError
from messages.lifecycle import Sha256
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.store.disk import DISK, Disk
from runtimes.store.engine_artifact import (
    METADATA_MAX_BYTES,
    attached_digests,
    decode_entry,
    engine_files,
    optional_files,
)
from runtimes.store.manifest import MANIFEST_MAX_BYTES, MANIFEST_NAME, Manifest, decode_manifest
from runtimes.store.regular_file import read_regular_file, why_unreadable
from runtimes.store.sha256_sidecar import sha256_of, unreadable_file

CURRENT_NAME = "current"
CURRENT_MAX_BYTES = 256
REMEDY = "provision again: c7 provision FLIGHT.toml"

_CURRENT = re.compile(rf"([0-9a-f]{{64}})  (gen-([0-9]{{6}}))/{re.escape(MANIFEST_NAME)}\n")
_GENERATION = re.compile(r"gen-([0-9]{6})")


class Generation(msgspec.Struct, frozen=True):
    """A committed set of engines.

    `entries` maps each model to its verified entry; the engine's own bytes are hashed when they are loaded.
    `damaged` names the models whose files are not what the manifest says, and why: they have no entry.
    """

    number: int
    path: Path
    entries: dict[str, EngineCacheEntry]
    manifest_sha256: Sha256
    damaged: dict[str, str] = {}


class EngineStore:
    """The generations under one folder. Reading never writes, so a store on a read-only disk can fly."""

    def __init__(self, root: Path, disk: Disk = DISK) -> None:
        self.root = Path(os.path.realpath(root))  # links above the store are the operator's; inside it there are none
        self.disk = disk

    def current(self) -> Generation | None:
        """The committed generation; None in a store that has none yet.

        Raises EngineStoreError where `current` or the manifest is unreadable, altered or contradicts the other.
        """
        named = self.read_current()
        return None if named is None else self._open(named[0], expected_sha256=named[1])

    def generation(self, number: int) -> Generation:
        """Any generation by its number. Raises EngineStoreError where it is missing or its manifest unusable."""
        return self._open(number, expected_sha256=None)

    def numbers(self) -> list[int]:
        """The numbers of all generation folders, ascending. Raises EngineStoreError."""
        with store_errors(self.root, "listed"):
            if not self.root.is_dir():
                return []
            matches = (_GENERATION.fullmatch(path.name) for path in self.root.iterdir())
            return sorted(int(match[1]) for match in matches if match)

    def path_of(self, number: int) -> Path:
        return self.root / f"gen-{number:06d}"

    def read_current(self) -> tuple[int, Sha256] | None:
        """Number and manifest hash that `current` names; None where there is no such file. Raises EngineStoreError."""
        path = self.root / CURRENT_NAME
        try:
            text = read_regular_file(path, max_bytes=CURRENT_MAX_BYTES).decode("ascii", errors="replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EngineStoreError(f"{path}: {why_unreadable(error, REMEDY)}") from error
        match = _CURRENT.fullmatch(text)
        if match is None:
            raise EngineStoreError(
                f"{path}: expected one line '<sha256>  gen-000001/{MANIFEST_NAME}', found {text[:100]!r}; {REMEDY}"
            )
        return int(match[3]), match[1]

    def _open(self, number: int, *, expected_sha256: Sha256 | None) -> Generation:
        folder = self.path_of(number)
        path = folder / MANIFEST_NAME
        try:
            data = read_regular_file(path, max_bytes=MANIFEST_MAX_BYTES)
        except OSError as error:
            named = "" if expected_sha256 is None else f", which {self.root / CURRENT_NAME} names,"
            raise EngineStoreError(f"{path}{named} {why_unreadable(error, REMEDY)}") from error
        found_sha256 = sha256_of(data)
        if expected_sha256 is not None and found_sha256 != expected_sha256:
            raise EngineStoreError(
                f"{path}: content altered, or {self.root / CURRENT_NAME} is: expected sha256 {expected_sha256}, found"
                f" {found_sha256}; {REMEDY}"
            )
        manifest = decode_manifest(path, data)
        if manifest.number != number:
            raise EngineStoreError(f"{path}: expected generation {number}, found {manifest.number}; {REMEDY}")
        entries: dict[str, EngineCacheEntry] = {}
        damaged: dict[str, str] = {}
        for model in manifest.engines:
            try:
                entries[model] = _read_listed_entry(folder, manifest, model)
            except EngineDeserializeError as error:  # noqa: PERF203 - each engine is judged on its own
                damaged[model] = str(error)
        return Generation(number, folder, entries, found_sha256, damaged)


def no_current(root: Path) -> str:
    """What to say of a store that has generations and no file `current`."""
    return (
        f"{root / CURRENT_NAME}: expected it to name a generation, found no such file; point it at one: c7 engines"
        " rollback FLIGHT.toml --generation N"
    )


def format_current(number: int, manifest_sha256: Sha256) -> bytes:
    """The content of `current`; `sha256sum -c current` in the store's folder checks it too."""
    return f"{manifest_sha256}  gen-{number:06d}/{MANIFEST_NAME}\n".encode("ascii")


@contextmanager
def store_errors(root: Path, what: str) -> Iterator[None]:
    """Turn the operating system's refusals into EngineStoreError: `what` is what could not be done with the store."""
    try:
        yield
    except OSError as error:
        where = error.filename2 or error.filename or root
        raise EngineStoreError(
            f"{root}: the engine store cannot be {what}: {where}: {error.strerror or error}; the committed generation"
            " is untouched; check the folder's rights and free space, or name another in [flight] store"
        ) from error


def _read_listed_entry(folder: Path, manifest: Manifest, model: str) -> EngineCacheEntry:
    engine, metadata, sidecar = engine_files(folder / manifest.engines[model])
    entry = decode_entry(engine, _read_listed(metadata, manifest), _read_listed(sidecar, manifest))
    attached = {path.name: sha256 for path, sha256 in attached_digests(entry).items()}
    of_engine = {path.name for path in optional_files(engine)}
    found_attached = {name: file.sha256 for name, file in manifest.listed().items() if name in of_engine}
    if found_attached != attached:
        raise CorruptEngineError(
            f"{engine}: the manifest lists other files of it: expected {', '.join(attached) or 'none'}, found"
            f" {', '.join(found_attached) or 'none'}, or other content; {REMEDY}"
        )
    listed = manifest.listed()[engine.name]
    if (entry.model, entry.engine_sha256, entry.engine_size_bytes) != (model, listed.sha256, listed.size_bytes):
        raise CorruptEngineError(
            f"{engine}: the manifest lists another engine: expected {model}, {listed.size_bytes} bytes, sha256"
            f" {listed.sha256}; found {entry.model}, {entry.engine_size_bytes} bytes, sha256 {entry.engine_sha256};"
            f" {REMEDY}"
        )
    try:
        found_bytes = engine.lstat().st_size
    except OSError as error:
        raise unreadable_file(error, f"{engine}: {why_unreadable(error, REMEDY)}") from error
    if found_bytes != listed.size_bytes:
        raise CorruptEngineError(f"{engine}: expected {listed.size_bytes} bytes, found {found_bytes}; {REMEDY}")
    return entry


def _read_listed(path: Path, manifest: Manifest) -> bytes:
    listed = manifest.listed()[path.name]
    try:
        data = read_regular_file(path, max_bytes=METADATA_MAX_BYTES, exact_bytes=listed.size_bytes)
    except OSError as error:
        raise unreadable_file(error, f"{path}: {why_unreadable(error, REMEDY)}") from error
    found = sha256_of(data)
    if found != listed.sha256:
        raise CorruptEngineError(f"{path}: content altered: expected sha256 {listed.sha256}, found {found}; {REMEDY}")
    return data
