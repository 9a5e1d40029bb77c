"""The one door through which the store and provisioning change the disk.

Each operation is one system call, so that a test can record it, refuse it, or die before it. An operation that is
not followed by its fsync is only believed: a power cut may undo it, or any part of what was written.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Final

FOLDER_MODE: Final = 0o755
FILE_MODE: Final = 0o644


class Disk:
    """The operating system's disk. Stateless; any thread may use it. Every method raises OSError."""

    def create(self, path: Path) -> int:
        """Create a file that was not there and return its descriptor, open for writing and owned by the caller."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        try:
            os.fchmod(descriptor, FILE_MODE)  # whatever the umask: the flight may run as another user
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):  # the first error is the one to report
                path.unlink()
            raise
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write some of `data`, at least one byte, and return how many."""
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        """Make a file's content, or a folder's names, durable.

        A failed fsync is never tried again: the kernel may have dropped what it could not write, and the next fsync
        says that all is well. Whoever gets the error treats what was written as lost.
        """
        os.fsync(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Rename, in one step, a file over `target` or a folder to a name that is free."""
        source.replace(target)

    def link(self, source: Path, target: Path) -> None:
        """Give a file a second name; a symbolic link is not followed."""
        os.link(source, target, follow_symlinks=False)

    def make_folder(self, path: Path) -> None:
        path.mkdir(mode=FOLDER_MODE)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()

    def list_folder(self, path: Path) -> list[os.DirEntry[str]]:
        """What lies in a folder, by name."""
        with os.scandir(path) as entries:
            return sorted(entries, key=lambda entry: entry.name)

    def free_bytes(self, path: Path) -> int | None:
        """How many bytes may still be written where `path` lies; None where the file system does not say."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize if status.f_blocks else None

    def write_new_file(self, path: Path, data: bytes) -> None:
        """Create a file with this content, durable but for its name in the folder; nothing is left where it fails."""
        descriptor = self.create(path)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self.write(descriptor, rest) :]
            # Through the descriptor that wrote: only it is sure to hear of a write-back that failed meanwhile.
            self.fsync(descriptor)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to report
                self.unlink(path)
            raise
        finally:
            os.close(descriptor)

    def fsync_file(self, path: Path) -> None:
        self._fsync(path, os.O_NOFOLLOW)

    def fsync_folder(self, path: Path) -> None:
        self._fsync(path, os.O_DIRECTORY)

    def make_folders(self, path: Path) -> None:
        """Create a folder and the folders above it that are missing, each durable in the one above it."""
        missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
        for folder in reversed(missing):
            try:
                self.make_folder(folder)
            except FileExistsError as error:
                if not folder.is_dir():
                    text = f"expected a folder, found something else at {folder}"
                    raise NotADirectoryError(errno.ENOTDIR, text, str(path)) from error
            self.fsync_folder(folder.parent)

    def remove_tree(self, path: Path) -> None:
        """Remove a folder with all that is in it, following no link.

        What cannot be removed stays, the rest goes; then the first error is raised.
        """
        if path.is_symlink():
            raise NotADirectoryError(errno.ENOTDIR, "expected a folder, found a symbolic link", str(path))
        errors: list[OSError] = []
        folders = [path]
        for folder in folders:
            try:
                entries = self.list_folder(folder)
            except OSError as error:
                errors.append(error)
                continue
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                    continue
                try:
                    self.unlink(Path(entry.path))
                except OSError as error:
                    errors.append(error)
        for folder in reversed(folders):
            try:
                self.remove_folder(folder)
            except OSError as error:  # noqa: PERF203 - each folder is tried
                errors.append(error)
        if errors:
            raise errors[0]

    def _fsync(self, path: Path, flags: int) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
        try:
            self.fsync(descriptor)
        finally:
            os.close(descriptor)


DISK: Final = Disk()
