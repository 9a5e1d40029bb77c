"""What happened, kept so that the death of the process does not take it along.

Any thread hands in messages; one writer thread brings them into an MCAP file. A record is safe from SIGKILL as soon as
its batch is written, some 10 ms after `record` where the disk keeps up; a power cut can take what the kernel had not
yet stored.
"""

from __future__ import annotations

import queue
import threading
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

import msgspec
from loguru import logger

from messages import (
    Clock,
    ConfigError,
    Infer,
    InferCompleted,
    LogRecorded,
    Message,
    MonotonicClock,
    TensorSpec,
    WireMessage,
    describe_error,
    encode_json,
    specs_of,
)
from messages.errors import DETAIL_MAX_CHARS
from telemetry.recording_file import EncodedRecord, RecordingFile
from telemetry.recording_schema import channel_of

QUEUE_LIMIT = 8192
RECORDING_MAX_BYTES = 1024 * 1024 * 1024
BATCH_MAX_RECORDS = 256
BATCH_PERIOD_S = 0.01
"""A kill takes at most the last 10 ms; at most 100 chunks a second, each some 200 bytes beside its messages."""


class _Offered(msgspec.Struct, frozen=True):
    sequence: int
    at_ns: int
    message: Message | WireMessage


class FlightRecorder:
    """Records to a new MCAP file at `path`. Raises ConfigError where that cannot be made.

    `record` takes microseconds, never waits for the disk and never raises. What finds the queue full is counted in
    `dropped` and marked in the recording by a WARN entry and a gap in the sequence numbers. When the disk is full or
    `max_bytes` is reached, recording stops for good: logged once, everything after it counted in `dropped`.
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
        self._queue_limit = queue_limit
        self._queue: queue.SimpleQueue[_Offered | None] = queue.SimpleQueue()
        self._lock = threading.RLock()  # re-entrant: a finaliser or signal handler may record while `record` runs
        self._closing = threading.Event()
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
        return self._dropped

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
        described = self._described(message)
        with self._lock:
            self._sequence += 1
            if self._closed or self._failure or self._queue.qsize() >= self._queue_limit:
                self._dropped += 1
                return
            self._queue.put(_Offered(self._sequence, self._clock.monotonic_ns(), described))

    def close(self, timeout_s: float = 5.0) -> bool:
        """Write what is queued, finish the file and bring it to the disk, within `timeout_s`.

        True where all of that succeeded; otherwise the log says what did not. Closing twice does nothing more.
        """
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._closing.set()
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

    def _described(self, message: Message | WireMessage) -> Message | WireMessage:
        try:
            if isinstance(message, Infer):
                return msgspec.structs.replace(message, inputs=_specs(message.inputs))
            if isinstance(message, InferCompleted):
                return msgspec.structs.replace(message, outputs=_specs(message.outputs))
        except Exception as error:  # noqa: BLE001 (a tensor is foreign code; its fault must not reach the engine)
            return self._placeholder(message, error)
        return message

    def _placeholder(self, message: object, error: BaseException) -> LogRecorded:
        with self._lock:
            self._undescribed += 1
        text = f"C7 flight recorder could not record a {type(message).__name__}: {describe_error(error)}"
        return LogRecorded(level="WARN", text=text[:DETAIL_MAX_CHARS])

    def _write(self) -> None:
        last = False
        while not last:
            batch, last = self._next_batch()
            self._append(batch)
            if len(batch) < BATCH_MAX_RECORDS:
                self._closing.wait(BATCH_PERIOD_S)
        try:
            if not self._failure:
                self._file.finish()
        except Exception as error:  # noqa: BLE001 (as in `_append`)
            self._fail(error)
        finally:
            self._file.close()

    def _next_batch(self) -> tuple[list[_Offered], bool]:
        batch: list[_Offered] = []
        offered = self._queue.get()
        while offered is not None:
            batch.append(offered)
            if len(batch) == BATCH_MAX_RECORDS:
                return batch, False
            try:
                offered = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _append(self, batch: list[_Offered]) -> None:
        if not self._failure:
            records = [self._encoded(offered) for offered in batch]
            records.extend(self._dropouts())
            try:
                self._file.append(records)
            except Exception as error:  # noqa: BLE001 (whatever ends the recording, callers must not notice)
                self._fail(error)
            else:
                self._recorded += len(batch)
                return
        with self._lock:
            self._dropped += len(batch)

    def _encoded(self, offered: _Offered) -> EncodedRecord:
        message = offered.message
        try:
            data = encode_json(message)
            channel = channel_of(message)
        except Exception as error:  # noqa: BLE001 (one message without a wire form must not end the recording)
            message = self._placeholder(message, error)
            data, channel = encode_json(message), channel_of(message)
        return EncodedRecord(offered.sequence, offered.at_ns, channel, data)

    def _dropouts(self) -> list[EncodedRecord]:
        """The mark of what was dropped since the last one, if anything was."""
        with self._lock:
            dropped, sequence = self._dropped - self._dropped_marked, self._sequence
            self._dropped_marked = self._dropped
        if not dropped:
            return []
        text = f"C7 flight recorder dropped {dropped} records; its queue holds {self._queue_limit}"
        mark = LogRecorded(level="WARN", text=text)
        return [EncodedRecord(sequence, self._clock.monotonic_ns(), channel_of(mark), encode_json(mark))]

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._failure = describe_error(error)
        logger.error("C7 flight recorder stopped; file={}; cause={}", self.path, self._failure)


def _specs(tensors: object) -> dict[str, object]:
    if not isinstance(tensors, dict):
        raise TypeError(f"expected a dict of tensors, found a {type(tensors).__name__}")
    described = all(isinstance(tensor, TensorSpec) for tensor in tensors.values())
    return dict(tensors) if described else dict(specs_of(tensors))


def _metadata(clock: Clock) -> dict[str, str]:
    return {
        "log_time": "CLOCK_MONOTONIC nanoseconds of the recording machine's boot",
        "opened_at_monotonic_ns": str(clock.monotonic_ns()),
        "opened_at_wall_clock": datetime.now(timezone.utc).isoformat(),
    }
