"""One compiled engine on disk, read: the engine file, its metadata, what belongs to it, and the sidecar over all.

x.engine                 what the runtime loads
x.engine.json            the metadata: an EngineCacheEntry without its path
x.engine.selftest.npz    known answers, where the engine was provisioned
x.engine.calibration     the INT8 calibration cache, where the build used one
x.engine.sha256          the sidecar over all of these; it is renamed into place last and makes them valid
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from messages.errors import ConfigError, CorruptEngineError, EngineDeserializeError, OutOfMemoryError, printable
from messages.lifecycle import Sha256
from runtimes.host import host_differences
from runtimes.inference_runtime import EngineCacheEntry, HostTuple
from runtimes.path_text import decode_path, encode_path
from runtimes.store.engine_filename import EngineFilenameSchema
from runtimes.store.regular_file import read_regular_file, why_unreadable
from runtimes.store.sha256_sidecar import SIDECAR_MAX_BYTES, Sha256Sidecar, sha256_of, unreadable_file

METADATA_FORMAT = 3
METADATA_MAX_BYTES = 256 * 1024
ENGINE_MAX_BYTES = 8 * 1024**3
SELF_TEST_MAX_BYTES = 256 * 1024**2
CALIBRATION_MAX_BYTES = 64 * 1024**2

ReadEngine = Callable[[EngineCacheEntry], bytes]
"""Gives an engine's bytes, whole and unaltered, or raises as `read_entry` does: `read_verified`, or a `ReadAhead`."""

REMEDY = "compile it on this machine: c7 provision FLIGHT.toml"


def metadata_path(engine_path: Path) -> Path:
    return engine_path.with_name(engine_path.name + ".json")


def self_test_path(engine_path: Path) -> Path:
    return engine_path.with_name(engine_path.name + ".selftest.npz")


def calibration_path(engine_path: Path) -> Path:
    return engine_path.with_name(engine_path.name + ".calibration")


def engine_files(engine_path: Path) -> tuple[Path, Path, Path]:
    """What every engine has: engine, metadata and sidecar."""
    return engine_path, metadata_path(engine_path), Sha256Sidecar.path_for(engine_path)


def optional_files(engine_path: Path) -> tuple[Path, Path]:
    """What an engine may have: known answers and calibration cache."""
    return self_test_path(engine_path), calibration_path(engine_path)


def artifact_files(entry: EngineCacheEntry) -> tuple[Path, ...]:
    """All files of this engine, the sidecar last."""
    engine, metadata, sidecar = engine_files(entry.path)
    return engine, metadata, *attached_digests(entry), sidecar


def attached_digests(entry: EngineCacheEntry) -> dict[Path, Sha256]:
    """The files beside engine and metadata that this entry says it has, with their hashes."""
    hashes = (entry.self_test_sha256, entry.calibration_sha256)
    return {path: sha256 for path, sha256 in zip(optional_files(entry.path), hashes, strict=True) if sha256 is not None}


def sidecar_of(entry: EngineCacheEntry, metadata: bytes) -> Sha256Sidecar:
    """The one sidecar that fits this entry and its encoded metadata."""
    attached = {path.name: sha256 for path, sha256 in attached_digests(entry).items()}
    return Sha256Sidecar(
        {entry.path.name: entry.engine_sha256, metadata_path(entry.path).name: sha256_of(metadata), **attached}
    )


def read_entry(engine_path: Path) -> EngineCacheEntry:
    """Read what an engine is from its metadata, checked against the sidecar; the engine itself is not read yet.

    `engine_path` may lead through linked folders, and the entry's path has none; its files must be no links. Raises
    CorruptEngineError naming the file, what was expected and what was found; EngineDeserializeError where the disk or
    this user's rights do not let it be read.
    """
    return read_stored_entry(Path(os.path.realpath(engine_path.parent)) / engine_path.name)


def read_stored_entry(path: Path) -> EngineCacheEntry:
    """As `read_entry`, of an absolute path in a store, where the folder that the files lie in must be no link."""
    sidecar = _read(Sha256Sidecar.path_for(path), max_bytes=SIDECAR_MAX_BYTES)
    return decode_entry(path, _read(metadata_path(path), max_bytes=METADATA_MAX_BYTES), sidecar)


def decode_entry(engine_path: Path, metadata: bytes, sidecar: bytes) -> EngineCacheEntry:
    """What an engine is, from the contents of its metadata and sidecar files. Raises as `read_entry` does."""
    digests = _decode_sidecar(engine_path, sidecar)
    _compare(metadata_path(engine_path), metadata, digests[metadata_path(engine_path).name])
    entry = _decode_metadata(engine_path, metadata)
    expected = sidecar_of(entry, metadata).digests
    if digests != expected:
        differing = sorted(name for name in digests.keys() | expected.keys() if digests.get(name) != expected.get(name))
        raise CorruptEngineError(
            f"{Sha256Sidecar.path_for(engine_path)}: metadata and sidecar disagree on {', '.join(differing)[:600]}:"
            f" expected {_listed(expected, differing)}, found {_listed(digests, differing)}; {REMEDY}"
        )
    return entry


def read_verified(entry: EngineCacheEntry) -> bytes:
    """The bytes of an engine, whole and unaltered, whichever host it is for. Raises as `read_entry` does."""
    on_disk = read_stored_entry(entry.path)
    if on_disk != entry:
        fields = [name for name in entry.__struct_fields__ if getattr(entry, name) != getattr(on_disk, name)]
        raise CorruptEngineError(
            f"{metadata_path(entry.path)}: not the engine that was asked for; different: {', '.join(fields)}; {REMEDY}"
        )
    data = _read(entry.path, max_bytes=ENGINE_MAX_BYTES, exact_bytes=entry.engine_size_bytes)
    _compare(entry.path, data, entry.engine_sha256)
    return data


