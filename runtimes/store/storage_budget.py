"""How much room the store takes and has left, and by how much it falls short."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

from messages.errors import EngineStoreError
from runtimes.store.disk import DISK, Disk

MIB = 1024 * 1024


def stored_bytes(root: Path, disk: Disk = DISK) -> int:
    """The size of all files under `root`, each once though it has several names; 0 where there is no such folder.

    What disappears while it is counted takes no room. Raises EngineStoreError.
    """
    sizes: dict[tuple[int, int], int] = {}
    folders = [root]
    for folder in folders:
        try:
            for entry in disk.list_folder(folder):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                    continue
                status = _status(entry)
                if status is not None:
                    sizes[status.st_dev, status.st_ino] = status.st_size
        except FileNotFoundError:
            continue
        except OSError as error:
            raise EngineStoreError(
                f"{folder}: what the engine store takes of its budget cannot be counted: {error.strerror}; check"
                " the folder's rights and the disk"
            ) from error
    return sum(sizes.values())


def room_bytes(budget_mb: int, stored: int) -> int:
    """What a budget in MiB has left beside the bytes that are stored; 0 where it is overdrawn."""
    return max(0, budget_mb * MIB - stored)


def over_budget(needed_bytes: int, left_bytes: int) -> str:
    """Why this does not fit the storage budget, empty where it does."""
    if needed_bytes <= left_bytes:
        return ""
    return (
        f"the storage budget is too small: {needed_bytes} bytes are needed, {left_bytes} bytes are left of it,"
        f" {needed_bytes - left_bytes} bytes are missing; remove old generations (c7 engines prune FLIGHT.toml) or"
        " raise [flight] storage_budget_mb"
    )


def refuse_if_full(directory: Path, sizes_bytes: list[int], disk: Disk = DISK) -> None:
    """Raise OSError (ENOSPC) before anything is written where files of these sizes do not fit on the disk.

    `directory` need not exist yet.
    """
    existing = next(folder for folder in (directory, *directory.parents) if folder.exists())
    free = disk.free_bytes(existing)
    if free is not None and sum(sizes_bytes) > free:
        text = f"{os.strerror(errno.ENOSPC)}: {_shortage(sum(sizes_bytes), free)}"
        raise OSError(errno.ENOSPC, text, str(directory))


def describe_shortage(code: int, directory: Path, needed_bytes: int, *, largest_bytes: int, disk: Disk) -> str:
    """How much was missing, after ENOSPC, EDQUOT or EFBIG ended the writing of these bytes to `directory`."""
    if code == errno.EFBIG:
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if limit == resource.RLIM_INFINITY:
            return f"{largest_bytes} bytes are needed in one file, more than this file system has"
        missing = max(0, largest_bytes - limit)
        return (
            f"{largest_bytes} bytes are needed in one file, this process may write {limit} (ulimit -f), {missing} bytes"
            " are missing"
        )
    try:
        free = disk.free_bytes(directory)
    except OSError:
        free = None
    if free is None:
        return f"{needed_bytes} bytes are needed, how many are free cannot be told"
    return _shortage(needed_bytes, free)


def _shortage(needed_bytes: int, free_bytes: int) -> str:
    if needed_bytes <= free_bytes:  # a quota, or room that somebody has made since
        return f"{needed_bytes} bytes are needed, {free_bytes} bytes are free there, but not all of them for this user"
    return (
        f"{needed_bytes} bytes are needed, {free_bytes} bytes are free there, {needed_bytes - free_bytes} bytes are"
        " missing"
    )


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
