"""Reading a whole file once, after making sure that it is one: no link, no pipe, no device, no surprise in size."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def read_regular_file(
    path: Path, *, max_bytes: int, exact_bytes: int | None = None, follow_links: bool = False
) -> bytes:
    """The content of `path`, read once from one opened file, so that what is hashed is what is used.

    Unless `follow_links`, neither the file nor the folder that it lies in may be a symbolic link; the folder is opened
    once, and the file in it, so that a link which is put in its place meanwhile leads nowhere.

    Raises OSError whose `strerror` says what was expected and found: a missing or unreadable file, anything that is
    no regular file, more than `max_bytes`, or a size other than `exact_bytes`.
    """
    with open_regular_file(path, max_bytes=max_bytes, exact_bytes=exact_bytes, follow_links=follow_links) as (
        descriptor,
        size_bytes,
    ):
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(size_bytes + 1)
        if len(data) != size_bytes:
            raise changing(path, size_bytes)
    return data


@contextmanager
def open_regular_file(
    path: Path, *, max_bytes: int, exact_bytes: int | None = None, follow_links: bool = False
) -> Iterator[tuple[int, int]]:
    """A descriptor of `path`, open for reading, and its size; checked and raising as `read_regular_file` does."""
    descriptor = _open(path, follow_links=follow_links)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
            raise _refusal(errno.EINVAL, f"expected a regular file, found {kind}", path)
        expected = status.st_size if exact_bytes is None else exact_bytes
        if status.st_size != expected:
            raise _refusal(errno.EINVAL, f"expected {expected} bytes, found {status.st_size}", path)
        if status.st_size > max_bytes:
            raise _refusal(errno.EFBIG, f"expected at most {max_bytes} bytes, found {status.st_size}", path)
        yield descriptor, status.st_size
    finally:
        os.close(descriptor)


def changing(path: Path, expected_bytes: int) -> OSError:
    """A file that had `expected_bytes` when it was opened, and had others to read."""
    return _refusal(errno.EINVAL, f"expected {expected_bytes} bytes, found it changing while it was read", path)


def is_no_regular_file(error: OSError) -> bool:
    """Whether a read failed for what lies there: nothing, no regular file, one of another size, or a link on the way.

    Anything else, such as a disk that fails or a right that is missing, may be over when it is read again.
    """
    return error.errno in (
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENXIO,
        errno.ENODEV,
        errno.EINVAL,
        errno.EFBIG,
    )


def why_unreadable(error: OSError, remedy: str) -> str:
    """What a person reads of a refusal: `remedy`, unless all that is missing is a right of this user."""
    if error.errno in (errno.EACCES, errno.EPERM):
        remedy = "give this user the right to read it"
    return f"cannot be read: {error.strerror}; {remedy}"


def _open(path: Path, *, follow_links: bool) -> int:
    # O_NONBLOCK: opening a named pipe that nobody writes to would wait for ever.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        if follow_links:
            return os.open(path, flags)
        folder = _open_folder(path.parent)
        try:
            return os.open(path.name, flags | os.O_NOFOLLOW, dir_fd=folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno == errno.ELOOP and path.is_symlink():
            raise _refusal(errno.ELOOP, "expected a regular file, found a symbolic link", path) from error
        if error.errno == errno.ENXIO:
            raise _refusal(errno.ENXIO, "expected a regular file, found a socket or pipe", path) from error
        raise OSError(error.errno, error.strerror, str(path)) from error


def _open_folder(path: Path) -> int:
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError as error:
        if path.is_symlink():
            raise _refusal(errno.ENOTDIR, f"expected a folder, found a symbolic link at {path}", path) from error
        raise


def _refusal(code: int, text: str, path: Path) -> OSError:
    return OSError(code, text, str(path))
