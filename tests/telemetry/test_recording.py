"""Reading recordings that were cut, altered or never were recordings: a prefix, and never anything wrong."""

from __future__ import annotations

import os
import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.stream_reader import StreamReader

from messages import (
    AirborneDeclared,
    ConfigError,
    ConsumerReported,
    InferRejected,
    LogRecorded,
    ThermalState,
    ThrottleEntered,
    WireFormatError,
    WireMessage,
    encode_json,
)
from telemetry import read_recording
from telemetry.recording_file import EncodedRecord, RecordingFile
from telemetry.recording_schema import channel_of

CHUNKS = 4
CHUNK_MESSAGES = 3


def encoded(number: int, message: WireMessage) -> EncodedRecord:
    return EncodedRecord(number, 1000 + number, channel_of(message), encode_json(message))


def messages() -> list[WireMessage]:
    return [
        AirborneDeclared(number) if number % CHUNK_MESSAGES == 0 else ConsumerReported("vpr", number, good=True)
        for number in range(CHUNKS * CHUNK_MESSAGES)
    ]


class Recording:
    """A recording of four chunks, finished and as a killed writer leaves it, and where each chunk ends."""

    def __init__(self, folder: Path) -> None:
        path = folder / "whole.mcap"
        file = RecordingFile(path, {"log_time": "CLOCK_MONOTONIC"}, max_bytes=10**6)
        records = [encoded(number, message) for number, message in enumerate(messages())]
        self.chunk_ends = []
        for first in range(0, len(records), CHUNK_MESSAGES):
            file.append(records[first : first + CHUNK_MESSAGES])
            # The message index after a chunk may be cut without losing a message.
            self.chunk_ends.append(path.stat().st_size - index_bytes(first))
        self.unfinished = path.read_bytes()
        file.finish()
        file.close()
        self.finished = path.read_bytes()

    def whole_before(self, offset: int) -> list[WireMessage]:
        return messages()[: CHUNK_MESSAGES * sum(end <= offset for end in self.chunk_ends)]


def index_bytes(first: int) -> int:
    channels = {type(message) for message in messages()[first : first + CHUNK_MESSAGES]}
    return len(channels) * (9 + 6) + CHUNK_MESSAGES * 16


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return Recording(tmp_path_factory.mktemp("recording"))


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "flight.mcap"


def read(path: Path, data: bytes) -> tuple[list[WireMessage], str]:
    """What is read before the end, and the error that ended it, if one did."""
    path.write_bytes(data)
    found = []
    try:
        for number, each in enumerate(read_recording(path)):
            assert each.recorded_at_ns == 1000 + number
            found.append(each.message)
    except WireFormatError as error:
        return found, str(error)
    return found, ""


def test_a_finished_and_an_unfinished_recording_are_read_whole(recording: Recording, scratch: Path) -> None:
    assert read(scratch, recording.finished) == (messages(), "")
    assert read(scratch, recording.unfinished) == (messages(), "")


def test_the_mcap_packages_own_reader_agrees(recording: Recording, scratch: Path) -> None:
    scratch.write_bytes(recording.finished)
    with scratch.open("rb") as file:
        records = list(StreamReader(file, validate_crcs=True).records)
    assert [type(record).__name__ for record in records].count("Message") == len(messages())


def test_a_file_cut_anywhere_yields_exactly_the_chunks_that_are_whole(recording: Recording, scratch: Path) -> None:
    for offset in range(len(recording.unfinished)):
        assert read(scratch, recording.unfinished[:offset]) == (recording.whole_before(offset), ""), offset


@pytest.mark.parametrize("kind", ["finished", "unfinished"])
def test_a_flipped_bit_never_yields_a_wrong_message_and_never_hides_one_silently(
    recording: Recording, scratch: Path, kind: str
) -> None:
    data: bytes = getattr(recording, kind)
    bits = random.Random(20).sample(range(8 * len(data)), 1500)
    for bit in bits:
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        found, error = read(scratch, bytes(altered))
        assert found == messages()[: len(found)], bit
        assert error or found == messages(), bit


