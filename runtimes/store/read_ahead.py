"""Reading engines ahead of their loads: on several threads, most urgent first, within a bound of memory."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Iterable
from types import TracebackType
from typing import Literal

from runtimes.inference_runtime import EngineCacheEntry
from runtimes.store.engine_artifact import ReadEngine, read_verified

READ_AHEAD_LIMIT_BYTES = 512 * 1024**2
CLOSE_TIMEOUT_S = 2.0
"""How long a close waits for the files that are being read at that moment."""
_WORKERS_MAX = 4
"""Engines load one after the other: more would only take the cores from the first that serve."""


class _Slot:
    """One engine that is wanted. Touched under the lock only."""

    def __init__(self, entry: EngineCacheEntry) -> None:
        self.entry = entry
        self.state: Literal["waiting", "reading", "read", "dropped"] = "waiting"
        self.data: bytes | None = None
        self.error: Exception | None = None


class ReadAhead:
    """Reads and hashes engine files in the order given, while the engines before them are loading.

    `read` gives the very buffer that was hashed, once; the file was opened once. What it was not told of, has not
    begun or has handed over already, it reads on the caller's thread. An error of one file is raised for that file
    alone. At no time more than `limit_bytes` are read ahead and not handed over; a larger file is read when it is
    asked for. Thread-safe. At the end of the `with` block the threads end, and what nobody asked for is dropped;
    `read` goes on working.
    """

    def __init__(
        self,
        entries: Iterable[EngineCacheEntry],
        *,
        limit_bytes: int = READ_AHEAD_LIMIT_BYTES,
        workers: int | None = None,
        read_one: ReadEngine = read_verified,
    ) -> None:
        self._slots = {entry.path: _Slot(entry) for entry in entries if entry.engine_size_bytes <= limit_bytes}
        self._limit_bytes = limit_bytes
        self._read_one = read_one
        self._held_bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        count = min(read_ahead_workers() if workers is None else workers, len(self._slots))
        self._threads = [
            threading.Thread(target=self._work, name=f"c7-read-ahead-{number}", daemon=True) for number in range(count)
        ]

    @property
    def held_bytes(self) -> int:
        """What is being read or was read ahead, and nobody has got yet."""
        with self._changed:
            return self._held_bytes

    def read(self, entry: EngineCacheEntry) -> bytes:
        """The bytes of an engine, whole and unaltered; waits where its file is being read at the moment.

        Raises EngineDeserializeError as `read_verified` does.
        """
        slot = self._take(entry)
        if slot is not None and slot.error is not None:
            raise slot.error
        if slot is not None and slot.data is not None:
            data, slot.data = slot.data, None
            return data
        return self._read_one(entry)

    def close(self) -> None:
        """Begin no further file, drop what was not asked for, and wait CLOSE_TIMEOUT_S at most for the threads.

        A thread whose disk hangs ends once the disk answers. Closing twice does nothing.
        """
        with self._changed:
            if self._closed:
                return
            self._closed = True
            for slot in self._slots.values():
                if slot.state == "reading":
                    slot.state = "dropped"  # the thread that reads it gives its bytes back
                elif slot.data is not None:
                    self._held_bytes -= slot.entry.engine_size_bytes
                    slot.data = None
            self._slots.clear()
            self._changed.notify_all()
        give_up_at = time.monotonic() + CLOSE_TIMEOUT_S
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, give_up_at - time.monotonic()))

    def __enter__(self) -> ReadAhead:
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, entry: EngineCacheEntry) -> _Slot | None:
        """The slot of this engine once it was read, from then on forgotten here; None where it has to be read."""
        with self._changed:
            slot = self._slots.get(entry.path)
            if slot is None or slot.entry != entry:
                return None
            del self._slots[entry.path]
            if slot.state == "waiting":
                self._changed.notify_all()  # it may have been the one for which there was no room
                return None
            self._changed.wait_for(lambda: slot.state == "read")
            if slot.data is not None:
                self._held_bytes -= entry.engine_size_bytes
                self._changed.notify_all()
            return slot

    def _work(self) -> None:
        while (slot := self._begin_next()) is not None:
            self._fill(slot)

    def _begin_next(self) -> _Slot | None:
        """The most urgent file that nobody has begun, once there is room for it; None where nothing is left."""
        with self._changed:
            while not self._closed:
                slot = next((each for each in self._slots.values() if each.state == "waiting"), None)
                if slot is None:
                    return None
                if self._held_bytes + slot.entry.engine_size_bytes <= self._limit_bytes:
                    slot.state = "reading"
                    self._held_bytes += slot.entry.engine_size_bytes
                    return slot
                self._changed.wait()
            return None

    def _fill(self, slot: _Slot) -> None:
        data: bytes | None = None
        failure: Exception | None = None
        try:
            data = self._read_one(slot.entry)
        except MemoryError:
            pass  # no fault of the engine: it is read when it is asked for, without others beside it
        except Exception as error:  # noqa: BLE001 - raised for whoever asks for this engine
            _forget_buffers(error)
            failure = error
        finally:
            with self._changed:
                if data is None or slot.state == "dropped":
                    self._held_bytes -= slot.entry.engine_size_bytes
                if slot.state == "reading":
                    slot.state, slot.data, slot.error = "read", data, failure
                self._changed.notify_all()


def read_ahead_workers() -> int:
    """One thread per core that this process may use, four at most."""
    return min(len(os.sched_getaffinity(0)), _WORKERS_MAX)


def _forget_buffers(error: BaseException) -> None:
    """A traceback keeps the frames, and with them the buffer that did not fit its hash."""
    each: BaseException | None = error
    while each is not None:
        traceback.clear_frames(each.__traceback__)
        each = each.__context__
