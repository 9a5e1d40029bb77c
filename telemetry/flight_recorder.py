"""What happened, kept so that the death of the process does not take it along.

Any thread hands in messages; one writer thread brings them into an MCAP file. A record is safe from SIGKILL as soon as
its batch is written, some 10 ms after `record` where the disk keeps up; a power cut can take what the kernel had not
yet stored.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

import msgspec
from loguru import logger

from messages import (
    Clock,
    ConfigError,
    LogRecorded,
    Message,
    MonotonicClock,
    WireMessage,
    describe_error,
    encode_json,
)
from messages.errors import DETAIL_MAX_CHARS
from telemetry.recording_file import EncodedRecord, RecordingFile
from telemetry.recording_schema import channel_of
from telemetry.request_records import Record, encode_record, message_name, record_of

QUEUE_LIMIT = 8192
RECORDING_MAX_BYTES = 1024 * 1024 * 1024
BATCH_MAX_RECORDS = 512
BATCH_PERIOD_S = 0.01
"""A kill takes at most the last 10 ms; at most 100 chunks a second, each some 200 bytes beside its messages."""
SLICE_RECORDS = 8
SLICE_PAUSE_S = 0.0005
DENSE_RECORDS = 32
"""While it encodes, the writer holds the interpreter, 4 µs a record: in a flight, where a frame's burst is 26 records,
it lets a request go on after eight. Past `DENSE_RECORDS` a batch it works through them at once: then a few requests in
a thousand wait a millisecond, where small slices would slow down one in ten."""


class _Offered(msgspec.Struct, frozen=True, eq=False, gc=False):
    at_ns: int
    record: Record


class FlightRecorder:
    """Records to a new MCAP file at `path`. Raises ConfigError where that cannot be made.

    `record` takes a microsecond, wakes nobody, takes no lock, never waits for the disk and never raises. What finds
    the queue full is counted in `dropped` and marked in the recording by a WARN entry and a gap in the sequence
    numbers. When the disk is full or `max_bytes` is reached, recording stops for good: logged once, everything after
    it counted in `dropped`.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock | None = None,
        *,
        queue_limit: int = QUEUE_LIMIT,
        max_bytes: int = RECORDING_MAX_BYTES,
    ) -> None:
        self.path = path
        self._clock = clock or MonotonicClock()
        self._now_ns = self._clock.monotonic_ns
        self._queue_limit = queue_limit
        self._queue: deque[_Offered] = deque()
        self._accepts = True
        self._lock = threading.RLock()  # re-entrant: a finaliser or signal handler may record while `record` runs
        self._closing = threading.Lock()
        self._closing.acquire()
        self._closed = False
        self._failure = ""
        self._sequence = 0
        self._recorded = 0
        self._dropped = 0
        self._dropped_marked = 0
        self._undescribed = 0
        try:
            self._file = RecordingFile(path, _metadata(self._clock), max_bytes)
        except OSError as error:
            raise ConfigError(
                f"recording {path}: expected a new file in a writable folder, found: {error.strerror}"
            ) from error
        self._writer = threading.Thread(target=self._write, name="c7-flight-recorder", daemon=True)
        self._writer.start()

    @property
    def recorded(self) -> int:
        """Records that are with the operating system."""
        return self._recorded

    @property
    def dropped(self) -> int:
        """Records that were offered and are not in the recording."""
        late = 0 if self._writer.is_alive() else len(self._queue)  # offered while the writer was ending
        return self._dropped + late

    @property
    def undescribed(self) -> int:
        """Messages that have no wire form; in their place the recording holds a WARN entry that says so."""
        return self._undescribed

    @property
    def failure(self) -> str:
        """Why recording stopped; empty while it runs."""
        return self._failure

    def record(self, message: Message | WireMessage) -> None:
        """Queue a message. Callable from any thread. Tensors are described at once and never kept."""
        try:
            record = record_of(message)
        except Exception as error:  # noqa: BLE001 (a tensor is foreign code; its fault must not reach the engine)
            record = self._placeholder(message, error)
        queue = self._queue
        if self._accepts and len(queue) < self._queue_limit:
            queue.append(_Offered(self._now_ns(), record))
        else:
            with self._lock:
                self._dropped += 1

    def close(self, timeout_s: float = 5.0) -> bool:
        """Write what is queued, finish the file and bring it to the disk, within `timeout_s`.

        True where all of that succeeded; otherwise the log says what did not. Closing twice does nothing more.
        """
        with self._lock:
            if not self._closed:
                self._closed, self._accepts = True, False
                self._closing.release()
        self._writer.join(timeout_s)
        if self._writer.is_alive():
            logger.error("C7 flight recorder did not close; file={}; waited={:g}s", self.path, timeout_s)
            return False
        return not self._failure

    def __enter__(self) -> FlightRecorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _placeholder(self, message: object, error: BaseException) -> LogRecorded:
        with self._lock:
            self._undescribed += 1
        text = f"C7 flight recorder could not record a {message_name(message)}: {describe_error(error)}"
        return LogRecorded(level="WARN", text=text[:DETAIL_MAX_CHARS])

    def _write(self) -> None:
        last = False
        while not last:
            last = self._closing.acquire(timeout=BATCH_PERIOD_S)
            waiting = len(self._queue)  # what comes meanwhile waits for the next turn
            while waiting > 0:
                batch = [self._queue.popleft() for _ in range(min(waiting, BATCH_MAX_RECORDS))]
                waiting -= len(batch)
                self._append(batch, hurries=last)
        try:
            if not self._failure:
                self._file.finish()
        except Exception as error:  # noqa: BLE001 (as in `_append`)
            self._fail(error)
        finally:
            self._file.close()

    def _append(self, batch: list[_Offered], *, hurries: bool) -> None:
        if not self._failure:
            try:
                self._file.append(self._encoded(batch, hurries=hurries))
            except Exception as error:  # noqa: BLE001 (whatever ends the recording, callers must not notice)
                self._fail(error)
            else:
                self._recorded += len(batch)
                return
        with self._lock:
            self._dropped += len(batch)

    def _encoded(self, batch: list[_Offered], *, hurries: bool) -> Iterator[EncodedRecord]:
        pauses = not hurries and len(batch) <= DENSE_RECORDS
        for number, offered in enumerate(batch):
            if pauses and number % SLICE_RECORDS == SLICE_RECORDS - 1:
                time.sleep(SLICE_PAUSE_S)
            self._sequence += 1
            yield self._encoded_one(offered)
        yield from self._dropouts()

    def _encoded_one(self, offered: _Offered) -> EncodedRecord:
        record = offered.record
        try:
            data = encode_record(record)
            channel = channel_of(record)
        except Exception as error:  # noqa: BLE001 (one message without a wire form must not end the recording)
            record = self._placeholder(record, error)
            data, channel = encode_record(record), channel_of(record)
        return EncodedRecord(self._sequence, offered.at_ns, channel, data)

    def _dropouts(self) -> Iterator[EncodedRecord]:
        """The mark of what was dropped since the last one, if anything was."""
        with self._lock:
            dropped = self._dropped - self._dropped_marked
            self._dropped_marked = self._dropped
        if not dropped:
            return
        self._sequence += dropped
        text = f"C7 flight recorder dropped {dropped} records; its queue holds {self._queue_limit}"
        mark = LogRecorded(level="WARN", text=text)
        yield EncodedRecord(self._sequence, self._now_ns(), channel_of(mark), encode_json(mark))

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._failure, self._accepts = describe_error(error), False
        logger.error("C7 flight recorder stopped; file={}; cause={}", self.path, self._failure)


def _metadata(clock: Clock) -> dict[str, str]:
    return {
        "log_time": "CLOCK_MONOTONIC nanoseconds of the recording machine's boot",
        "opened_at_monotonic_ns": str(clock.monotonic_ns()),
        "opened_at_wall_clock": datetime.now(timezone.utc).isoformat(),
    }
