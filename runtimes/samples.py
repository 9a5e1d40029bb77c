"""Given inputs of a model in `.npz` files: a fixed set, known by its content, read one file at a time."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from messages import ConfigError
from messages.lifecycle import Sha256
from runtimes.npz_file import decode_npz
from runtimes.store.regular_file import read_regular_file
from runtimes.store.sha256_sidecar import sha256_of

SAMPLES_MAX = 10_000
SAMPLE_MAX_BYTES = 1024**3
"""Largest file, and largest sum of the arrays in it; one is in memory at a time."""
SUFFIX = ".npz"

_REMEDY = "give one .npz file, or a folder of them, as numpy.savez writes them, and leave it alone while it is in use"


class SampleFile(msgspec.Struct, frozen=True):
    """One file of the set as it was when it was opened."""

    path: Path
    size_bytes: int
    sha256: Sha256


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """One .npz file, or all .npz files of a folder in the order of their names. Each file holds the inputs of one run.

    `sha256` is over the names, sizes and contents of the files in their order, not over where they lie. Iteration
    reads each file once more and yields its arrays by name. Callable from any thread.
    """

    path: Path
    files: tuple[SampleFile, ...]
    sha256: Sha256

    @classmethod
    def open(cls, path: Path) -> Samples:
        """Find and hash the files, one in memory at a time.

        Raises ConfigError naming what is missing, empty, no regular file, too large, or changing meanwhile. Links are
        refused: they can be pointed elsewhere without a change of any file.
        """
        found = _paths(path)
        files = tuple(_described(each) for each in found)
        if _paths(path) != found:
            raise ConfigError(f"{path}: the folder changed while it was read; {_REMEDY}")
        return cls(path=path, files=files, sha256=_content_sha256(files))

    @property
    def count(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        """The arrays of each file in order. Raises ConfigError as `read` does, and where files came or went."""
        for file in self.files:
            yield self.read(file)
        self.refuse_other_files()

    def read(self, file: SampleFile) -> dict[str, np.ndarray]:
        """The arrays of one file, from the very bytes that are hashed. Raises ConfigError naming the file and array."""
        data = _read(file.path)
        found = sha256_of(data)
        if found != file.sha256:
            raise ConfigError(
                f"{file.path}: changed while the samples were in use: expected {file.size_bytes} bytes with sha256"
                f" {file.sha256}, found {len(data)} with {found}; {_REMEDY}"
            )
        return decode_npz(file.path, data, max_bytes=SAMPLE_MAX_BYTES)

    def refuse_other_files(self) -> None:
        """Raises ConfigError where the folder holds other files than when it was opened."""
        expected, found = {file.path for file in self.files}, set(_paths(self.path))
        if expected != found:
            listed = ", ".join(sorted(each.name for each in expected ^ found)[:5])
            raise ConfigError(f"{self.path}: the folder changed while the samples were in use: {listed}; {_REMEDY}")


def _paths(path: Path) -> tuple[Path, ...]:
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise ConfigError(f"{path}: expected a folder or an {SUFFIX} file, found a symbolic link; {_REMEDY}")
        if not stat.S_ISDIR(mode):
            return (path,)
        names = []
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX):
                    names.append(entry.name)
                if len(names) > SAMPLES_MAX:
                    raise ConfigError(f"{path}: expected at most {SAMPLES_MAX} {SUFFIX} files, found more")
    except OSError as error:
        raise ConfigError(f"{path}: the samples cannot be read: {error.strerror}; {_REMEDY}") from error
    if not names:
        raise ConfigError(f"{path}: expected {SUFFIX} files in the folder, found none; {_REMEDY}")
    return tuple(path / name for name in sorted(names))


def _described(path: Path) -> SampleFile:
    data = _read(path)
    return SampleFile(path, len(data), sha256_of(data))


def _read(path: Path) -> bytes:
    if path.suffix != SUFFIX:
        raise ConfigError(f"{path}: expected an {SUFFIX} file, found '{path.suffix}'; {_REMEDY}")
    try:
        data = read_regular_file(path, max_bytes=SAMPLE_MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"{path}: the sample cannot be read: {error.strerror}; {_REMEDY}") from error
    if not data:
        raise ConfigError(f"{path}: the sample is empty (0 bytes); {_REMEDY}")
    return data


def _content_sha256(files: tuple[SampleFile, ...]) -> Sha256:
    digest = hashlib.sha256(b"c7 samples 1\n")
    for file in files:
        name = os.fsencode(file.path.name)
        # A name may hold anything but a slash and a zero byte; its length tells where it ends.
        digest.update(b"%s %d %d %s\n" % (file.sha256.encode(), file.size_bytes, len(name), name))
    return digest.hexdigest()
