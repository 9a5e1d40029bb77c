"""The board's heat, from the source to whoever subscribed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import pykka
import pytest

from actors.supervised import await_end
from actors.thermal import Sample, ThermalActor
from actors.thermal_feed import FEED_MAX, ThermalBroadcast
from messages import (
    NS_PER_S,
    TelemetryLost,
    TelemetryRestored,
    TelemetryUnavailableError,
    ThermalState,
    ThermalTransition,
    ThrottleEntered,
    ThrottleLeft,
    VirtualClock,
)
from telemetry import ThermalReading, ThermalSnapshot

WAIT_S = 20.0
COOL = ThermalReading(cpu_temp_c=60.0, gpu_temp_c=61.0, gpu_clock_mhz=1020)
HOT = ThermalReading(cpu_temp_c=98.0, gpu_temp_c=99.5, gpu_clock_mhz=620, throttled_by=("gpu-throttle-alert",))


class ScriptedSource:
    """Gives the next reading, or raises the next error."""

    name = "scripted"

    def __init__(self, *steps: ThermalReading | TelemetryUnavailableError) -> None:
        self._steps = deque(steps)

    def read(self) -> ThermalReading:
        step = self._steps.popleft()
        if isinstance(step, TelemetryUnavailableError):
            raise step
        return step


class ManualTimers:
    """Timers that only remember: the test decides when a second is over."""

    def __init__(self) -> None:
        self.delays_ns: list[int] = []

    def after(self, delay_ns: int, _action: Callable[[], None]) -> Callable[[], None]:
        self.delays_ns.append(delay_ns)
        return lambda: None

    def close(self) -> None:
        pass


class Watched:
    """A ThermalActor on a virtual clock, with a feed and a recorder."""

    def __init__(self, *steps: ThermalReading | TelemetryUnavailableError) -> None:
        self.clock = VirtualClock()
        self.snapshot = ThermalSnapshot(self.clock)
        self.broadcast = ThermalBroadcast()
        self.timers = ManualTimers()
        self.feed = self.broadcast.subscribe()
        self.recorded: list[ThermalTransition] = []
        self.ref: pykka.ActorRef[ThermalActor] = ThermalActor.start(
            ScriptedSource(*steps), self.snapshot, self.broadcast, self.timers, self.clock, self.recorded.append
        )


def fly_through(*steps: ThermalReading | TelemetryUnavailableError) -> tuple[Watched, list[ThermalTransition]]:
    watched = Watched(*steps)
    for _ in steps[1:]:
        watched.ref.ask(Sample(), timeout=WAIT_S)  # an ask also waits until the sample before it is done
        watched.clock.advance_ns(NS_PER_S)
    watched.ref.stop(timeout=WAIT_S)
    return watched, list(watched.feed)


def test_a_throttle_enters_and_leaves_and_everybody_learns_it_once() -> None:
    watched, seen = fly_through(COOL, HOT, HOT, COOL, COOL, COOL)
    assert [type(transition) for transition in seen] == [ThrottleEntered, ThrottleLeft]
    assert watched.recorded == seen


def test_the_snapshot_holds_the_newest_sample_for_any_thread() -> None:
    watched, _ = fly_through(COOL, HOT)
    state = watched.snapshot.peek()
    assert (state.gpu_temp_c, state.thermal_throttle_active, state.measured_clock_mhz) == (99.5, True, 620)


def test_telemetry_that_fails_is_lost_and_claims_no_throttle_and_comes_back() -> None:
    gone = TelemetryUnavailableError("no such zone")
    watched, seen = fly_through(HOT, gone, gone, gone, gone, COOL)
    assert [type(transition) for transition in seen] == [ThrottleEntered, TelemetryLost, TelemetryRestored]
    lost = seen[1]
    assert isinstance(lost, TelemetryLost)
    assert lost.throttle_was_active
    assert "no such zone" in lost.detail
    assert not watched.snapshot.peek().source_lost


def test_each_sample_asks_for_the_next_one_a_period_later() -> None:
    watched, _ = fly_through(COOL, COOL, COOL)
    assert watched.timers.delays_ns == [NS_PER_S] * 3


def test_a_thermal_actor_that_ends_ends_the_feeds() -> None:
    watched, _ = fly_through(COOL)
    assert list(watched.broadcast.subscribe()) == []


def test_a_thermal_actor_that_dies_says_that_telemetry_is_lost_before_the_feeds_end() -> None:
    watched = Watched(HOT)
    watched.ref.tell("nonsense")
    assert await_end(watched.ref, WAIT_S)
    seen = list(watched.feed)
    assert [type(transition) for transition in seen] == [ThrottleEntered, TelemetryLost]
    assert isinstance(seen[1], TelemetryLost)
    assert seen[1].throttle_was_active
    assert "Sample only" in seen[1].detail
    assert watched.recorded == seen
    assert watched.snapshot.peek().source_lost, "without waiting for the last sample to grow old"


def entered(second: int) -> ThrottleEntered:
    return ThrottleEntered(ThermalState(measured_at=second))


def test_a_slow_subscriber_misses_the_oldest_transitions_and_knows_how_many() -> None:
    broadcast = ThermalBroadcast()
    with broadcast.subscribe() as feed:
        for second in range(FEED_MAX + 5):
            broadcast.publish(entered(second))
        first = next(feed)
        assert feed.missed == 5
    assert isinstance(first, ThrottleEntered)
    assert first.state.measured_at == 5


def test_closing_a_feed_ends_a_wait_on_another_thread() -> None:
    feed = ThermalBroadcast().subscribe()
    ended = threading.Event()

    def read() -> None:
        for _ in feed:
            pytest.fail("nothing was published")
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    feed.close()
    assert ended.wait(WAIT_S)


def test_closing_a_feed_ends_the_wait_of_all_who_read_it() -> None:
    feed = ThermalBroadcast().subscribe()
    seen: list[ThermalTransition] = []
    readers = [threading.Thread(target=lambda: seen.extend(feed), daemon=True) for _ in range(3)]
    for reader in readers:
        reader.start()
    transitions = [entered(second) for second in range(4)]
    for transition in transitions:
        feed.deliver(transition)
    feed.close()
    for reader in readers:
        reader.join(WAIT_S)
    assert not any(reader.is_alive() for reader in readers)
    assert sorted(each.state.measured_at for each in seen if isinstance(each, ThrottleEntered)) == [0, 1, 2, 3]


def test_a_closed_feed_gets_nothing_more() -> None:
    broadcast = ThermalBroadcast()
    feed = broadcast.subscribe()
    broadcast.publish(entered(1))
    feed.close()
    broadcast.publish(entered(2))
    assert [state.state.measured_at for state in feed if isinstance(state, ThrottleEntered)] == [1]
