"""The writing end of a recording: an MCAP file that grows by whole chunks.

Made of the record types of the `mcap` package and not of its `Writer`, which keeps some 630 bytes for each chunk until
the file is closed (measured, mcap 1.6): hundreds of megabytes on a long flight. Here the index of a chunk is kept in
its written form, and given up where it grows too large: viewers then scan the file.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mcap.data_stream import RecordBuilder
from mcap.opcode import Opcode
from mcap.records import (
    Channel,
    Chunk,
    ChunkIndex,
    DataEnd,
    Footer,
    Header,
    McapRecord,
    Metadata,
    MetadataIndex,
    Schema,
    Statistics,
    SummaryOffset,
)

from telemetry.recording_schema import RecordingChannel

MCAP_MAGIC = b"\x89MCAP0\r\n"
LIBRARY = "c7-inference flight recorder"
CHUNK_FULL_BYTES = 256 * 1024
_MESSAGE = struct.Struct("<BQHIQQ")
"""Opcode, length, channel, sequence, log and publish time of a message record, which its data follows. Packed here, and
so is the index of a chunk: field by field the package takes 4 µs for each message, this 1 µs.
"""
_MESSAGE_FIELDS_BYTES = _MESSAGE.size - 9
INDEX_MAX_BYTES = 16 * 1024 * 1024


class EncodedRecord(NamedTuple):
    """One message as it goes into the file. `log_time_ns` is CLOCK_MONOTONIC; a gap in `sequence` is a dropout."""

    sequence: int
    log_time_ns: int
    channel: RecordingChannel
    data: bytes


class RecordingFile:
    """A new file at `path`; an existing one is never touched. Used by one thread at a time.

    What `append` returned from is with the operating system: it survives the death of this process. Every method
    raises OSError where the file cannot be written, or would outgrow `max_bytes`; what was written stays readable.
    """

    def __init__(self, path: Path, metadata: dict[str, str], max_bytes: int) -> None:
        self._file = path.open("xb", buffering=0)
        self._max_bytes = max_bytes
        self._position = 0
        self._data_crc = 0
        self._channels: dict[int, RecordingChannel] = {}
        self._counts: dict[int, int] = {}
        self._chunk_count = 0
        self._chunk_index = RecordBuilder()
        self._first_ns = 0
        self._last_ns = 0
        try:
            head = _written(Header(profile="", library=LIBRARY))
            start = len(MCAP_MAGIC) + len(head)
            record = _written(Metadata(name="c7", metadata=metadata))
            self._metadata_index = MetadataIndex(offset=start, length=len(record), name="c7")
            self._write(MCAP_MAGIC + head + record)
        except OSError:
            self._file.close()
            path.unlink(missing_ok=True)  # without its head it is no recording, and the name is free again
            raise

    def append(self, records: Iterable[EncodedRecord]) -> None:
        """Write the records in as many chunks as they need. `records` is taken one by one and may take its time."""
        parts: list[bytes] = []
        places: dict[int, list[int]] = {}
        size_bytes = 0
        for sequence, log_time_ns, channel, data in records:
            number = channel.number
            if number not in self._channels:
                self._channels[number] = channel
                head = _written(_schema(channel)) + _written(_channel(channel))
                parts.append(head)
                size_bytes += len(head)
            if number not in places:
                places[number] = []
            places[number] += (log_time_ns, size_bytes)
            length = _MESSAGE_FIELDS_BYTES + len(data)
            parts.append(
                _MESSAGE.pack(Opcode.MESSAGE, length, number, sequence & 0xFFFF_FFFF, log_time_ns, log_time_ns)
            )
            parts.append(data)
            size_bytes += 9 + length
            if size_bytes >= CHUNK_FULL_BYTES:
                self._append_chunk(b"".join(parts), places)
                parts, places, size_bytes = [], {}, 0
        if parts:
            self._append_chunk(b"".join(parts), places)

    def finish(self) -> None:
        """Write the summary by which viewers find their way, and bring the file to the disk."""
        self._write(_written(DataEnd(data_section_crc=self._data_crc)))
        start = self._position
        summary = RecordBuilder()
        offsets: list[SummaryOffset] = []
        schemas = [_schema(channel) for channel in self._channels.values()]
        channels = [_channel(channel) for channel in self._channels.values()]
        groups: tuple[tuple[Opcode, list[McapRecord]], ...] = (
            (Opcode.SCHEMA, [*schemas]),
            (Opcode.CHANNEL, [*channels]),
            (Opcode.STATISTICS, [self._statistics()]),
            (Opcode.METADATA_INDEX, [self._metadata_index]),
        )
        for opcode, records in groups:
            begin = summary.count
            for record in records:
                record.write(summary)
            offsets.append(_summary_offset(opcode, start + begin, summary.count - begin))
        if 0 < self._chunk_index.count <= INDEX_MAX_BYTES:
            offsets.append(_summary_offset(Opcode.CHUNK_INDEX, start + summary.count, self._chunk_index.count))
            summary.write(_taken(self._chunk_index))
        offset_start = start + summary.count
        for offset in offsets:
            offset.write(summary)
        data = _taken(summary)
        footer = _written(Footer(summary_start=start, summary_offset_start=offset_start, summary_crc=0))
        crc = zlib.crc32(footer[:-4], zlib.crc32(data))
        self._write(data + footer[:-4] + crc.to_bytes(4, "little") + MCAP_MAGIC)
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _append_chunk(self, data: bytes, places: Mapping[int, Sequence[int]]) -> None:
        """`places` has for each channel, one after the other, time and offset of each of its messages."""
        first_ns = min(min(entries[::2]) for entries in places.values())
        last_ns = max(max(entries[::2]) for entries in places.values())
        out = RecordBuilder()
        Chunk(
            compression="",
            data=data,
            message_start_time=first_ns,
            message_end_time=last_ns,
            uncompressed_crc=zlib.crc32(data),
            uncompressed_size=len(data),
        ).write(out)
        chunk_length = out.count
        index_offsets: dict[int, int] = {}
        for number, entries in places.items():
            index_offsets[number] = self._position + out.count
            index_length = 6 + 8 * len(entries)
            out.write(
                struct.pack(
                    f"<BQHI{len(entries)}Q", Opcode.MESSAGE_INDEX, index_length, number, 8 * len(entries), *entries
                )
            )
        index = ChunkIndex(
            message_start_time=first_ns,
            message_end_time=last_ns,
            chunk_start_offset=self._position,
            chunk_length=chunk_length,
            message_index_offsets=index_offsets,
            message_index_length=out.count - chunk_length,
            compression="",
            compressed_size=len(data),
            uncompressed_size=len(data),
        )
        self._write(_taken(out))
        if self._chunk_index.count <= INDEX_MAX_BYTES:
            index.write(self._chunk_index)
        self._first_ns = first_ns if self._chunk_count == 0 else min(self._first_ns, first_ns)
        self._last_ns = max(self._last_ns, last_ns)
        self._chunk_count += 1
        for number, entries in places.items():
            self._counts[number] = self._counts.get(number, 0) + len(entries) // 2

    def _write(self, data: bytes) -> None:
        if self._position + len(data) > self._max_bytes:
            raise OSError(errno.EFBIG, f"the recording has reached its limit of {self._max_bytes} bytes")
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._position += len(data)
        self._data_crc = zlib.crc32(data, self._data_crc)

    def _statistics(self) -> Statistics:
        return Statistics(
            attachment_count=0,
            channel_count=len(self._channels),
            channel_message_counts=self._counts,
            chunk_count=self._chunk_count,
            message_count=sum(self._counts.values()),
            message_start_time=self._first_ns,
            message_end_time=self._last_ns,
            metadata_count=1,
            schema_count=len(self._channels),
        )


def _schema(channel: RecordingChannel) -> Schema:
    return Schema(id=channel.number, name=channel.schema_name, encoding="jsonschema", data=channel.schema)


def _channel(channel: RecordingChannel) -> Channel:
    return Channel(
        id=channel.number, schema_id=channel.number, topic=channel.topic, message_encoding="json", metadata={}
    )


def _summary_offset(opcode: Opcode, start: int, length: int) -> SummaryOffset:
    return SummaryOffset(group_opcode=opcode, group_start=start, group_length=length)


def _written(record: McapRecord) -> bytes:
    builder = RecordBuilder()
    record.write(builder)
    return _taken(builder)


def _taken(builder: RecordBuilder) -> bytes:
    data: bytes = builder.end()  # type: ignore[no-untyped-call]
    return data
