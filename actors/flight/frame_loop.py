"""The flight's heartbeat: one thread reads frames at a fixed rate, one thread per consumer works on the newest.

Nothing is queued. A frame that the source is late for is skipped, a frame that a consumer is late for is missed;
both are counted. No consumer can slow another, the frame thread or the main thread, whatever it does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from threading import Condition, Event, Thread
from types import MappingProxyType
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from loguru import logger

from actors.consumer import Consumer, Frame, FrameSource
from actors.frame_scope import frame_scope
from actors.routes import WITHIN_MS_MAX
from messages import NS_PER_MS, NS_PER_S, Clock, ConsumerReported, describe_error
from messages.errors import DETAIL_MAX_CHARS

LOG_PERIOD_NS: Final = 10 * NS_PER_S
"""A failure that repeats with every frame is one line in this time, with the number of lines held back."""
HANG_LOGGED_AFTER_NS: Final = 2 * NS_PER_S
IDLE_WAIT_S: Final = 1.0
FRAMES_THREAD: Final = "frames"

Report = Callable[[ConsumerReported], None]


class FrameCounts(msgspec.Struct, frozen=True):
    """`read + failed + skipped` is every frame that was due; `missed` is by consumer, out of `read`."""

    read: int
    failed: int
    skipped: int
    missed: dict[str, int]


class FrameLoop:
    """Drives `consumers` with the frames of `source` at `rate_hz`, from `start` until `stop`.

    `report` is called on the consumers' threads, several at once, and must not block. Frames count from
    `first_frame_id`. `wait(timeout_s)` is what the frame thread sleeps with, True when it shall end; by default it is
    woken by `stop`. Frame n is due at start + n periods of `clock`, so lateness never adds up.

    `within_ms`, by consumer, bounds all its calls of a supervised runtime for one frame, from when it is given the
    frame; it is one period for those that are not named.
    """

    def __init__(
        self,
        source: FrameSource,
        consumers: Mapping[str, Consumer],
        rate_hz: float,
        clock: Clock,
        report: Report,
        *,
        first_frame_id: int = 0,
        within_ms: Mapping[str, float] = MappingProxyType({}),
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._source = source
        self._period_ns = max(1, round(NS_PER_S / rate_hz))
        self._clock = clock
        self._first_frame_id = first_frame_id
        self._stopping = Event()
        self._wait = wait or self._stopping.wait
        period_ms = min(self._period_ns / NS_PER_MS, WITHIN_MS_MAX)
        self._workers = [
            _ConsumerThread(name, consumer, clock, report, within_ms.get(name, period_ms))
            for name, consumer in consumers.items()
        ]
        self._thread = Thread(target=self._run, name="c7-frames", daemon=True)
        self._log = _RepeatedLog(clock)
        self._read = self._failed = self._skipped = 0

    @property
    def counts(self) -> FrameCounts:
        """What became of the frames so far. Any thread."""
        missed = {worker.name: worker.missed for worker in self._workers}
        return FrameCounts(self._read, self._failed, self._skipped, missed)

    @property
    def skipped(self) -> int:
        return self._skipped

    def start(self) -> None:
        for worker in self._workers:
            worker.thread.start()
        self._thread.start()

    def stop(self, timeout_s: float) -> tuple[str, ...]:
        """End all threads within `timeout_s` together. The names of those that hung and had to be left running.

        Where nothing hung, `report` is not called any more. Stopping twice, or before the start, is allowed.
        """
        deadline_s = time.monotonic() + timeout_s
        self._stopping.set()
        for worker in self._workers:
            worker.close()
        threads = {FRAMES_THREAD: self._thread} | {worker.name: worker.thread for worker in self._workers}
        for thread in threads.values():
            if thread.ident is not None:
                thread.join(max(0.0, deadline_s - time.monotonic()))
        hung = tuple(name for name, thread in threads.items() if thread.is_alive())
        if hung:
            logger.warning("C7 frame loop stopped without; hung={}", ",".join(hung))
        return hung

    def _run(self) -> None:
        start_ns = self._clock.monotonic_ns()
        index = 0
        while not self._stopping.is_set() and self._sleep_until(start_ns + index * self._period_ns):
            self._take_frame(self._first_frame_id + index)
            following = next_frame_index(index, self._clock.monotonic_ns() - start_ns, self._period_ns)
            if following > index + 1:
                self._skipped += following - index - 1
                self._log.warning("C7 frames skipped; frame={} total={}", self._first_frame_id + index, self._skipped)
            index = following

    def _sleep_until(self, due_ns: int) -> bool:
        while (left_ns := due_ns - self._clock.monotonic_ns()) > 0:
            if self._wait(left_ns / NS_PER_S):
                return False
        return True

    def _take_frame(self, frame_id: int) -> None:
        captured_ns = self._clock.monotonic_ns()
        try:
            image = _shared_image(self._source.read(frame_id))
        except BaseException as error:  # noqa: BLE001  # the source is the user's code; one bad frame ends no flight
            self._failed += 1
            self._log.warning("C7 frame source failed; frame={} error={}", frame_id, describe_error(error))
            return
        self._read += 1
        frame = Frame(frame_id, captured_ns, image)
        for worker in self._workers:
            worker.offer(frame)


def next_frame_index(index: int, elapsed_ns: int, period_ns: int) -> int:
    """Pure. The frame after `index`: a frame may begin late within its own period, after that it is skipped."""
    return max(index + 1, elapsed_ns // period_ns)


class _ConsumerThread:
    """One consumer, its thread, and the one slot in which the newest frame waits for it."""

    def __init__(self, name: str, consumer: Consumer, clock: Clock, report: Report, within_ms: float) -> None:
        self.name = name
        self.thread = Thread(target=self._run, name=f"c7-consumer-{name}", daemon=True)
        self._consumer = consumer
        self._clock = clock
        self._report = report
        self._within_ms = within_ms
        self._log = _RepeatedLog(clock)
        self._changed = Condition()
        self._newest: Frame | None = None
        self._closed = False
        self._missed = 0
        self._working_on: Frame | None = None
        self._working_since_ns = 0
        self._hang_logged_for: Frame | None = None

    @property
    def missed(self) -> int:
        with self._changed:
            return self._missed

    def offer(self, frame: Frame) -> None:
        """Put the frame into the slot; one that still lay there is missed. Never blocks."""
        with self._changed:
            if self._closed:
                self._missed += 1
                return
            if self._newest is not None:
                self._missed += 1
            self._newest = frame
            self._changed.notify()
            stuck, since_ns = self._working_on, self._working_since_ns
        working_ns = self._clock.monotonic_ns() - since_ns
        if stuck is not None and stuck is not self._hang_logged_for and working_ns > HANG_LOGGED_AFTER_NS:
            self._hang_logged_for = stuck
            logger.warning(
                "C7 consumer hangs; consumer={} frame={} since={}ms", self.name, stuck.frame_id, working_ns // 1_000_000
            )

    def close(self) -> None:
        with self._changed:
            if self._newest is not None:
                self._missed += 1
            self._newest = None
            self._closed = True
            self._changed.notify()

    def _take(self) -> Frame | None:
        with self._changed:
            self._working_on = None
            while self._newest is None:
                if self._closed:
                    return None
                self._changed.wait(IDLE_WAIT_S)
            self._working_on, self._newest = self._newest, None
            self._working_since_ns = self._clock.monotonic_ns()
            return self._working_on

    def _run(self) -> None:
        while (frame := self._take()) is not None:
            reported = self._work(frame)
            try:
                self._report(reported)
            except Exception as error:  # noqa: BLE001  # a broken recorder must not ground a consumer
                self._log.error("C7 consumer report lost; consumer={} error={}", self.name, describe_error(error))

    def _work(self, frame: Frame) -> ConsumerReported:
        try:
            with frame_scope(
                self.name, frame.frame_id, self._within_ms, captured_ns=frame.captured_ns, clock=self._clock
            ):
                degraded: object = self._consumer.on_frame(frame)
        except BaseException as error:  # noqa: BLE001  # a consumer is the user's code: it loses this frame, no more
            detail = describe_error(error)
            self._log.error("C7 consumer failed; consumer={} frame={} error={}", self.name, frame.frame_id, detail)
            return ConsumerReported(self.name, frame.frame_id, good=False, detail=detail)
        if degraded is None:
            return ConsumerReported(self.name, frame.frame_id, good=True)
        if not isinstance(degraded, str):
            degraded = f"on_frame returned {type(degraded).__name__}; expected None or a text"
        detail = degraded.encode("utf-8", "backslashreplace").decode()[:DETAIL_MAX_CHARS]
        logger.debug("C7 consumer degraded; consumer={} frame={} because={}", self.name, frame.frame_id, detail)
        return ConsumerReported(self.name, frame.frame_id, good=False, detail=detail)


class _RepeatedLog:
    """One line per LOG_PERIOD_NS for something that may go wrong at every frame. One thread uses it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next_ns = 0
        self._held_back = 0

    def warning(self, text: str, *values: object) -> None:
        self._line("WARNING", text, values)

    def error(self, text: str, *values: object) -> None:
        self._line("ERROR", text, values)

    def _line(self, level: str, text: str, values: tuple[object, ...]) -> None:
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._next_ns:
            self._held_back += 1
            return
        logger.log(level, text + " held_back={}", *values, self._held_back)
        self._next_ns = now_ns + LOG_PERIOD_NS
        self._held_back = 0


def _shared_image(image: object) -> npt.NDArray[np.uint8]:
    """A read-only view. Raises TypeError for anything but uint8[height, width, 3]."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        found = f"{image.dtype}{list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"a frame is uint8[height, width, 3]; the source returned {found}")
    view: npt.NDArray[np.uint8] = image.view()
    view.flags.writeable = False
    return view
