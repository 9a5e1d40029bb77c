"""Files that are whole or as they were, whatever ends the process or the power while they are written."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from runtimes.store.disk import DISK, Disk
from runtimes.store.storage_budget import describe_shortage

PART_SUFFIX = ".part"
_NAME_CHARS = 180
"""Of a file's name in its hidden one: with a token and the suffix it stays under the 255 bytes of Linux."""
_OUT_OF_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomically(path: Path, data: bytes, disk: Disk = DISK) -> None:
    """Replace `path` as one step that survives a power cut.

    Raises OSError. The former content stays then, but for one case: where the last fsync fails, the new content is
    in place, and a power cut may bring the former one back.
    """
    hidden = write_hidden(path, data, disk)
    try:
        disk.replace(hidden, path)
    except BaseException:
        discard(hidden, disk)
        raise
    disk.fsync_folder(path.parent)


def write_files_atomically(directory: Path, contents: Mapping[str, bytes], disk: Disk = DISK) -> None:
    """Write all files, or none where one cannot be written (a full disk, a folder that is read-only).

    Everything is on disk under hidden names before the first file is renamed into place, in the order given: put
    the file last that makes the others valid; it gets its name once the others' are durable. A process that is
    killed in between leaves some of them replaced, which that last file tells. Raises OSError; then all files are as
    they were, where the disk still obeys and lets a file have two names, or all are written and only a former one
    could not be removed.
    """
    if len(contents) == 1:
        ((name, data),) = contents.items()
        return write_atomically(directory / name, data, disk)
    hidden: dict[Path, Path] = {}
    formers: dict[Path, Path] = {}
    placed: list[Path] = []
    try:
        for name, data in contents.items():
            final = directory / name
            hidden[final] = write_hidden(final, data, disk, needed_bytes=sum(map(len, contents.values())))
        for final in hidden:
            if os.path.lexists(final) and (former := _link_former(final, disk)):
                formers[final] = former
        for number, final in enumerate(hidden, 1):
            if number == len(hidden):
                disk.fsync_folder(directory)
            disk.replace(hidden[final], final)
            placed.append(final)
        disk.fsync_folder(directory)
    except BaseException:
        for final in reversed(placed):
            if final in formers:
                with contextlib.suppress(OSError):  # of two errors the first one says why nothing was written
                    disk.replace(formers.pop(final), final)
            else:
                discard(final, disk)
        for path in (*hidden.values(), *formers.values()):
            discard(path, disk)
        raise
    for path in formers.values():
        disk.unlink(path)
    return None


def write_hidden(final: Path, data: bytes, disk: Disk, *, needed_bytes: int | None = None) -> Path:
    """Write what will become `final` beside it under a hidden name, durable but for that name.

    Raises OSError and leaves nothing. Where room is short the error says how much: of `needed_bytes` where more
    files belong together.
    """
    hidden = hidden_path(final)
    try:
        disk.write_new_file(hidden, data)
    except OSError as error:
        if error.errno not in _OUT_OF_ROOM:
            raise
        needed = len(data) if needed_bytes is None else needed_bytes
        shortage = describe_shortage(error.errno, final.parent, needed, largest_bytes=len(data), disk=disk)
        raise OSError(error.errno, f"{error.strerror}: {shortage}", str(final)) from error
    return hidden


def _link_former(final: Path, disk: Disk) -> Path | None:
    """A hidden name for the file that is about to be replaced; None where it cannot have a second name."""
    former = hidden_path(final)
    try:
        disk.link(final, former)
    except OSError as error:
        # FAT has no links, and Linux allows none to somebody else's file (fs.protected_hardlinks).
        if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            return None
        raise
    return former


def hidden_path(final: Path) -> Path:
    """A name of its own for what will become `final`. Those that a kill leaves behind match `.<name>.*.part`."""
    return final.with_name(f".{final.name[:_NAME_CHARS]}.{secrets.token_hex(8)}{PART_SUFFIX}")


def discard(path: Path, disk: Disk) -> None:
    """Remove a file on the way of another error, which is the one that is raised."""
    with contextlib.suppress(OSError):
        disk.unlink(path)
