"""Content hashes beside the files that they are of, in `sha256sum`'s own format."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from messages.errors import CorruptEngineError, EngineDeserializeError
from messages.lifecycle import Sha256
from runtimes.store.disk import DISK, Disk
from runtimes.store.durable_files import write_files_atomically
from runtimes.store.regular_file import is_no_regular_file, read_regular_file

SIDECAR_MAX_BYTES = 64 * 1024
NAME_MAX_BYTES = 255
"""Linux has no longer file names."""
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\\\n]+)")


class Sha256Sidecar(msgspec.Struct, frozen=True):
    """`<file>.sha256`: file names of one folder and the SHA-256 of each. `sha256sum -c` checks it too.

    There is exactly one way to write given digests, and reading accepts only that one: no flipped bit of a sidecar
    reads as another sidecar that still fits its files.
    """

    digests: dict[str, Sha256]

    @staticmethod
    def path_for(path: Path) -> Path:
        return path.with_name(path.name + ".sha256")

    @classmethod
    def over(cls, contents: Mapping[str, bytes]) -> Sha256Sidecar:
        """The sidecar of files that have these names and contents."""
        return cls({name: sha256_of(data) for name, data in contents.items()})

    def format(self) -> bytes:
        """Raises ValueError where it lists nothing, or a name that no file of the folder has or that hides what it is.

        Those are `.`, `..`, more than 255 bytes, a path separator, and anything that does not print.
        """
        lines = [f"{digest}  {name}" for name, digest in self.digests.items()]
        for line in lines:
            if _read_line(line) is None:
                raise ValueError(f"expected a plain file name and a SHA-256 in lower case, got {line[:120]!r}")
        if not lines:
            raise ValueError("expected a sidecar over one file or more, got none")
        return "".join(f"{line}\n" for line in lines).encode()

    @classmethod
    def parse(cls, data: bytes) -> Sha256Sidecar:
        """Inverse of `format`. Raises ValueError."""
        *lines, rest = data.decode("utf-8", errors="strict").split("\n")
        digests: dict[str, Sha256] = {}
        for line in lines:
            found = _read_line(line)
            if found is None or found[0] in digests:
                raise ValueError(f"expected lines '<sha256>  <file name>', each name once, got {line[:120]!r}")
            digests[found[0]] = found[1]
        if rest or not digests:
            raise ValueError("expected one or more lines, each ended by a newline; it is cut off or empty")
        return cls(digests)

    @classmethod
    def read(cls, path: Path) -> Sha256Sidecar:
        """Read the sidecar file at `path`.

        Raises CorruptEngineError where it is missing or not a sidecar, EngineDeserializeError where it cannot be read.
        """
        try:
            return cls.parse(read_regular_file(_in_real_folder(path), max_bytes=SIDECAR_MAX_BYTES))
        except OSError as error:
            raise unreadable_file(error, f"{path}: expected a SHA-256 sidecar: {error.strerror}") from error
        except ValueError as error:
            raise CorruptEngineError(f"{path}: not a SHA-256 sidecar: {error}") from error

    def verify(self, path: Path, data: bytes) -> None:
        """Compare what was read from `path` with what is recorded. Raises CorruptEngineError naming both."""
        expected = self.digests.get(path.name)
        if expected is None:
            raise CorruptEngineError(f"{path}: its sidecar does not list it; listed: {', '.join(self.digests)[:300]}")
        found = sha256_of(data)
        if found != expected:
            raise CorruptEngineError(f"{path}: content altered: expected sha256 {expected}, found {found}")


def unreadable_file(error: OSError, text: str) -> EngineDeserializeError:
    """CorruptEngineError where there is no such file, and its base where reading it again may go well."""
    return (CorruptEngineError if is_no_regular_file(error) else EngineDeserializeError)(text)


def sha256_of(data: bytes) -> Sha256:
    return hashlib.sha256(data).hexdigest()


def write_with_sidecar(path: Path, data: bytes, disk: Disk = DISK) -> Sha256Sidecar:
    """Write one file and the sidecar over it. Raises OSError; both files are as they were then."""
    sidecar = Sha256Sidecar.over({path.name: data})
    write_files_atomically(path.parent, {path.name: data, Sha256Sidecar.path_for(path).name: sidecar.format()}, disk)
    return sidecar


def read_with_sidecar(path: Path, *, max_bytes: int) -> bytes:
    """Read one file against the sidecar beside it. Raises as `Sha256Sidecar.read` does, naming the file."""
    sidecar = Sha256Sidecar.read(Sha256Sidecar.path_for(path))
    try:
        data = read_regular_file(_in_real_folder(path), max_bytes=max_bytes)
    except OSError as error:
        raise unreadable_file(error, f"{path}: {error.strerror}") from error
    sidecar.verify(path, data)
    return data


def _read_line(line: str) -> tuple[str, Sha256] | None:
    """Name and digest; None for a line that no sidecar has."""
    match = _LINE.fullmatch(line)
    if match is None or match[2] in (".", "..") or not match[2].isprintable():
        return None
    return (match[2], match[1]) if len(os.fsencode(match[2])) <= NAME_MAX_BYTES else None


def _in_real_folder(path: Path) -> Path:
    """The caller names the folder, through links if it likes; the file itself must be no link."""
    return Path(os.path.realpath(path.parent)) / path.name
