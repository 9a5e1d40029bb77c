"""A storm: four engines that crash, exit, run out of memory and fail to load, under eight producers who ask for ten
times what one engine can do, beside an engine that does nothing wrong.

`make chaos` runs a million requests, `make test` some twenty thousand with the same code. The seed is printed;
C7_CHAOS_SEED repeats a run's choices, not how its threads meet. C7_CHAOS_REQUESTS, C7_CHAOS_BYSTANDER and
C7_CHAOS_SECONDS make it longer.

What is held:
- Conservation, request by request, by the producers' own account (`chaos/account.py`), and then against the ledger.
- No hang: every producer comes back.
- No late result, without tolerance: the time from a request's submission to the return of its engine, which an outcome
  carries, is never longer than the request had; and the moment at which the engine was done, which the scripted engine
  writes into its result, is never after the deadline. When a consumer's thread gets to read a result that was settled
  in time is up to the operating system; how often that was after the deadline is counted and printed, not judged.
- Resident memory does not grow, apart from that account's one byte a request; no file descriptor and no thread is left.
- The bystander keeps 99.99 % of its requests. It shares the device, at a higher priority, and so waits for one run of
  another engine at most. A fault that takes the context of the device takes every engine, so there is none here.
"""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from loguru import logger

from actors import Supervision, supervise
from messages import NS_PER_S, EngineDied, EngineLoadFailed, EngineQuarantined, Message
from runtimes import FakeRuntime, fake_runtime
from tests.actors.chaos import bystander, scripts
from tests.actors.chaos.account import Account
from tests.actors.chaos.bystander import Bystander
from tests.actors.chaos.process_resources import ProcessResources, resident_bytes
from tests.actors.chaos.producers import JOIN_S, Crew

MODELS = ("vpr", "extractor", "matcher", "refiner")
PRODUCERS = 8
RUN_MS = 1.0
CAPACITY_PER_S = 1000 / RUN_MS
OVERLOAD = 10
FAULTY = 0.05
KEPT_SHARE = 0.9999
RESIDENT_GROWTH_MAX_BYTES = 10 * 1024**2
SWITCH_INTERVAL_S = 0.0005
"""A tenth of the interpreter's own: threads meet in more places, and an engine is not kept waiting by a producer."""


class Size(NamedTuple):
    """At least so much of each. Memory is looked at after `warm_up` requests; 0 where a run is too short to tell.

    `bystander_within_ms` is that of a frame in flight. Where a single request that is lost to a busy machine would be
    more than a share of 0.0001, it is longer.
    """

    requests: int
    bystander: int
    bystander_within_ms: float
    warm_up: int
    seconds: float
    at_most_s: float


SMALL = Size(20_000, 400, 5000.0, 0, 0.0, 120.0)
LARGE = Size(
    int(os.environ.get("C7_CHAOS_REQUESTS", "1000000")),
    int(os.environ.get("C7_CHAOS_BYSTANDER", "100000")),
    330.0,
    100_000,
    float(os.environ.get("C7_CHAOS_SECONDS", "0")),
    1500.0,
)


