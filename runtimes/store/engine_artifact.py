"""One compiled engine on disk: the engine file, its metadata and the sidecar over both.

`x.engine` and `x.engine.json` are valid only together with `x.engine.sha256`, which is renamed into place last.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from messages.errors import ConfigError, EngineDeserializeError, EngineStoreError
from messages.lifecycle import Sha256
from messages.tensor import TensorSpec
from runtimes.host import host_differences
from runtimes.inference_runtime import BuildConfig, EngineCacheEntry, HostTuple
from runtimes.path_text import decode_path, encode_path
from runtimes.source_model import SourceModel
from runtimes.store.engine_filename import EngineFilenameSchema
from runtimes.store.regular_file import read_regular_file
from runtimes.store.sha256_sidecar import SIDECAR_MAX_BYTES, Sha256Sidecar, sha256_of, write_files_atomically

METADATA_FORMAT = 1
METADATA_MAX_BYTES = 256 * 1024
ENGINE_MAX_BYTES = 8 * 1024**3

REMEDY = "compile it on this machine: c7 provision FLIGHT.toml"


class BuiltEngine(msgspec.Struct, frozen=True, eq=False):
    """What a runtime's compiler hands over: the bytes that `read_engine` gives back, and what they take and give."""

    data: bytes
    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]
    build_tool: str


def metadata_path(engine_path: Path) -> Path:
    return engine_path.with_name(engine_path.name + ".json")


def engine_files(engine_path: Path) -> tuple[Path, Path, Path]:
    """Engine, metadata and sidecar."""
    return engine_path, metadata_path(engine_path), Sha256Sidecar.path_for(engine_path)


