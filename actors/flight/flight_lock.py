"""One flight process per state folder, held by the kernel: a killed process lets go at its death."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import Final

from messages import FlightProcessError
from runtimes.store.disk import DISK

LOCK_NAME: Final = "flight.lock"
_PID_MAX_BYTES: Final = 32


class FlightLock:
    """Holds the state folder from construction until `release` or the end of the process. Creates the folder.

    The lock is flock(2) on `flight.lock`, whose text is the holder's pid; the file is never removed, because a
    removed file could be locked by two. A child made by a bare fork would share the lock; one that execs does not.
    Raises FlightProcessError where another holds it (a second lock of this same process too) or the folder cannot be
    written.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_NAME
        try:
            missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in missing:  # a journal is worth nothing in a folder that a power cut takes away
                DISK.fsync_folder(folder.parent)
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        except BlockingIOError as error:
            holder = os.pread(fd, _PID_MAX_BYTES, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise FlightProcessError(
                f"{directory} belongs to a flight process that is running, pid {holder or 'not yet written'}; expected "
                "none. Stop it first, or give this flight another folder under [flight] state"
            ) from error
        except OSError as error:
            os.close(fd)
            raise self._unusable(error) from error
        self._fd = fd

    def release(self) -> None:
        """Let go. Releasing twice does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> FlightLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _unusable(self, error: OSError) -> FlightProcessError:
        return FlightProcessError(
            f"{self._path}: cannot be locked: {error.strerror}. Expected [flight] state to be a folder that this"
            " user may write, on a disk with room"
        )
