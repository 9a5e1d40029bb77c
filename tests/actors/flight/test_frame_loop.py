"""The heartbeat: the rate is kept against absolute times, and no consumer hurts another. No test sleeps."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loguru import logger

from actors.consumer import Consumer, Frame
from actors.flight.frame_loop import FRAMES_THREAD, FrameLoop, next_frame_index
from actors.frame_scope import FrameScope, current_frame
from actors.routes import WITHIN_MS_MAX
from messages import NS_PER_MS, NS_PER_S, ConsumerReported, MonotonicClock, VirtualClock

Image = npt.NDArray[np.uint8]
WAIT_S = 10.0


def picture(frame_id: int) -> Image:
    return np.full((2, 3, 3), frame_id % 256, np.uint8)


class ScriptedSource:
    """Gives pictures; `read_ms` is how long each takes on the virtual clock."""

    def __init__(self, clock: VirtualClock, read_ms: dict[int, float] | None = None) -> None:
        self.asked_at_ms: list[tuple[int, float]] = []
        self._clock = clock
        self._start_ns = clock.monotonic_ns()
        self._read_ms = read_ms or {}

    def read(self, frame_id: int) -> Image:
        self.asked_at_ms.append((frame_id, (self._clock.monotonic_ns() - self._start_ns) / NS_PER_MS))
        self._clock.advance_ms(self._read_ms.get(frame_id, 0))
        return picture(frame_id)


def virtual_wait(clock: VirtualClock, until_ms: float) -> Callable[[float], bool]:
    """Sleeping moves the clock; the loop ends when a sleep would go beyond `until_ms`."""
    end_ns = clock.monotonic_ns() + round(until_ms * NS_PER_MS)

    def wait(timeout_s: float) -> bool:
        clock.advance_ns(round(timeout_s * NS_PER_S))
        return clock.monotonic_ns() > end_ns

    return wait


def run_virtually(source: ScriptedSource, clock: VirtualClock, *, rate_hz: float, until_ms: float) -> FrameLoop:
    loop = FrameLoop(source, {}, rate_hz, clock, lambda report: None, wait=virtual_wait(clock, until_ms))
    loop._run()
    return loop


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    lines: list[str] = []
    handler = logger.add(lambda line: lines.append(str(line).rstrip()), format="{level} {message}", level="DEBUG")
    yield lines
    logger.remove(handler)


def test_frames_are_due_at_absolute_times() -> None:
    clock = VirtualClock()
    source = ScriptedSource(clock, dict.fromkeys(range(100), 30))
    loop = run_virtually(source, clock, rate_hz=10, until_ms=950)
    assert source.asked_at_ms == [(index, index * 100) for index in range(10)]
    assert loop.counts.read == 10
    assert loop.skipped == 0


def test_frames_that_came_due_while_the_source_was_busy_are_skipped_not_queued() -> None:
    clock = VirtualClock()
    source = ScriptedSource(clock, {1: 350})
    loop = run_virtually(source, clock, rate_hz=10, until_ms=650)
    assert source.asked_at_ms == [(0, 0), (1, 100), (4, 450), (5, 500), (6, 600)]
    assert (loop.counts.read, loop.skipped) == (5, 2)


def test_a_source_slower_than_the_rate_is_read_as_often_as_it_can_and_warned_about_once(log_lines: list[str]) -> None:
    clock = VirtualClock()
    source = ScriptedSource(clock, dict.fromkeys(range(100), 150))
    loop = run_virtually(source, clock, rate_hz=10, until_ms=1_000)
    assert [at_ms for _, at_ms in source.asked_at_ms][:4] == [0, 150, 300, 450]
    assert loop.counts.read + loop.skipped == source.asked_at_ms[-1][0] + 1
    assert log_lines == ["WARNING C7 frames skipped; frame=1 total=1 held_back=0"]


@given(st.integers(0, 10**6), st.integers(0, 10**12), st.integers(1, 10**10))
def test_the_next_frame_is_the_one_whose_period_it_is_and_never_one_that_was(
    index: int, elapsed_ns: int, period_ns: int
) -> None:
    following = next_frame_index(index, elapsed_ns, period_ns)
    assert following > index
    assert elapsed_ns < (following + 1) * period_ns  # its period is not over
    assert following == index + 1 or following * period_ns <= elapsed_ns  # and nothing is skipped ahead of time


def test_a_sleep_that_ends_early_is_continued() -> None:
    clock = VirtualClock()
    source = ScriptedSource(clock)
    naps = 0

    def nap(timeout_s: float) -> bool:
        nonlocal naps
        naps += 1
        clock.advance_ns(max(1, round(timeout_s * NS_PER_S / 2)))
        return naps > 200

    FrameLoop(source, {}, 10, clock, lambda report: None, wait=nap)._run()
    assert len(source.asked_at_ms) > 3
    assert source.asked_at_ms == [(index, index * 100) for index in range(len(source.asked_at_ms))]


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (np.zeros((2, 3), np.uint8), r"the source returned uint8\[2, 3\]"),
        (np.zeros((2, 3, 3), np.float32), r"the source returned float32\[2, 3, 3\]"),
        (None, "the source returned NoneType"),
        (OSError("camera unplugged"), "OSError: camera unplugged"),
        (SystemExit(1), "SystemExit: 1"),
    ],
)
def test_a_frame_that_the_source_cannot_give_is_counted_and_the_next_one_is_asked_for(
    bad: Image | BaseException | None, error: str, log_lines: list[str]
) -> None:
    clock = VirtualClock()

    class Flaky(ScriptedSource):
        def read(self, frame_id: int) -> Image:
            good = super().read(frame_id)
            if frame_id % 2 == 0:
                return good
            if isinstance(bad, BaseException):
                raise bad
            return bad  # type: ignore[return-value]  # that is the point

    loop = run_virtually(Flaky(clock), clock, rate_hz=10, until_ms=350)
    assert (loop.counts.read, loop.counts.failed, loop.counts.skipped) == (2, 2, 0)
    assert len(log_lines) == 1  # the second one is held back
    assert re.search(rf"^WARNING C7 frame source failed; frame=1 error=.*{error}", log_lines[0])


class Beat:
    """A source that gives one frame each time the test says so, and the loop's wait that goes with it."""

    def __init__(self) -> None:
        self._beats: SimpleQueue[bool] = SimpleQueue()
        self.clock = VirtualClock()
        self.done = threading.Semaphore(0)

    def wait(self, timeout_s: float) -> bool:
        self.done.release()  # the frame before has been offered to every consumer
        if self._beats.get(timeout=WAIT_S):
            return True
        self.clock.advance_ns(round(timeout_s * NS_PER_S))
        return False

    def read(self, frame_id: int) -> Image:
        return picture(frame_id)

    def next_frame(self) -> None:
        self._beats.put(False)
        assert self.done.acquire(timeout=WAIT_S)

    def end(self) -> None:
        self._beats.put(True)


