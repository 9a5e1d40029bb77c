"""The flight journal: the few facts that a start after a power cut has to know, each on disk before it counts.

One record a line: `CRC32 SEQUENCE JSON`, the CRC over everything behind it. A line is appended by one write and one
fsync. A write that a crash cut short leaves a last line without its end: it was never acknowledged, and is dropped.
Everything else that does not read back exactly is damage and is refused; nothing is repaired by guessing.
"""

from __future__ import annotations

import contextlib
import os
import stat
import zlib
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Final

import msgspec
from loguru import logger

from messages import JournalError, WireFormatError, WireMessage, decode_json, encode_json
from messages.wire import WIRE_MAX_BYTES, TensorFreeMessage

JOURNAL_NAME: Final = "flight.journal"
_COMPACTED_NAME: Final = "flight.journal.new"
JOURNAL_MAX_BYTES: Final = 16 * 1024 * 1024
"""Some 60,000 records. `recovery.worth_keeping` brings it down to two flights at every start."""
LINE_MAX_BYTES: Final = WIRE_MAX_BYTES + 64
"""The checksum and the sequence number take less than 64."""


class JournalRecord(msgspec.Struct, frozen=True):
    """One message and its place: `sequence` only ever grows, across lives and flights of one state folder."""

    sequence: int
    message: WireMessage


class Journal:
    """The journal of one state folder, open for appending. Thread-safe; one process at a time (hold the flight lock).

    `append` blocks for one fsync: 0.1 to 10 ms on flash, longer on a disk that is failing.
    """

    def __init__(self, path: Path, folder_fd: int, file_fd: int, size_bytes: int, records: list[JournalRecord]) -> None:
        self._path = path
        self._folder_fd = folder_fd
        self._file_fd = file_fd
        self._size_bytes = size_bytes
        self._records = records
        self._lock = Lock()
        self._unusable_because = ""

    @classmethod
    def open(cls, directory: Path) -> Journal:
        """Read the journal of `directory`, or create an empty one; drop a last line that a crash cut short.

        Raises JournalError for a damaged or oversized file and for a folder that cannot be read or written.
        """
        path = directory / JOURNAL_NAME
        with contextlib.ExitStack() as undo:
            try:
                folder_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
                undo.callback(os.close, folder_fd)
                file_fd = os.open(
                    JOURNAL_NAME,
                    os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK,
                    0o600,
                    dir_fd=folder_fd,
                )
                undo.callback(os.close, file_fd)
                # Also for a file that was found: the process that created it may have died before this line.
                os.fsync(folder_fd)
                data = _read_bounded(file_fd, path)
                records, whole_bytes = parse_journal(data, str(path))
                if whole_bytes < len(data):
                    os.ftruncate(file_fd, whole_bytes)
                    os.fsync(file_fd)
                    logger.warning(
                        "C7 journal: dropped a line that a crash cut short; file={} offset={} bytes={}",
                        path,
                        whole_bytes,
                        len(data) - whole_bytes,
                    )
            except OSError as error:
                raise _unreadable(path, error) from error
            undo.pop_all()
        return cls(path, folder_fd, file_fd, whole_bytes, records)

    @property
    def path(self) -> Path:
        return self._path

    @property
    def records(self) -> tuple[JournalRecord, ...]:
        """Every record that is on disk, oldest first: what was read at open, and what was appended since."""
        with self._lock:
            return tuple(self._records)

    def append(self, message: TensorFreeMessage) -> JournalRecord:
        """Bring one record to disk: when this returns it survives a power cut.

        Raises JournalError. After a failed write the journal is as before and may be tried again. After a failed
        fsync it takes nothing more: the kernel has dropped the pages it could not write, so a second fsync would
        report a success that never happened, and only a new start learns what is on disk.
        """
        with self._lock:
            self._check_usable()
            sequence = self._records[-1].sequence + 1 if self._records else 1
            record = JournalRecord(sequence, message)
            line = format_line(record)
            if self._size_bytes + len(line) > JOURNAL_MAX_BYTES:
                raise JournalError(
                    f"{self._path}: a journal has at most {JOURNAL_MAX_BYTES} bytes and this one is full; "
                    f"{type(message).__name__} was not recorded. Start the flight process again, which compacts it"
                )
            try:
                written_bytes = os.write(self._file_fd, line)
            except OSError as error:
                self._cut_back()
                raise self._not_recorded(message, str(error)) from error
            if written_bytes != len(line):
                self._cut_back()
                raise self._not_recorded(message, f"the disk took {written_bytes} of {len(line)} bytes")
            self._sync(self._file_fd)
            self._size_bytes += len(line)
            self._records.append(record)
            return record

    def compact(self, keep: Iterable[JournalRecord]) -> None:
        """Replace the journal by `keep` (see `recovery.worth_keeping`), all or nothing; nothing to drop, no write.

        Raises JournalError; the old journal is then still there, whole.
        """
        with self._lock:
            self._check_usable()
            kept = list(keep)
            if kept == self._records:
                return
            data = b"".join(map(format_line, kept))
            with contextlib.ExitStack() as undo:
                try:
                    file_fd = os.open(
                        _COMPACTED_NAME,
                        os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW,
                        0o600,
                        dir_fd=self._folder_fd,
                    )
                    undo.callback(os.close, file_fd)
                    _write_all(file_fd, data)
                    os.fsync(file_fd)
                    os.replace(_COMPACTED_NAME, JOURNAL_NAME, src_dir_fd=self._folder_fd, dst_dir_fd=self._folder_fd)
                except OSError as error:
                    raise JournalError(
                        f"{self._path}: could not be compacted: {error}. It is unchanged; free space or make the "
                        "folder writable, then start again"
                    ) from error
                undo.pop_all()
            os.close(self._file_fd)
            self._file_fd = file_fd
            self._size_bytes = len(data)
            self._records = kept
            self._sync(self._folder_fd)

    def close(self) -> None:
        """Give the file back. Closing twice does nothing; appending afterwards raises JournalError."""
        with self._lock:
            if self._file_fd < 0:
                return
            os.close(self._file_fd)
            os.close(self._folder_fd)
            self._file_fd = self._folder_fd = -1
            self._unusable_because = "it is closed"

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_usable(self) -> None:
        if self._unusable_because:
            raise JournalError(f"{self._path}: takes no more records: {self._unusable_because}")

    def _sync(self, fd: int) -> None:
        try:
            os.fsync(fd)
        except OSError as error:
            self._unusable_because = (
                f"an fsync failed ({error}), so what is on disk is unknown; start the flight process again"
            )
            raise JournalError(f"{self._path}: {self._unusable_because}") from error

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self._file_fd, self._size_bytes)
        except OSError as error:
            self._unusable_because = f"the remains of a failed write could not be cut off ({error})"

    def _not_recorded(self, message: TensorFreeMessage, why: str) -> JournalError:
        return JournalError(
            f"{self._path}: {type(message).__name__} was not recorded: {why}. Free space on that disk, then try again"
        )