class Facts:
    """Counts what the supervisor says of engines. Called on its thread only."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __call__(self, message: Message) -> None:
        if isinstance(message, (EngineDied, EngineLoadFailed)):
            self.counts[f"{type(message).__name__} {message.fault}"] += 1
        elif isinstance(message, EngineQuarantined):
            self.counts["EngineQuarantined"] += 1


class Storm:
    """The same for both sizes. `resident_at_first` is 0 where nobody looked."""

    def __init__(self, size: Size, seed: str) -> None:
        self.size = size
        self.seed = seed
        played = {
            model: scripts.script(
                random.Random(f"{seed}/{model}"), steps=size.requests // 4, run_ms=RUN_MS, faulty=FAULTY
            )
            for model in MODELS
        }
        self.fake = FakeRuntime({**played, bystander.MODEL: scripts.run(bystander.RUN_MS)})
        self.account = Account()
        self.facts = Facts()
        self.resident_at_first = 0
        self.duration_s = 0.0

    def rage(self, c7: Supervision) -> Bystander:
        """Until it is large enough; the bystander as it was then."""
        over = threading.Event()
        crew = Crew(c7, PRODUCERS, MODELS, self.account, self.seed)
        other = Bystander(c7, self.account, self.size.bystander_within_ms)
        began_s = time.monotonic()
        other.start()
        crew.start(lambda: not over.is_set(), OVERLOAD * CAPACITY_PER_S)
        while not over.wait(0.02):
            self.duration_s = time.monotonic() - began_s
            if self.size.warm_up and not self.resident_at_first and self.account.total >= self.size.warm_up:
                self.resident_at_first = resident_bytes() - self.account.own_bytes
            if self._is_enough(other) or crew.errors or self.duration_s > self.size.at_most_s:
                over.set()
        crew.join()
        other.stop(JOIN_S)
        return other

    def _is_enough(self, other: Bystander) -> bool:
        return (
            self.account.total >= self.size.requests
            and other.count >= self.size.bystander
            and self.duration_s >= self.size.seconds
        )


def weather(size: Size, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = os.environ.get("C7_CHAOS_SEED", str(time.time_ns() % 1_000_000))
    print(f"\nC7_CHAOS_SEED={seed}")
    logger.remove()
    monkeypatch.setattr(fake_runtime, "CALLS_KEPT", 100)  # what it keeps for tests to look at is no growth of ours
    resources = ProcessResources()
    storm = Storm(size, seed)
    account, fake = storm.account, storm.fake
    with supervise(
        fake,
        fake.entries(),
        priorities={bystander.MODEL: 0},
        mode="recovery",
        policy=scripts.POLICY,
        record=storm.facts,
    ) as c7:
        assert c7.readiness.wait(JOIN_S)
        other = storm.rage(c7)
    grown = resident_bytes() - account.own_bytes - storm.resident_at_first
    statistics = c7.statistics()
    asked = account.total - other.count
    answered = sum(statistics[model].tally.completed for model in MODELS)

    mean_run_s = (account.run_ns - other.run_ns) / NS_PER_S / max(1, answered)
    print(
        f"  {asked} requests in {storm.duration_s:.0f} s: {asked / storm.duration_s * mean_run_s:.1f} times what one "
        f"engine can do at {1000 * mean_run_s:.2f} ms a run; {answered} were answered"
    )
    print(*account.figures(), other.figures(), sep="\n")
    print(f"  faults: { ({model: each.faults for model, each in statistics.items()}) }")
    print(f"  {dict(sorted(storm.facts.counts.items()))}")
    print(f"  {sum(map(fake.loads, MODELS))} loads, {sum(map(fake.resumes, MODELS))} resumes")
    if storm.resident_at_first:
        print(
            f"  resident: {storm.resident_at_first / 1024**2:.1f} MB after {size.warm_up} requests, "
            f"{grown / 1024**2:+.1f} MB at the end, without the producers' account"
        )

    assert account.discrepancies(statistics) == []
    assert storm.duration_s <= size.at_most_s
    assert asked >= OVERLOAD * answered
    assert other.completed >= KEPT_SHARE * other.count, other.lost
    assert fake.peak_concurrency() == 1
    assert fake.loaded == ()
    if storm.resident_at_first:
        assert grown <= RESIDENT_GROWTH_MAX_BYTES
    resources.await_all_given_back(JOIN_S)


@pytest.fixture(autouse=True)
def threads_meet_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    yield
    sys.setswitchinterval(before)


def test_every_request_has_one_outcome_in_a_storm_of_twenty_thousand(monkeypatch: pytest.MonkeyPatch) -> None:
    weather(SMALL, monkeypatch)


@pytest.mark.chaos
@pytest.mark.timeout(LARGE.at_most_s + LARGE.seconds + 120)
def test_every_request_has_one_outcome_in_a_storm_of_a_million(monkeypatch: pytest.MonkeyPatch) -> None:
    weather(LARGE, monkeypatch)