def read_engine(
    entry: EngineCacheEntry, *, runtime_label: str, host: HostTuple, read: ReadEngine = read_verified
) -> bytes:
    """Verify an engine for this runtime on this host and return its bytes: the very buffer that was hashed.

    Raises EngineDeserializeError, with expected and found, for another runtime's label, another host, and files that
    cannot be read; CorruptEngineError for files that are missing, altered or replaced, and an entry that is not the one
    on disk; OutOfMemoryError.
    """
    if entry.runtime_label != runtime_label:
        raise EngineDeserializeError(
            f"{entry.path}: compiled by another runtime: engine {entry.runtime_label}, here {runtime_label}; {REMEDY}"
        )
    differences = host_differences(entry.host, host)
    if differences:
        raise EngineDeserializeError(
            f"{entry.path}: compiled for another host ({entry.build_config.precision}):"
            f" {'; '.join(differences)}; {REMEDY}"
        )
    try:
        return read(entry)
    except MemoryError as error:
        raise OutOfMemoryError(
            f"{entry.path}: no memory for the {entry.engine_size_bytes} bytes of the engine's file"
        ) from error


def verify_artifact(entry: EngineCacheEntry) -> None:
    """Hash every file of an engine, whichever host it is for. Raises as `read_entry` does."""
    read_verified(entry)
    read_self_test(entry)
    read_calibration(entry)


def read_self_test(entry: EngineCacheEntry) -> bytes | None:
    """The known answers of an engine, unaltered; None where it has none. Raises as `read_entry` does."""
    return _read_attached(self_test_path(entry.path), entry.self_test_sha256, SELF_TEST_MAX_BYTES)


def read_calibration(entry: EngineCacheEntry) -> bytes | None:
    """The calibration cache of an engine, unaltered; None where it has none. Raises as `read_entry` does."""
    return _read_attached(calibration_path(entry.path), entry.calibration_sha256, CALIBRATION_MAX_BYTES)


def encode_metadata(entry: EngineCacheEntry) -> bytes:
    fields = msgspec.to_builtins(entry, enc_hook=encode_path)
    del fields["path"]
    return msgspec.json.format(msgspec.json.encode({"format": METADATA_FORMAT, **fields}), indent=2) + b"\n"


def _read_attached(path: Path, sha256: Sha256 | None, max_bytes: int) -> bytes | None:
    if sha256 is None:
        return None
    data = _read(path, max_bytes=max_bytes)
    _compare(path, data, sha256)
    return data


def _compare(path: Path, data: bytes, expected: Sha256) -> None:
    found = sha256_of(data)
    if found != expected:
        raise CorruptEngineError(f"{path}: content altered: expected sha256 {expected}, found {found}; {REMEDY}")


def _listed(digests: dict[str, Sha256], names: list[str]) -> str:
    return ", ".join(digests.get(name, "none") for name in names[:4])


def _decode_metadata(engine_path: Path, data: bytes) -> EngineCacheEntry:
    where = metadata_path(engine_path)
    try:
        fields = msgspec.json.decode(data, type=dict[str, object])
        found_format = fields.pop("format", None)
        if found_format != METADATA_FORMAT:
            raise CorruptEngineError(
                f"{where}: expected metadata format {METADATA_FORMAT}, found {found_format!r:.60}; {REMEDY}"
            )
        if "path" in fields:
            raise msgspec.ValidationError("Object contains unknown field `path`")
        entry = msgspec.convert({**fields, "path": str(engine_path)}, EngineCacheEntry, dec_hook=decode_path)
        expected = EngineFilenameSchema.for_host(entry.model, entry.host, entry.build_config.precision).format()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ConfigError) as error:
        raise CorruptEngineError(
            f"{where}: not an engine's metadata: {printable(str(error), 300)}; {REMEDY}"
        ) from error
    if encode_metadata(entry) != data:
        raise CorruptEngineError(
            f"{where}: not an engine's metadata as it is written: expected the {len(encode_metadata(entry))} bytes that"
            f" say this and no others, found {len(data)}; {REMEDY}"
        )
    if engine_path.name != expected:
        raise CorruptEngineError(
            f"{engine_path}: its name contradicts its metadata: expected {expected}, found {engine_path.name}; {REMEDY}"
        )
    return entry


def _decode_sidecar(engine_path: Path, data: bytes) -> dict[str, Sha256]:
    where = Sha256Sidecar.path_for(engine_path)
    try:
        digests = Sha256Sidecar.parse(data).digests
    except ValueError as error:
        raise CorruptEngineError(f"{where}: not a SHA-256 sidecar: {error}; {REMEDY}") from error
    expected = [engine_path.name, metadata_path(engine_path).name]
    if list(digests)[:2] != expected:
        raise CorruptEngineError(
            f"{where}: expected the hashes of {' and '.join(expected)}, found {', '.join(digests)[:600]}; {REMEDY}"
        )
    return digests


def _read(path: Path, *, max_bytes: int, exact_bytes: int | None = None) -> bytes:
    try:
        return read_regular_file(path, max_bytes=max_bytes, exact_bytes=exact_bytes)
    except OSError as error:
        raise unreadable_file(error, f"{path}: {why_unreadable(error, REMEDY)}") from error