class Reports:
    def __init__(self) -> None:
        self._queue: SimpleQueue[ConsumerReported] = SimpleQueue()

    def __call__(self, reported: ConsumerReported) -> None:
        self._queue.put(reported)

    def next(self) -> ConsumerReported:
        return self._queue.get(timeout=WAIT_S)

    @property
    def is_empty(self) -> bool:
        return self._queue.empty()


class Flying:
    """A loop over `consumers` that is stepped frame by frame; the first frame has been offered."""

    def __init__(self, consumers: dict[str, Consumer], *, first_frame_id: int = 0) -> None:
        self.beat, self.reports = Beat(), Reports()
        self.loop = FrameLoop(
            self.beat,
            consumers,
            10,
            self.beat.clock,
            self.reports,
            first_frame_id=first_frame_id,
            wait=self.beat.wait,
        )

    def __enter__(self) -> Flying:
        self.loop.start()
        assert self.beat.done.acquire(timeout=WAIT_S)
        return self

    def __exit__(self, *error: object) -> None:
        self.beat.end()
        self.loop.stop(WAIT_S)


class Calling:
    """A consumer made of a function."""

    def __init__(self, on_frame: Callable[[Frame], str | None]) -> None:
        self._on_frame = on_frame

    def on_frame(self, frame: Frame) -> str | None:
        return self._on_frame(frame)


class Blocking:
    """Works on each frame until the test lets it go on."""

    def __init__(self) -> None:
        self.entered: SimpleQueue[Frame] = SimpleQueue()
        self.freed = threading.Semaphore(0)

    def on_frame(self, frame: Frame) -> str | None:
        self.entered.put(frame)
        self.freed.acquire(timeout=WAIT_S)
        return None


def good(consumer: str, frame_id: int) -> ConsumerReported:
    return ConsumerReported(consumer, frame_id, good=True)


def degraded(consumer: str, frame_id: int, detail: str) -> ConsumerReported:
    return ConsumerReported(consumer, frame_id, good=False, detail=detail)