def read_journal(directory: Path) -> tuple[JournalRecord, ...]:
    """The records of a journal that somebody else may be writing; changes nothing. No journal: no records.

    Raises JournalError like `Journal.open`.
    """
    path = directory / JOURNAL_NAME
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        records, _ = parse_journal(_read_bounded(fd, path), str(path))
    except OSError as error:
        raise _unreadable(path, error) from error
    finally:
        os.close(fd)
    return tuple(records)


def format_line(record: JournalRecord) -> bytes:
    body = b"%d %s" % (record.sequence, encode_json(record.message))
    return b"%08x %s\n" % (zlib.crc32(body), body)


def parse_journal(data: bytes, name: str) -> tuple[list[JournalRecord], int]:
    """The records of a journal's bytes, and how many bytes they fill; what follows is a line that was cut short.

    Raises JournalError, with `name` and the offset, for anything that an interrupted append cannot have left.
    """
    records: list[JournalRecord] = []
    offset = 0
    while (end := data.find(b"\n", offset)) >= 0:
        line = data[offset:end]
        if not _is_whole(line):
            raise _damaged(name, offset, len(records), "its checksum does not match")
        sequence, _, text = line[9:].partition(b" ")
        try:
            record = JournalRecord(int(sequence), decode_json(text))
        except (ValueError, WireFormatError) as error:
            raise _damaged(name, offset, len(records), f"this release cannot read it: {error}") from error
        if records and record.sequence <= records[-1].sequence:
            found = f"its sequence number {record.sequence} follows {records[-1].sequence}"
            raise _damaged(name, offset, len(records), found)
        records.append(record)
        offset = end + 1
    rest = data[offset:]
    if len(rest) > LINE_MAX_BYTES or _is_whole(rest[:-1]):
        raise _damaged(name, offset, len(records), "its line end is gone")
    return records, offset


def _is_whole(line: bytes) -> bool:
    return line[8:9] == b" " and line[:8] == b"%08x" % zlib.crc32(line[9:])


def _read_bounded(fd: int, path: Path) -> bytes:
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise JournalError(f"{path}: expected a regular file, found something else; move it away and start again")
    chunks = bytearray()
    while chunk := os.pread(fd, 1024 * 1024, len(chunks)):
        chunks += chunk
        if len(chunks) > JOURNAL_MAX_BYTES:
            raise JournalError(
                f"{path}: a journal has at most {JOURNAL_MAX_BYTES} bytes, this file has {found.st_size}; it is not "
                "one that this program wrote. Move it away and start again"
            )
    return bytes(chunks)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _unreadable(path: Path, error: OSError) -> JournalError:
    return JournalError(
        f"{path}: the journal cannot be read or written: {error}. Expected a folder of the plan's [flight] state that "
        "this user may write"
    )


def _damaged(name: str, offset: int, whole: int, found: str) -> JournalError:
    return JournalError(
        f"{name}: the record at byte {offset} is damaged: {found}; the {whole} before it are whole. Whether the "
        "aircraft is airborne cannot be told from it. On the ground: keep the file for the analyst under another "
        "name and start again, which is then a takeoff"
    )