def write_engine(
    directory: Path,
    model: str,
    source: SourceModel,
    built: BuiltEngine,
    build_config: BuildConfig,
    runtime_label: str,
    host: HostTuple,
    build_ns: int,
) -> EngineCacheEntry:
    """Write the three files, or none. An engine of the same name is replaced only once all three are on disk.

    Raises ConfigError for a model that cannot be named in a file name, EngineStoreError where it cannot be written.
    """
    name = EngineFilenameSchema.for_host(model, host, build_config.precision).format()
    entry = EngineCacheEntry(
        model=model,
        path=directory.absolute() / name,
        engine_sha256=sha256_of(built.data),
        engine_size_bytes=len(built.data),
        source_name=source.path.resolve().name,  # a link says less than the file that it led to
        source_sha256=source.sha256,
        runtime_label=runtime_label,
        build_config=build_config,
        host=host,
        inputs=built.inputs,
        outputs=built.outputs,
        build_tool=built.build_tool,
        build_ns=build_ns,
    )
    metadata = _encode_metadata(entry)
    sidecar = Sha256Sidecar({name: entry.engine_sha256, metadata_path(entry.path).name: sha256_of(metadata)})
    contents = {
        name: built.data,
        metadata_path(entry.path).name: metadata,
        Sha256Sidecar.path_for(entry.path).name: sidecar.format(),
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_files_atomically(directory, contents)
    except OSError as error:
        raise EngineStoreError(_why_not_written(entry, sum(map(len, contents.values())), error)) from error
    return entry


def read_entry(engine_path: Path) -> EngineCacheEntry:
    """Read what an engine is from its metadata, checked against the sidecar; the engine itself is not read yet.

    Raises EngineDeserializeError naming the file, what was expected and what was found.
    """
    path = engine_path.absolute()
    sidecar = _read(Sha256Sidecar.path_for(path), max_bytes=SIDECAR_MAX_BYTES)
    return decode_entry(path, _read(metadata_path(path), max_bytes=METADATA_MAX_BYTES), sidecar)


def decode_entry(engine_path: Path, metadata: bytes, sidecar: bytes) -> EngineCacheEntry:
    """What an engine is, from the contents of its metadata and sidecar files. Raises as `read_entry` does."""
    digests = _decode_sidecar(engine_path, sidecar)
    found = sha256_of(metadata)
    if found != digests[metadata_path(engine_path).name]:
        raise EngineDeserializeError(
            f"{metadata_path(engine_path)}: content altered: expected sha256"
            f" {digests[metadata_path(engine_path).name]}, found {found}; {REMEDY}"
        )
    entry = _decode_metadata(engine_path, metadata)
    if digests[engine_path.name] != entry.engine_sha256:
        raise EngineDeserializeError(
            f"{engine_path}: metadata and sidecar disagree: expected sha256 {entry.engine_sha256}, found"
            f" {digests[engine_path.name]}; {REMEDY}"
        )
    return entry


def read_engine(entry: EngineCacheEntry, *, runtime_label: str, host: HostTuple) -> bytes:
    """Verify an engine for this runtime on this host and return its bytes: the very buffer that was hashed.

    Raises EngineDeserializeError, with expected and found, for another runtime's label, another host, files that are
    missing, altered or replaced, and an entry that is not the one on disk.
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
    return read_verified(entry)


def read_verified(entry: EngineCacheEntry) -> bytes:
    """The bytes of an engine, whole and unaltered, whichever host it is for. Raises EngineDeserializeError."""
    on_disk = read_entry(entry.path)
    if on_disk != entry:
        fields = [name for name in entry.__struct_fields__ if getattr(entry, name) != getattr(on_disk, name)]
        raise EngineDeserializeError(
            f"{metadata_path(entry.path)}: not the engine that was asked for; different: {', '.join(fields)}; {REMEDY}"
        )
    data = _read(entry.path, max_bytes=ENGINE_MAX_BYTES, exact_bytes=entry.engine_size_bytes)
    found = sha256_of(data)
    if found != entry.engine_sha256:
        raise EngineDeserializeError(
            f"{entry.path}: content altered: expected sha256 {entry.engine_sha256}, found {found}; {REMEDY}"
        )
    return data


def _encode_metadata(entry: EngineCacheEntry) -> bytes:
    fields = msgspec.to_builtins(entry, enc_hook=encode_path)
    del fields["path"]
    return msgspec.json.format(msgspec.json.encode({"format": METADATA_FORMAT, **fields}), indent=2) + b"\n"


def _decode_metadata(engine_path: Path, data: bytes) -> EngineCacheEntry:
    where = metadata_path(engine_path)
    try:
        fields = msgspec.json.decode(data, type=dict[str, object])
        found_format = fields.pop("format", None)
        if found_format != METADATA_FORMAT:
            raise EngineDeserializeError(
                f"{where}: expected metadata format {METADATA_FORMAT}, found {found_format!r}; {REMEDY}"
            )
        if "path" in fields:
            raise msgspec.ValidationError("Object contains unknown field `path`")
        entry = msgspec.convert({**fields, "path": str(engine_path)}, EngineCacheEntry, dec_hook=decode_path)
        expected = EngineFilenameSchema.for_host(entry.model, entry.host, entry.build_config.precision).format()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ConfigError) as error:
        raise EngineDeserializeError(f"{where}: not an engine's metadata: {str(error)[:300]}; {REMEDY}") from error
    if engine_path.name != expected:
        raise EngineDeserializeError(
            f"{engine_path}: its name contradicts its metadata: expected {expected}, found {engine_path.name}; {REMEDY}"
        )
    return entry


def _decode_sidecar(engine_path: Path, data: bytes) -> dict[str, Sha256]:
    where = Sha256Sidecar.path_for(engine_path)
    try:
        digests = Sha256Sidecar.parse(data).digests
    except ValueError as error:
        raise EngineDeserializeError(f"{where}: not a SHA-256 sidecar: {error}; {REMEDY}") from error
    expected = [engine_path.name, metadata_path(engine_path).name]
    if list(digests) != expected:
        raise EngineDeserializeError(
            f"{where}: expected the hashes of {' and '.join(expected)}, found {', '.join(digests)}; {REMEDY}"
        )
    return digests


def _read(path: Path, *, max_bytes: int, exact_bytes: int | None = None) -> bytes:
    try:
        return read_regular_file(path, max_bytes=max_bytes, exact_bytes=exact_bytes)
    except OSError as error:
        raise EngineDeserializeError(f"{path}: cannot be read: {error.strerror}; {REMEDY}") from error


def _why_not_written(entry: EngineCacheEntry, size_bytes: int, error: OSError) -> str:
    directory = entry.path.parent
    try:
        status = os.statvfs(directory)
        room = f"{status.f_bavail * status.f_frsize} bytes are free there"
    except OSError:
        room = "the folder does not exist"
    return (
        f"{directory}: the engine of {entry.model} cannot be written ({error.strerror}): {size_bytes} bytes are needed,"
        f" {room}; nothing was left behind; make room or name another store in [flight] store"
    )
