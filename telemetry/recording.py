"""The reading end of a recording: every message that is whole, and never a wrong one."""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import msgspec
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, DataEnd, Header, Message, MessageIndex, Metadata, Schema

from messages import WIRE_MAX_BYTES, ConfigError, WireFormatError, WireMessage, decode_json
from telemetry.recording_file import CHUNK_FULL_BYTES, MCAP_MAGIC

RECORD_MAX_BYTES = 2 * (CHUNK_FULL_BYTES + WIRE_MAX_BYTES)
"""Larger than any record of the recorder; a longer claim is damage and nothing is allocated for it."""

_READERS = {
    Opcode.HEADER: Header.read,
    Opcode.METADATA: Metadata.read,
    Opcode.CHUNK: Chunk.read,
    Opcode.MESSAGE_INDEX: MessageIndex.read,
    Opcode.DATA_END: DataEnd.read,
}
_PARSE_ERRORS = (McapError, ValueError, OverflowError, struct.error)
_HEAD = struct.Struct("<BQ")


class RecordedMessage(msgspec.Struct, frozen=True):
    """`recorded_at_ns` is CLOCK_MONOTONIC of the boot in which the recording was made."""

    recorded_at_ns: int
    message: WireMessage


def read_recording(path: Path) -> Iterator[RecordedMessage]:
    """Yield the messages of a recording in the order in which they were recorded.

    A file whose writer was killed has no end: what is whole is yielded, and the iteration ends where the file does.
    Damage anywhere else raises WireFormatError, after every message before it was yielded; each chunk is checked
    against its CRC before any of it is used. Raises ConfigError where there is no such file.
    """
    with _opened(path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        magic = file.read(len(MCAP_MAGIC))
        if magic != MCAP_MAGIC[: len(magic)]:
            raise WireFormatError(f"{path}: expected an MCAP recording, found a file that starts with {magic!r}")
        data_crc = zlib.crc32(magic)
        while True:
            offset = file.tell()
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size:
                return
            opcode, length = _HEAD.unpack(head)
            if opcode not in _READERS or length > RECORD_MAX_BYTES:
                raise _damaged(path, offset, f"no record of this recorder has type {opcode} and {length} bytes")
            body = file.read(length)
            if len(body) < length:
                if _is_torn(file, opcode, body, size_bytes):
                    return
                raise _damaged(path, offset, f"a record claims {length} bytes, but {len(body)} are left")
            try:
                record = _parse(opcode, body)
                if isinstance(record, DataEnd):
                    if record.data_section_crc not in (0, data_crc):  # 0: other tools write none
                        raise ValueError("the CRC over the whole recording does not match")
                    return
                messages = _messages(record) if isinstance(record, Chunk) else []
            except _PARSE_ERRORS as error:
                raise _damaged(path, offset, str(error) or type(error).__name__) from error
            data_crc = zlib.crc32(body, zlib.crc32(head, data_crc))
            for message in messages:
                yield RecordedMessage(message.log_time, _decoded(path, offset, message))


def _opened(path: Path) -> BinaryIO:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"recording {path}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ConfigError(f"recording {path}: expected a file, found something else")
    return os.fdopen(descriptor, "rb")


def _parse(opcode: int, body: bytes) -> object:
    record, used_bytes = _content(opcode, body)
    if used_bytes != len(body):
        raise ValueError(f"a record of {len(body)} bytes holds {used_bytes}")
    return record


def _content(opcode: int, body: bytes) -> tuple[object, int]:
    stream = ReadDataStream(BytesIO(body))
    record: object = _READERS[Opcode(opcode)](stream)
    return record, stream.count


def _messages(chunk: Chunk) -> list[Message]:
    if chunk.compression:
        raise ValueError(f"expected a chunk as the recorder writes it, found one compressed by {chunk.compression!r}")
    if zlib.crc32(chunk.data) != chunk.uncompressed_crc:
        raise ValueError("the CRC of a chunk does not match")
    stream = ReadDataStream(BytesIO(chunk.data))
    messages: list[Message] = []
    while stream.count < len(chunk.data):
        opcode, length = stream.read1(), stream.read8()
        if opcode == Opcode.MESSAGE:
            messages.append(Message.read(stream, length))
        elif opcode == Opcode.SCHEMA:
            Schema.read(stream)
        elif opcode == Opcode.CHANNEL:
            Channel.read(stream)
        else:
            raise ValueError(f"a chunk of this recorder holds no record of type {opcode}")
    return messages


def _decoded(path: Path, offset: int, message: Message) -> WireMessage:
    try:
        return decode_json(message.data)
    except WireFormatError as error:
        raise _damaged(path, offset, str(error)) from error


def _is_torn(file: BinaryIO, opcode: int, body: bytes, size_bytes: int) -> bool:
    """Whether a record that the file ends in was cut off, rather than its length altered.

    A file that has its end was never cut. In one without, a record whose content is whole claims too much.
    """
    file.seek(max(0, size_bytes - len(MCAP_MAGIC)))
    if file.read() == MCAP_MAGIC:
        return False
    try:
        record, used_bytes = _content(opcode, body)
    except _PARSE_ERRORS:
        return True
    if isinstance(record, Chunk):
        return len(record.data) < record.uncompressed_size
    return used_bytes == len(body)


def _damaged(path: Path, offset: int, found: str) -> WireFormatError:
    return WireFormatError(
        f"{path}: the recording is damaged at byte {offset}: {found}; everything before this place was read"
    )
