"""The recorder: what is recorded is there, whatever dies; what is not is counted; callers never notice."""

from __future__ import annotations

import gc
import re
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from loguru import logger
from mcap.reader import make_reader

from messages import (
    ConfigError,
    ConsumerReported,
    EngineLoaded,
    Infer,
    InferCompleted,
    LogRecorded,
    Message,
    Tensor,
    TensorSpec,
    VirtualClock,
    WireMessage,
)
from telemetry import FlightRecorder, read_recording
from telemetry.recording_file import RecordingFile

REPOSITORY = Path(__file__).parents[2]


def report(number: int) -> ConsumerReported:
    return ConsumerReported("vpr", number, good=True)


def recorded(path: Path) -> list[WireMessage]:
    return [each.message for each in read_recording(path)]


def frame_ids(path: Path) -> list[int]:
    return [message.frame_id for message in recorded(path) if isinstance(message, ConsumerReported)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flight.mcap"


class HeldFile:
    """Holds the writer thread in front of the disk until `release`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self._released = threading.Event()
        append = RecordingFile.append

        def held_append(file: RecordingFile, *args: object) -> None:
            self.reached.set()
            self._released.wait(30)
            append(file, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(RecordingFile, "append", held_append)

    def release(self) -> None:
        self._released.set()


@pytest.fixture
def held_file(monkeypatch: pytest.MonkeyPatch) -> HeldFile:
    return HeldFile(monkeypatch)


def test_messages_come_back_in_order_with_the_time_at_which_they_were_recorded(path: Path) -> None:
    clock = VirtualClock()
    with FlightRecorder(path, clock) as recorder:
        for number in range(1000):
            recorder.record(report(number))
            clock.advance_ns(10)
    messages = list(read_recording(path))
    assert [message.message for message in messages] == [report(number) for number in range(1000)]
    assert [message.recorded_at_ns for message in messages] == [10**9 + 10 * number for number in range(1000)]
    assert (recorder.recorded, recorder.dropped, recorder.failure) == (1000, 0, "")


def test_tensors_are_recorded_as_their_description(path: Path) -> None:
    with FlightRecorder(path) as recorder:
        recorder.record(Infer("vpr", {"image": np.zeros((1, 3, 8, 8), np.float16)}, "c2", 1, 5, 7))
        recorder.record(InferCompleted("vpr", "c2", 1, 7, {"descriptor": np.zeros(4, np.float32)}, 1, 2, 3))
        recorder.record(Infer("vpr", {"image": TensorSpec((2,), "int8")}, "c2", 1, 5, 8))
    infer, completed, described = recorded(path)
    assert isinstance(infer, Infer)
    assert infer.inputs == {"image": TensorSpec((1, 3, 8, 8), "float16")}
    assert isinstance(completed, InferCompleted)
    assert completed.outputs == {"descriptor": TensorSpec((4,), "float32")}
    assert isinstance(described, Infer)
    assert described.inputs == {"image": TensorSpec((2,), "int8")}


def test_a_queued_record_keeps_no_tensor_alive(path: Path, held_file: HeldFile) -> None:
    recorder = FlightRecorder(path)
    recorder.record(report(0))
    assert held_file.reached.wait(30)
    frame = np.zeros(1000)
    gone = weakref.ref(frame)
    recorder.record(Infer("vpr", {"image": frame}, "c2", 1, 5, 7))
    del frame
    gc.collect()
    assert gone() is None
    held_file.release()
    assert recorder.close()


def test_a_full_queue_drops_counts_and_marks_and_never_blocks(path: Path, held_file: HeldFile) -> None:
    recorder = FlightRecorder(path, queue_limit=100)
    recorder.record(report(0))
    assert held_file.reached.wait(30)
    for number in range(1, 151):
        recorder.record(report(number))
    assert recorder.dropped == 50
    held_file.release()
    assert recorder.close()
    assert frame_ids(path) == list(range(101))
    (mark,) = (message for message in recorded(path) if isinstance(message, LogRecorded))
    assert mark == LogRecorded("WARN", "C7 flight recorder dropped 50 records; its queue holds 100")
    assert (recorder.recorded, recorder.dropped) == (101, 50)


def test_every_record_of_many_threads_is_either_recorded_or_counted(path: Path) -> None:
    recorder = FlightRecorder(path, queue_limit=200)

    def fly(consumer: int) -> None:
        for number in range(500):
            recorder.record(report(consumer * 500 + number))

    threads = [threading.Thread(target=fly, args=(consumer,)) for consumer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorder.close()
    ids = frame_ids(path)
    assert len(set(ids)) == len(ids) == recorder.recorded
    assert recorder.recorded + recorder.dropped == 4000
    for consumer in range(8):
        own = [number for number in ids if number // 500 == consumer]
        assert own == sorted(own)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (Infer("vpr", {"image": np.array(["text"])}, "c2", 1, 5, 7), "could not record a Infer: .*no description"),
        (Infer("vpr", cast("dict[str, Tensor]", [1]), "c2", 1, 5, 7), "expected a dict of tensors, found a list"),
        (EngineLoaded("x" * 500, 1, 1), "could not record a EngineLoaded: this EngineLoaded has no wire form"),
        (cast(Message, {"not": "a message"}), "could not record a dict"),
    ],
)
def test_a_message_without_a_wire_form_is_counted_and_leaves_its_mark(path: Path, message: Message, says: str) -> None:
    with FlightRecorder(path) as recorder:
        recorder.record(report(1))
        recorder.record(message)
        recorder.record(report(2))
    before, mark, after = recorded(path)
    assert (before, after) == (report(1), report(2))
    assert isinstance(mark, LogRecorded)
    assert re.search(says, mark.text)
    assert recorder.undescribed == 1


def test_an_existing_recording_is_never_touched(path: Path) -> None:
    with FlightRecorder(path) as recorder:
        recorder.record(report(1))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="expected a new file in a writable folder, found: File exists"):
        FlightRecorder(path)
    assert path.read_bytes() == before
    with pytest.raises(ConfigError, match="No such file or directory"):
        FlightRecorder(path.parent / "missing" / "flight.mcap")


def test_closing_twice_and_recording_after_the_end_do_no_harm(path: Path) -> None:
    recorder = FlightRecorder(path)
    assert recorder.close()
    recorder.record(report(1))
    assert recorder.close()
    assert recorder.dropped == 1
    assert recorded(path) == []


def test_a_disk_that_hangs_does_not_hold_up_the_end(path: Path, held_file: HeldFile) -> None:
    recorder = FlightRecorder(path)
    recorder.record(report(1))
    assert held_file.reached.wait(30)
    assert not recorder.close(timeout_s=0.01)
    held_file.release()
    assert recorder.close(timeout_s=30)


def test_a_recording_that_reaches_its_limit_stops_once_and_stays_readable(path: Path) -> None:
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{level} {message}", level="WARNING")
    recorder = FlightRecorder(path, max_bytes=100_000)
    for number in range(2000):
        recorder.record(report(number))
    assert not recorder.close()
    logger.remove(sink)
    ids = frame_ids(path)
    assert 0 < len(ids) < 2000
    assert ids == list(range(len(ids)))
    assert path.stat().st_size <= 100_000
    assert recorder.recorded + recorder.dropped == 2000
    assert recorder.recorded <= len(ids)
    assert [line.split(";")[0] for line in lines] == ["ERROR C7 flight recorder stopped"]
    assert "limit of 100000 bytes" in recorder.failure


def test_a_writer_that_runs_out_of_memory_stops_and_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError("no room for a chunk")

    monkeypatch.setattr(RecordingFile, "append", no_memory)
    recorder = FlightRecorder(path)
    recorder.record(report(1))
    assert not recorder.close()
    assert recorder.failure == "MemoryError: no room for a chunk"
    assert (recorder.recorded, recorder.dropped) == (0, 1)


FULL_DISK = """
import resource, sys
from pathlib import Path
from messages import ConsumerReported
from telemetry import FlightRecorder
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
recorder = FlightRecorder(Path(sys.argv[1]))
for number in range(2000):
    recorder.record(ConsumerReported("vpr", number, good=True))
finished = recorder.close()
print(finished, recorder.recorded + recorder.dropped, recorder.failure)
"""


def test_a_disk_that_is_full_from_the_start_is_refused_and_leaves_no_empty_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: RecordingFile, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(RecordingFile, "_write", full)
    with pytest.raises(ConfigError, match="No space left"):
        FlightRecorder(path)
    assert not path.exists()


def test_a_disk_that_is_full_in_the_middle_of_a_chunk_costs_the_rest_and_nothing_else(path: Path) -> None:
    child = subprocess.run(  # noqa: S603
        [sys.executable, "-c", FULL_DISK, str(path)], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert child.stdout.startswith("False 2000 OSError: [Errno 27] File too large"), child.stderr
    assert child.stderr.count("C7 flight recorder stopped") == 1
    assert path.stat().st_size == 100_000
    ids = frame_ids(path)
    assert len(ids) > 100
    assert ids == list(range(len(ids)))


KILLED = """
import sys, threading, time
from pathlib import Path
from messages import ConsumerReported
from telemetry import FlightRecorder
recorder = FlightRecorder(Path(sys.argv[1]))
number = 0
while number < 3000:
    number += 1
    recorder.record(ConsumerReported("vpr", number, good=True))
while recorder.recorded < 3000:
    time.sleep(0.001)
print(recorder.recorded, flush=True)
while True:
    number += 1
    recorder.record(ConsumerReported("vpr", number, good=True))
    time.sleep(0)
"""


def test_sigkill_takes_nothing_that_was_written_and_leaves_an_exact_prefix(path: Path) -> None:
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", KILLED, str(path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        written = int(child.stdout.readline())
        child.kill()
    assert child.returncode == -signal.SIGKILL
    ids = frame_ids(path)
    assert len(ids) >= written == 3000
    assert ids == list(range(1, len(ids) + 1))


def test_the_mcap_packages_own_reader_finds_everything_by_the_index(path: Path) -> None:
    with FlightRecorder(path, VirtualClock()) as recorder:
        for number in range(600):
            recorder.record(report(number))
            recorder.record(LogRecorded("WARN", str(number)))
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        assert summary is not None
        assert summary.statistics is not None
        assert summary.statistics.message_count == 1200
        assert len(summary.chunk_indexes) == summary.statistics.chunk_count > 1
        found = list(reader.iter_messages(topics=["/c7/LogRecorded"]))
        assert len(found) == 600
        schema, channel, message = found[0]
        assert (channel.message_encoding, message.data) == ("json", b'{"type":"LogRecorded","level":"WARN","text":"0"}')
        assert schema is not None
        assert (schema.name, schema.encoding) == ("c7.LogRecorded", "jsonschema")
        (metadata,) = reader.iter_metadata()
    assert metadata.metadata["log_time"].startswith("CLOCK_MONOTONIC nanoseconds")
    assert metadata.metadata["opened_at_monotonic_ns"] == str(10**9)
    assert "opened_at_wall_clock" in metadata.metadata