def test_every_bit_of_the_data_of_a_finished_recording_is_checked(recording: Recording, scratch: Path) -> None:
    end = len(recording.unfinished)
    for offset in range(0, end, 7):
        altered = bytearray(recording.finished)
        altered[offset] ^= 0x10
        assert read(scratch, bytes(altered))[1], offset


def test_damage_is_reported_after_the_messages_before_it(recording: Recording, scratch: Path) -> None:
    altered = bytearray(recording.finished)
    altered[recording.chunk_ends[2] - 5] ^= 1
    found, error = read(scratch, bytes(altered))
    assert found == messages()[: 2 * CHUNK_MESSAGES]
    assert "damaged at byte" in error
    assert "CRC of a chunk" in error


def test_a_finished_recording_that_misses_its_middle_is_damaged_not_short(recording: Recording, scratch: Path) -> None:
    middle = recording.chunk_ends[1]
    found, error = read(scratch, recording.finished[: middle - 20] + recording.finished[-60:])
    assert found == messages()[:CHUNK_MESSAGES]
    assert "damaged" in error


def test_a_huge_claim_allocates_nothing(recording: Recording, scratch: Path) -> None:
    start = recording.unfinished[: recording.chunk_ends[0] + index_bytes(0)]
    for claim in (2**24, 2**31, 2**63):
        tracemalloc.start()
        found, error = read(scratch, start + b"\x06" + claim.to_bytes(8, "little") + bytes(100))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found == messages()[:CHUNK_MESSAGES]
        assert f"{claim} bytes" in error
        assert peak < 1_000_000


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_bytes_that_follow_a_recording_are_refused_or_ignored(
    recording: Recording, scratch: Path, noise: bytes
) -> None:
    found, _ = read(scratch, recording.unfinished + noise)
    assert found == messages()


def test_a_compressed_chunk_and_a_strange_file_are_refused(scratch: Path, tmp_path: Path) -> None:
    from mcap.writer import CompressionType, Writer

    with scratch.open("wb") as file:
        writer = Writer(file, compression=CompressionType.ZSTD)
        writer.start()
        channel = writer.register_channel("/c7", "json", 0)
        writer.add_message(channel, 1, encode_json(AirborneDeclared(1)), 1)
        writer.finish()  # type: ignore[no-untyped-call]
    with pytest.raises(WireFormatError, match="compressed by 'zstd'"):
        list(read_recording(scratch))
    scratch.write_bytes(b"PK\x03\x04 not a recording")
    with pytest.raises(WireFormatError, match="expected an MCAP recording"):
        list(read_recording(scratch))


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, says in (("missing", "No such file"), ("fifo", "expected a file"), (".", "expected a file")):
        with pytest.raises(ConfigError, match=says):
            list(read_recording(tmp_path / name))


texts = st.text(max_size=40)
names = st.text(min_size=1, max_size=40)
counters = st.integers(0, 2**63 - 1)
states = st.builds(ThermalState, cpu_temp_c=st.floats(-60, 200), gpu_temp_c=st.just(61.5), measured_at=counters)
wire_messages = st.one_of(
    st.builds(ConsumerReported, names, counters, st.booleans(), texts),
    st.builds(InferRejected, names, names, counters, counters, st.sampled_from(["shed", "expired"]), texts),
    st.builds(LogRecorded, st.sampled_from(["WARN", "ERROR"]), texts),
    st.builds(ThrottleEntered, states),
)


@settings(max_examples=100)
@given(st.lists(st.lists(wire_messages, max_size=5), max_size=5))
def test_whatever_is_recorded_is_read_back(scratch: Path, batches: list[list[WireMessage]]) -> None:
    scratch.unlink(missing_ok=True)
    file = RecordingFile(scratch, {}, max_bytes=10**7)
    number = 0
    for batch in batches:
        file.append([encoded(number + at, message) for at, message in enumerate(batch)])
        number += len(batch)
    file.finish()
    file.close()
    expected = [message for batch in batches for message in batch]
    assert [repr(each.message) for each in read_recording(scratch)] == [repr(message) for message in expected]
