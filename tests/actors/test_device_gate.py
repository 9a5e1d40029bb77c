"""One device, one engine at a time, the most urgent next."""

from __future__ import annotations

import itertools
import threading
import time

from actors.device_gate import DeviceGate
from actors.stepped_scheduling import SteppedScheduling
from messages import NS_PER_S, MonotonicClock, VirtualClock


def test_a_free_device_is_entered_at_once() -> None:
    gate = DeviceGate(VirtualClock())
    assert gate.enter(0, 10**12)
    gate.leave()
    assert gate.enter(5, 10**12)


def test_a_busy_device_is_not_waited_for_past_the_deadline() -> None:
    clock = VirtualClock()
    gate = DeviceGate(clock)
    gate.enter(0, 10**12)
    entered: list[bool] = []
    waits = threading.Thread(target=lambda: entered.append(gate.enter(0, clock.monotonic_ns())), daemon=True)
    waits.start()
    waits.join(5)
    assert entered == [False]
    gate.leave()
    in_a_moment_ns = clock.monotonic_ns() + NS_PER_S // 10
    assert gate.enter(0, in_a_moment_ns), "the one who gave up must not be handed the device"


def test_the_next_one_is_chosen_by_priority_then_deadline_then_arrival() -> None:
    clock = MonotonicClock()
    gate = DeviceGate(clock)
    far_ns = clock.monotonic_ns() + 60 * NS_PER_S
    gate.enter(0, far_ns)
    wanted = [(2, far_ns), (1, far_ns + 5), (1, far_ns), (0, far_ns + 9)]
    order: list[tuple[int, int]] = []

    def run(priority: int, deadline_ns: int) -> None:
        assert gate.enter(priority, deadline_ns)
        order.append((priority, deadline_ns))
        gate.leave()

    threads = [threading.Thread(target=run, args=want, daemon=True) for want in wanted]
    for count, thread in enumerate(threads, start=1):
        thread.start()
        while len(gate._waiters) < count:  # the waiter is queued before its thread blocks
            thread.join(0.001)
    gate.leave()
    for thread in threads:
        thread.join(10)
    assert order == sorted(wanted)


def test_runs_never_overlap_and_none_is_lost_under_contention() -> None:
    clock = MonotonicClock()
    gate = DeviceGate(clock)
    inside = itertools.count()
    active = 0
    overlaps = 0
    entered = 0
    lock = threading.Lock()

    def work(priority: int) -> None:
        nonlocal active, overlaps, entered
        for _ in range(300):
            if gate.enter(priority, clock.monotonic_ns() + 30 * NS_PER_S):
                active += 1
                time.sleep(0)  # gives the interpreter to whoever would be inside too
                overlaps += active != 1
                next(inside)
                active -= 1
                with lock:
                    entered += 1
                gate.leave()

    threads = [threading.Thread(target=work, args=(priority,), daemon=True) for priority in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (overlaps, entered) == (0, 1200)


def test_a_fenced_device_is_entered_by_nobody_and_who_waits_is_sent_away_at_once() -> None:
    clock = MonotonicClock()
    gate = DeviceGate(clock)
    far_ns = clock.monotonic_ns() + 60 * NS_PER_S
    gate.enter(0, far_ns)
    entered: list[bool] = []
    waits = threading.Thread(target=lambda: entered.append(gate.enter(1, far_ns)), daemon=True)
    waits.start()
    while not gate._waiters:  # the waiter is queued before its thread blocks
        waits.join(0.001)
    gate.fence("vpr hangs")
    waits.join(10)
    assert entered == [False]
    gate.leave()
    assert not gate.enter(0, far_ns), "though it is free"
    gate.fence("another reason")
    assert gate.fenced == "vpr hangs"


def test_who_was_handed_the_device_and_has_not_begun_when_the_fence_falls_does_not_enter() -> None:
    clock = VirtualClock()
    scheduling = SteppedScheduling(clock, seed=0)
    gate = DeviceGate(clock, scheduling, runs_at_once=2)
    for _ in range(2):
        assert gate.enter(0, 10**12)
    entered: list[bool] = []
    scheduling.start(lambda: entered.append(gate.enter(1, 10**12)), "waits")
    scheduling.run_until(clock.monotonic_ns())
    gate.leave()
    gate.fence("the other one hangs")
    scheduling.run_until(clock.monotonic_ns())
    assert entered == [False]
    scheduling.end()
