"""Streams as queues: what is put on one runs when somebody synchronises it, and not before.

So a missing synchronise shows as stale bytes, and memory that is freed too early as an illegal address. Both are
stricter than a device, which may have run the work by then, and than cudaFree, which may wait for it.

Captures keep to "Prohibited and Unhandled Operations" and "Invalidation" of the CUDA C++ Programming Guide, and to
what the Runtime API manual says of `cudaThreadExchangeStreamCaptureMode` and `cudaStreamEndCapture`.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from .error_codes import STICKY, DeviceError

Work = Callable[[], None]
"""Runs on the device. Raises DeviceError; anything else it raises is a fault of the double and comes through."""

THREAD_LOCAL, RELAXED = 1, 2

Thing = TypeVar("Thing")


@dataclass
class Capture:
    thread: int
    mode: int
    work: list[Work] = field(default_factory=list)
    invalid: bool = False


@dataclass
class Stream:
    handle: int
    flags: int = 0
    queue: deque[Work] = field(default_factory=deque)
    queued: int = 0
    done: int = 0
    capture: Capture | None = None


@dataclass
class Event:
    handle: int
    recorded: tuple[Stream, int] | None = None
    captured: bool = False


class Streams:
    """Every stream, event and graph by its handle. `handle 0` is the default stream."""

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {0: Stream(0)}
        self.events: dict[int, Event] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.executables: dict[int, list[Work]] = {}
        self._handles = itertools.count(0x1000, 0x10)
        self._lock = threading.RLock()
        self._device = threading.RLock()  # one piece of work at a time

    def open_stream(self, flags: int) -> int:
        with self._lock:
            handle = next(self._handles)
            self.streams[handle] = Stream(handle, flags)
            return handle

    def open_event(self) -> int:
        with self._lock:
            handle = next(self._handles)
            self.events[handle] = Event(handle)
            return handle

    def stream(self, handle: int) -> Stream:
        return _found(self.streams, handle)

    def event(self, handle: int) -> Event:
        return _found(self.events, handle)

    def enqueue(self, handle: int, work: Work) -> None:
        """Put work on a stream, or into its capture."""
        with self._lock:
            stream = self.stream(handle)
            if stream.capture is not None:
                if stream.capture.invalid:
                    raise DeviceError(901)
                stream.capture.work.append(work)
                return
            stream.queue.append(work)
            stream.queued += 1

    def drain(self, handle: int) -> None:
        """Run what is queued. Raises the first DeviceError: a sticky one at once, others after all work."""
        with self._lock:
            stream = self.stream(handle)
            if stream.capture is not None:
                stream.capture.invalid = True
                raise DeviceError(900)
            last = stream.queued
        self._run(stream, last)

    def close_stream(self, handle: int) -> None:
        """CUDA lets the queued work end first."""
        stream = self.stream(handle)
        if handle == 0:
            raise DeviceError(400)
        with self._lock:
            stream.capture = None
            last = stream.queued
        self._run(stream, last)
        with self._lock:
            self.streams.pop(handle, None)

    def close_event(self, handle: int) -> None:
        with self._lock:
            _found(self.events, handle)
            del self.events[handle]

    def record(self, event_handle: int, handle: int) -> None:
        with self._lock:
            event, stream = self.event(event_handle), self.stream(handle)
            event.captured = stream.capture is not None
            event.recorded = None if event.captured else (stream, stream.queued)

    def wait(self, handle: int, event_handle: int) -> None:
        with self._lock:
            event, stream = self.event(event_handle), self.stream(handle)
            if stream.capture is not None:
                if event.recorded is not None:
                    stream.capture.invalid = True
                    raise DeviceError(905)
                return
            if event.captured:
                raise DeviceError(907)
            if event.recorded is not None:
                before, last = event.recorded
                self.enqueue(handle, lambda: self._run(before, last))

    def synchronize_event(self, handle: int) -> None:
        with self._lock:
            event = self.event(handle)
            if event.captured:
                raise DeviceError(907)
            recorded = event.recorded
        if recorded is not None:
            self._run(*recorded)

    def refuse_unsafe(self) -> None:
        """A call that a capture of the calling thread forbids. Raises DeviceError 900, and the capture is invalid."""
        with self._lock:
            for stream in self.streams.values():
                capture = stream.capture
                if capture is None or capture.mode == RELAXED:
                    continue
                if capture.mode != THREAD_LOCAL or capture.thread == threading.get_ident():
                    capture.invalid = True
                    raise DeviceError(900)

    def begin_capture(self, handle: int, mode: int) -> None:
        with self._lock:
            stream = self.stream(handle)
            if handle == 0 or stream.capture is not None:
                raise DeviceError(900)
            stream.capture = Capture(threading.get_ident(), mode)

    def end_capture(self, handle: int) -> int:
        """The handle of the graph."""
        with self._lock:
            stream = self.stream(handle)
            capture = stream.capture
            if capture is None:
                raise DeviceError(903)
            if capture.mode != RELAXED and capture.thread != threading.get_ident():
                capture.invalid = True
                raise DeviceError(908)
            stream.capture = None
            if capture.invalid:
                raise DeviceError(901)
            graph = next(self._handles)
            self.graphs[graph] = capture.work
            return graph

    def abandon_capture(self, handle: int) -> None:
        """A failed cudaStreamEndCapture leaves the stream as it was before the capture."""
        with self._lock:
            stream = self.streams.get(handle)
            if stream is not None:
                stream.capture = None

    def count_nodes(self, graph: int) -> int:
        with self._lock:
            return len(_found(self.graphs, graph))

    def instantiate(self, graph: int) -> int:
        with self._lock:
            work = list(_found(self.graphs, graph))
            executable = next(self._handles)
            self.executables[executable] = work
            return executable

    def launch(self, executable: int, handle: int) -> None:
        with self._lock:
            captured: list[Work] = _found(self.executables, executable)
            for work in captured:
                self.enqueue(handle, work)

    def close_graph(self, graph: int) -> None:
        with self._lock:
            _found(self.graphs, graph)
            del self.graphs[graph]

    def close_executable(self, executable: int) -> None:
        with self._lock:
            _found(self.executables, executable)
            del self.executables[executable]

    def forget_work(self) -> None:
        """The device is poisoned: what was queued never runs."""
        with self._lock:
            for stream in self.streams.values():
                stream.queue.clear()
                stream.done = stream.queued

    def _run(self, stream: Stream, last: int) -> None:
        first: DeviceError | None = None
        with self._device:
            while stream.done < last:
                with self._lock:
                    if not stream.queue:
                        break
                    work = stream.queue.popleft()
                    stream.done += 1
                try:
                    work()
                except DeviceError as error:
                    if error.code in STICKY:
                        raise
                    first = first or error
        if first is not None:
            try:
                raise first
            finally:
                del first  # a frame that holds its own error keeps what its callers use


def _found(things: Mapping[int, Thing], handle: int) -> Thing:
    found = things.get(handle)
    if found is None:
        raise DeviceError(400)
    return found