def test_each_consumer_gets_the_frame_on_a_thread_of_its_own_and_never_on_the_main_one() -> None:
    threads: set[str] = set()

    def look(frame: Frame) -> None:
        assert threading.current_thread() is not threading.main_thread()
        threads.add(threading.current_thread().name)

    with Flying({"c2_vpr": Calling(look), "c3_matcher": Calling(look)}) as flying:
        reports = {flying.reports.next().consumer, flying.reports.next().consumer}
    assert reports == {"c2_vpr", "c3_matcher"}
    assert threads == {"c7-consumer-c2_vpr", "c7-consumer-c3_matcher"}


def test_a_recovery_counts_its_frames_on() -> None:
    frames: list[Frame] = []
    with Flying({"c2": Calling(frames.append)}, first_frame_id=1_000) as flying:
        assert flying.reports.next() == good("c2", 1_000)
        flying.beat.next_frame()
        assert flying.reports.next() == good("c2", 1_001)
    assert [frame.frame_id for frame in frames] == [1_000, 1_001]
    assert frames[1].captured_ns - frames[0].captured_ns == 100 * NS_PER_MS


def test_the_picture_is_shared_and_nobody_can_write_it() -> None:
    def scribble(frame: Frame) -> None:
        frame.image[0, 0, 0] = 1

    with Flying({"c2": Calling(scribble)}) as flying:
        assert "read-only" in flying.reports.next().detail


def test_a_slow_consumer_gets_the_newest_frame_and_its_misses_are_counted() -> None:
    slow, fast = Blocking(), Blocking()
    with Flying({"slow": slow, "fast": fast}) as flying:
        assert slow.entered.get(timeout=WAIT_S).frame_id == 0
        for frame_id in range(4):
            assert fast.entered.get(timeout=WAIT_S).frame_id == frame_id
            fast.freed.release()
            assert flying.reports.next() == good("fast", frame_id)
            flying.beat.next_frame()
        assert flying.loop.counts.missed == {"slow": 3, "fast": 0}
        slow.freed.release()
        assert flying.reports.next() == good("slow", 0)
        assert slow.entered.get(timeout=WAIT_S).frame_id == 4
        assert fast.entered.get(timeout=WAIT_S).frame_id == 4
        slow.freed.release()
        fast.freed.release()
    assert flying.loop.counts.read == 5
    assert flying.loop.counts.missed == {"slow": 3, "fast": 0}


@pytest.mark.parametrize("error", [ValueError("no match"), SystemExit("bye"), MemoryError()])
def test_a_consumer_that_raises_has_a_degraded_frame_and_goes_on(error: BaseException, log_lines: list[str]) -> None:
    def fail_once(frame: Frame) -> None:
        if frame.frame_id == 0:
            raise error

    with Flying({"c2_vpr": Calling(fail_once)}) as flying:
        assert flying.reports.next() == degraded("c2_vpr", 0, f"{type(error).__name__}: {error}")
        flying.beat.next_frame()
        assert flying.reports.next() == good("c2_vpr", 1)
    line = f"ERROR C7 consumer failed; consumer=c2_vpr frame=0 error={type(error).__name__}: {error} held_back=0"
    assert log_lines == [line]


def test_a_consumer_that_fails_every_frame_is_one_line_in_ten_seconds_and_every_report(log_lines: list[str]) -> None:
    def fail(frame: Frame) -> None:
        raise ValueError("no match {frame}")  # braces are text, whatever a log's format makes of them

    with Flying({"c2_vpr": Calling(fail)}) as flying:
        for frame_id in range(102):
            assert flying.reports.next() == degraded("c2_vpr", frame_id, "ValueError: no match {frame}")
            if frame_id < 101:
                flying.beat.next_frame()
    assert [line.rpartition(" ")[2] for line in log_lines] == ["held_back=0", "held_back=99"]


@pytest.mark.parametrize(
    ("said", "detail"),
    [
        ("two of 13 matches", "two of 13 matches"),
        ("", ""),
        ("x" * 5_000, "x" * 1_000),
        ("\udcff", "\\udcff"),
        (True, "on_frame returned bool; expected None or a text"),
    ],
)
def test_what_a_consumer_says_of_its_frame_is_reported_bounded(said: object, detail: str) -> None:
    with Flying({"c3": Calling(lambda frame: said)}) as flying:  # type: ignore[arg-type, return-value]
        assert flying.reports.next() == degraded("c3", 0, detail)


