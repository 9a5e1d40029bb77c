"""The manifest of a generation: its number, which engine each model has, and every file with its size and hash."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from messages.errors import EngineStoreError, printable
from messages.lifecycle import Sha256
from runtimes.inference_runtime import EngineCacheEntry
from runtimes.store.engine_artifact import (
    ENGINE_MAX_BYTES,
    SELF_TEST_MAX_BYTES,
    artifact_files,
    engine_files,
    optional_files,
)
from runtimes.store.engine_filename import FILENAME_MAX_CHARS
from runtimes.store.regular_file import read_regular_file
from runtimes.store.sha256_sidecar import sha256_of

MANIFEST_NAME = "manifest.json"
MANIFEST_MAX_BYTES = 256 * 1024
"""Twice what 64 engines with the longest names and all their files need."""

FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*\Z", max_length=FILENAME_MAX_CHARS + 16)]
"""A name inside the generation's own folder: no separator, nothing hidden, no `..`."""
ModelName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z", max_length=FILENAME_MAX_CHARS)]
"""What `check_model_name` takes."""
GENERATION_MAX = 999_999
GenerationNumber = Annotated[int, msgspec.Meta(ge=1, le=GENERATION_MAX)]


class ManifestFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: FileName
    size_bytes: Annotated[int, msgspec.Meta(ge=1, le=ENGINE_MAX_BYTES)]
    sha256: Sha256


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`engines` maps each model to its engine file; `number` grows with every generation and is never used twice."""

    format: Literal[1] = 1
    number: GenerationNumber
    engines: Annotated[dict[ModelName, FileName], msgspec.Meta(max_length=64)]
    files: Annotated[tuple[ManifestFile, ...], msgspec.Meta(max_length=256)]

    def listed(self) -> dict[str, ManifestFile]:
        return {file.name: file for file in self.files}

    def encode(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def describe_files(number: int, entries: dict[str, EngineCacheEntry]) -> Manifest:
    """The manifest of verified engines that lie in one folder. Raises EngineStoreError or OSError."""
    files: list[ManifestFile] = []
    for entry in entries.values():
        engine, *described = artifact_files(entry)
        files.append(ManifestFile(engine.name, entry.engine_size_bytes, entry.engine_sha256))
        for path in described:
            data = read_regular_file(path, max_bytes=SELF_TEST_MAX_BYTES)
            files.append(ManifestFile(path.name, len(data), sha256_of(data)))
    engines = {model: entry.path.name for model, entry in entries.items()}
    return Manifest(number=number, engines=engines, files=tuple(files))


def decode_manifest(path: Path, data: bytes) -> Manifest:
    """Read a manifest strictly. Raises EngineStoreError naming `path`."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineStoreError(f"{path}: not a manifest: {printable(str(error), 300)}") from error
    if manifest.encode() != data:
        raise EngineStoreError(
            f"{path}: not a manifest as it is written: expected the {len(manifest.encode())} bytes that say this and no"
            f" others, found {len(data)}; something else than c7 wrote it"
        )
    listed = manifest.listed()
    engines = [Path(name) for name in manifest.engines.values()]
    needed = {file.name for engine in engines for file in engine_files(engine)}
    allowed = needed | {file.name for engine in engines for file in optional_files(engine)}
    if len(listed) != len(manifest.files) or not needed <= listed.keys() <= allowed:
        wrong = sorted((needed - listed.keys()) | (listed.keys() - allowed)) or ["a file listed twice"]
        raise EngineStoreError(
            f"{path}: expected each engine's file, metadata and sidecar once, and no file of another engine; not so"
            f" for: {', '.join(wrong)[:300]}"
        )
    return manifest
