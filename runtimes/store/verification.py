"""Hashing every file of a generation against its manifest, on all cores and in little memory."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path

import msgspec

from messages.errors import EngineStoreError
from messages.lifecycle import Sha256
from runtimes.store.engine_artifact import ENGINE_MAX_BYTES, engine_files, optional_files
from runtimes.store.engine_store import REMEDY, Generation
from runtimes.store.manifest import MANIFEST_MAX_BYTES, MANIFEST_NAME, Manifest, ManifestFile, decode_manifest
from runtimes.store.regular_file import changing, open_regular_file, read_regular_file, why_unreadable
from runtimes.store.sha256_sidecar import sha256_of

CHUNK_BYTES = 1024 * 1024
"""What one thread holds. 64 KiB to 4 MiB are hashed alike fast, and 1.8 times as fast as 64 MiB read at once."""
_WORKERS_MAX = 16
_PROGRESS_EVERY_S = 0.2


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a generation that is not what its manifest says.

    `model` is the engine it belongs to, empty for the manifest itself; `problem` names the file with its folder,
    expected, found, and what to do.
    """

    file: str
    model: str
    problem: str


class HashedSoFar(msgspec.Struct, frozen=True, kw_only=True):
    """How far a verification is, for a person who waits."""

    files_done: int
    files: int
    bytes_done: int
    bytes_total: int


Hashing = Callable[[int, HashedSoFar], None]
"""Hears, on the caller's thread, which generation is being hashed and how far that is."""


class _Tally:
    """What the threads of one verification share. `stopping` ends them at their next chunk."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.bytes_done = 0

    def add(self, size_bytes: int) -> None:
        with self.lock:
            self.bytes_done += size_bytes


def verify_generation(
    generation: Generation,
    workers: int | None = None,
    *,
    hashing: Hashing | None = None,
) -> tuple[Finding, ...]:
    """Everything that is wrong with a generation, in the manifest's order; empty where it is whole.

    Each file is opened once, without following links, and hashed in pieces on `workers` threads (all cores where
    None), so that memory does not grow with the engines.
    """
    try:
        manifest = read_manifest(generation)
    except EngineStoreError as error:
        return (Finding(file=MANIFEST_NAME, model="", problem=str(error)),)
    models = {name: model for model, engine in manifest.engines.items() for name in _files_of(engine)}
    progress = None if hashing is None else partial(hashing, generation.number)
    problems = _hash_all(generation.path, manifest.files, workers or verification_workers(), progress)
    findings = [
        Finding(file=file.name, model=models[file.name], problem=problems[file.name])
        for file in manifest.files
        if file.name in problems
    ]
    found = {finding.model for finding in findings}
    contradictory = [
        Finding(file=manifest.engines[model], model=model, problem=problem)
        for model, problem in generation.damaged.items()
        if model not in found
    ]
    return (*findings, *contradictory)


def verification_workers() -> int:
    """One thread per core that this process may use, within reason."""
    return min(len(os.sched_getaffinity(0)), _WORKERS_MAX)


def hash_regular_file(path: Path, *, exact_bytes: int, tally: Callable[[int], None] | None = None) -> Sha256:
    """The SHA-256 of a file of exactly this size, read once in pieces. Raises OSError as `read_regular_file` does."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(CHUNK_BYTES, exact_bytes + 1)))
    with open_regular_file(path, max_bytes=ENGINE_MAX_BYTES, exact_bytes=exact_bytes) as (descriptor, _):
        left_bytes = exact_bytes
        while count := os.readv(descriptor, [buffer]):
            left_bytes -= count
            if left_bytes < 0:
                break
            digest.update(buffer[:count])
            if tally is not None:
                tally(count)
        if left_bytes:
            raise changing(path, exact_bytes)
    return digest.hexdigest()


def read_manifest(generation: Generation) -> Manifest:
    """The manifest that this generation was read from. Raises EngineStoreError where it is another by this time."""
    path = generation.path / MANIFEST_NAME
    try:
        data = read_regular_file(path, max_bytes=MANIFEST_MAX_BYTES)
    except OSError as error:
        raise EngineStoreError(f"{path}: {why_unreadable(error, REMEDY)}") from error
    found = sha256_of(data)
    if found != generation.manifest_sha256:
        raise EngineStoreError(
            f"{path}: changed while it was verified: expected sha256 {generation.manifest_sha256}, found {found};"
            f" {REMEDY}"
        )
    return decode_manifest(path, data)


def _files_of(engine: str) -> list[str]:
    return [path.name for path in (*engine_files(Path(engine)), *optional_files(Path(engine)))]


def _hash_all(
    folder: Path, files: tuple[ManifestFile, ...], workers: int, progress: Callable[[HashedSoFar], None] | None
) -> dict[str, str]:
    """File name -> what is wrong with it."""
    tally = _Tally()
    bytes_total = sum(file.size_bytes for file in files)
    with ThreadPoolExecutor(max(1, min(workers, len(files))), thread_name_prefix="c7-verify") as pool:
        # The largest first: it would otherwise be hashed alone at the end.
        largest_first = sorted(files, key=lambda file: file.size_bytes, reverse=True)
        running: dict[Future[str], str] = {
            pool.submit(_check, folder, file, tally): file.name for file in largest_first
        }
        left = set(running)
        try:
            while left:
                _, left = wait(left, _PROGRESS_EVERY_S, FIRST_COMPLETED)
                if progress is not None:
                    progress(
                        HashedSoFar(
                            files_done=len(files) - len(left),
                            files=len(files),
                            bytes_done=tally.bytes_done,
                            bytes_total=bytes_total,
                        )
                    )
        except BaseException:
            tally.stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    problems = {name: future.result() for future, name in running.items()}
    return {name: problem for name, problem in problems.items() if problem}


def _check(folder: Path, listed: ManifestFile, tally: _Tally) -> str:
    """What is wrong with one file, empty where nothing is."""
    path = folder / listed.name

    def count(size_bytes: int) -> None:
        tally.add(size_bytes)
        if tally.stopping.is_set():
            raise OSError(0, "the verification was given up", str(path))

    try:
        found = hash_regular_file(path, exact_bytes=listed.size_bytes, tally=count)
    except OSError as error:
        return f"{path}: {why_unreadable(error, REMEDY)}"
    if found != listed.sha256:
        return f"{path}: content altered: expected sha256 {listed.sha256}, found {found}; {REMEDY}"
    return ""