def test_a_report_that_cannot_be_taken_does_not_ground_the_consumer(log_lines: list[str]) -> None:
    flying = Flying({"c2": Calling(lambda frame: None)})
    take = flying.reports.__call__

    def refuse_once(reported: ConsumerReported) -> None:
        take(reported)
        if reported.frame_id == 0:
            raise OSError("recorder gone")

    flying.loop._workers[0]._report = refuse_once
    with flying:
        assert flying.reports.next() == good("c2", 0)
        flying.beat.next_frame()
        assert flying.reports.next() == good("c2", 1)
    assert log_lines == ["ERROR C7 consumer report lost; consumer=c2 error=OSError: recorder gone held_back=0"]


def test_a_hanging_consumer_is_warned_about_once_and_hurts_nobody(log_lines: list[str]) -> None:
    hanging = Blocking()
    with Flying({"hanging": hanging, "c2": Calling(lambda frame: None)}) as flying:
        hanging.entered.get(timeout=WAIT_S)
        for frame_id in range(40):
            assert flying.reports.next() == good("c2", frame_id)
            flying.beat.next_frame()
        flying.beat.end()
        assert "hanging" in flying.loop.stop(0.05)
        hanging.freed.release()
        assert flying.loop.stop(WAIT_S) == ()
    hangs = [line for line in log_lines if "hangs" in line]
    assert hangs == ["WARNING C7 consumer hangs; consumer=hanging frame=0 since=2100ms"]
    assert [line for line in log_lines if line.startswith("WARNING C7 frame loop stopped without; hung=")]
    assert flying.loop.counts.missed["hanging"] == flying.loop.counts.read - 1


def test_stopping_wakes_a_loop_that_sleeps_and_ends_every_thread() -> None:
    seen = threading.Event()

    class OneAnHour:
        def read(self, frame_id: int) -> Image:
            return picture(frame_id)

    loop = FrameLoop(OneAnHour(), {"c2": Calling(lambda frame: seen.set())}, 1 / 3600, MonotonicClock(), Reports())
    loop.start()
    assert seen.wait(WAIT_S)
    assert loop.stop(WAIT_S) == ()
    assert loop.stop(WAIT_S) == ()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("c7-consumer", "c7-frames"))]


def test_stopping_before_the_start_is_allowed() -> None:
    assert Flying({"c2": Blocking()}).loop.stop(WAIT_S) == ()


def test_a_source_that_hangs_is_left_behind_by_name() -> None:
    entered, freed = threading.Event(), threading.Event()

    class Stuck:
        def read(self, frame_id: int) -> Image:
            entered.set()
            freed.wait(WAIT_S)
            return picture(frame_id)

    loop = FrameLoop(Stuck(), {"c2": Calling(lambda frame: None)}, 10, MonotonicClock(), Reports())
    loop.start()
    assert entered.wait(WAIT_S)
    assert FRAMES_THREAD in loop.stop(0.05)
    freed.set()
    assert loop.stop(WAIT_S) == ()
    assert loop.counts.missed == {"c2": 1}  # it came after the end


def scopes_seen(rate_hz: float, within_ms: dict[str, float]) -> dict[str, FrameScope]:
    """What is around `on_frame` of the consumers `named` and `other`, at the frame 7."""
    seen: SimpleQueue[FrameScope | None] = SimpleQueue()

    def look(frame: Frame) -> None:
        seen.put(current_frame())
        raise ValueError("the scope ends all the same")

    clock = VirtualClock()
    consumers: dict[str, Consumer] = {"named": Calling(look), "other": Calling(look)}
    loop = FrameLoop(
        ScriptedSource(clock, {7: 0}), consumers, rate_hz, clock, Reports(), first_frame_id=7, within_ms=within_ms
    )
    loop.start()
    scopes = [seen.get(timeout=WAIT_S) for _ in consumers]
    assert loop.stop(WAIT_S) == ()
    assert current_frame() is None
    assert {(scope.frame_id, scope.captured_ns) for scope in scopes if scope} == {(7, clock.monotonic_ns())}
    return {scope.consumer: scope for scope in scopes if scope}


def test_all_calls_of_a_frame_have_one_deadline_by_default_one_period_on() -> None:
    scopes = scopes_seen(10, {"named": 250})
    now_ns = scopes["other"].captured_ns
    assert scopes["other"].deadline_ns - now_ns == 100 * NS_PER_MS
    assert scopes["named"].deadline_ns - now_ns == 250 * NS_PER_MS


def test_a_frame_that_comes_once_an_hour_waits_for_nothing_that_long() -> None:
    scopes = scopes_seen(1 / 3600, {})
    assert scopes["other"].deadline_ns - scopes["other"].captured_ns == WITHIN_MS_MAX * NS_PER_MS
