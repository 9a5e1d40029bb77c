"""Lives of a flight process that end badly, one after the other, with producers who ask on through the end.

An engine that hangs, and a device that is gone, end every engine of their process by design: so each life is one
`supervise`. Each ends as one of ENDINGS says; then every request has its outcome, no engine begins a run on a fenced
device, a new process is asked for exactly where one is needed, and once, the stop is bounded, and what comes back from
a hang changes nothing.

A waiter learns at its deadline, who only listens within one sweep of it; both are given LATITUDE_NS for a machine that
is busy. The seed is printed; C7_CHAOS_SEED repeats a run's choices, not how its threads meet. C7_CHAOS_LIVES sets how
many there are.
"""

from __future__ import annotations

import os
import random
import threading
import time
from typing import NamedTuple

import pytest
from loguru import logger

from actors import Supervision, supervise
from actors.readiness import overdue_detail
from actors.supervisor import SWEEP_PERIOD_NS
from messages import NS_PER_MS, NS_PER_S, EngineDied, EngineLoaded, EngineQuarantined, InferCompleted, Message
from runtimes import FakeRuntime
from tests.actors.chaos import scripts
from tests.actors.chaos.account import Account
from tests.actors.chaos.endings import (
    COMES_BACK,
    CONTEXTS_LOST,
    ENDINGS,
    HANGS,
    MODELS,
    RESTART_NEEDED,
    Doom,
    Ending,
    set_scene,
)
from tests.actors.chaos.process_resources import ProcessResources
from tests.actors.chaos.producers import JOIN_S, Crew
from tests.actors.chaos.questions import question

PRODUCERS = 8
PER_S = 6000.0
WARM_UP = 300
"""Requests before an ending that the test itself brings about."""
AFTERWARDS = 300
"""Requests after it."""
HANG_AFTER_MS = 200.0
LOAD_TIMEOUT_S = 0.5
LATITUDE_NS = 2 * NS_PER_S
PROBE_MS = 2000.0
PROBES = 100
POLLS = 2000
POLL_S = 0.01
LIVES = int(os.environ.get("C7_CHAOS_LIVES", "100"))


class Witness:
    """What was recorded and told: what a new process was asked for, and how many runs had begun by then."""

    def __init__(self, fake: FakeRuntime) -> None:
        self._fake = fake
        self._contexts_lost = 0
        self.asked_for: list[str] = []
        self.runs = 0
        self.ended = threading.Event()

    def need(self, reason: str) -> None:
        self.runs = len(self._fake.calls)
        self.asked_for.append(reason)
        self.ended.set()

    def record(self, message: Message) -> None:
        if isinstance(message, EngineDied) and message.detail == scripts.CONTEXT_LOST_DETAIL:
            self._contexts_lost += 1
            if self._contexts_lost == CONTEXTS_LOST:
                self.ended.set()
        elif isinstance(message, EngineQuarantined) and message.detail == overdue_detail(LOAD_TIMEOUT_S):
            self.ended.set()


class Life(NamedTuple):
    requests: int
    duration_s: float
    loads: int
    latest_word_ns: int
    latest_unwaited_ns: int


def live(ending: Ending, seed: str) -> Life:
    resources = ProcessResources()
    fake, unlucky, doom = set_scene(ending, random.Random(seed))
    witness, account, over = Witness(fake), Account(), threading.Event()
    began_s = time.monotonic()
    c7 = supervise(
        fake,
        fake.entries(),
        mode="recovery",
        policy=scripts.POLICY,
        load_timeout_s=LOAD_TIMEOUT_S if ending.startswith("a load hangs") else JOIN_S,
        run_limit_ms=HANG_AFTER_MS if ending in HANGS else JOIN_S * 1000,
        record=witness.record,
        on_restart_needed=witness.need,
    )
    with c7:
        crew = Crew(c7, PRODUCERS, MODELS, account, seed)
        crew.start(lambda: not over.is_set(), PER_S)
        try:
            bring_about(ending, c7, account, witness, doom)
            await_total(account, account.total + AFTERWARDS)
        finally:
            over.set()
            crew.join()
        await_all_settled(c7)
        if ending in COMES_BACK:
            if ending == "a run outlasts every deadline":
                fake.release_hung()
            back = [model for model in MODELS if model != unlucky or not ending.startswith("a load hangs")]
            assert [model for model in back if not answers(c7, account, model)] == []
        stop(c7)
    assert account.discrepancies(c7.statistics()) == []
    assert len(witness.asked_for) == (ending in RESTART_NEEDED)
    assert RESTART_NEEDED.get(ending, "") in c7.restart_needed
    if ending in RESTART_NEEDED:
        assert len(fake.calls) <= last_run(ending, witness, doom), "an engine began a run on a fenced device"
    fake.release_hung()
    resources.await_all_given_back(JOIN_S)
    assert account.discrepancies(c7.statistics()) == []
    assert fake.peak_concurrency() <= 1
    assert fake.loaded == ()
    assert account.latest_word_ns <= LATITUDE_NS
    assert account.latest_unwaited_ns <= SWEEP_PERIOD_NS + LATITUDE_NS
    return Life(
        account.total,
        time.monotonic() - began_s,
        sum(map(fake.loads, MODELS)),
        account.latest_word_ns,
        account.latest_unwaited_ns,
    )


def last_run(ending: Ending, witness: Witness, doom: Doom) -> int:
    """How many runs may have begun in all. One more where the one who fenced the device did not hold it: somebody may
    have been let in just before, and not have begun yet.
    """
    began = doom.runs if doom.came.is_set() else witness.runs
    return began + (ending in {"the device is gone in a load", "an engine never lets go of its device"})


def bring_about(ending: Ending, c7: Supervision, account: Account, witness: Witness, doom: Doom) -> None:
    if ending == "the supervisor dies":
        await_total(account, WARM_UP)
        c7.actor_ref.tell(EngineLoaded("nobody", 1, 1))  # what no engine of this flight reports
    if ending == "it is stopped in flight":
        await_total(account, WARM_UP)
        stop(c7)
    elif ending == "a run outlasts every deadline":
        assert doom.came.wait(JOIN_S)
    else:
        assert witness.ended.wait(JOIN_S), f"expected that {ending}"


def await_total(account: Account, count: int) -> None:
    for _ in range(POLLS):
        if account.total >= count:
            return
        threading.Event().wait(POLL_S)
    raise AssertionError(f"producers asked {account.total} times, expected {count}: they hang")


def await_all_settled(c7: Supervision) -> None:
    """By deadlines and by the sweep, before any stop."""
    for _ in range(POLLS):
        if not any(tally.open for tally in c7.tallies().values()):
            return
        threading.Event().wait(POLL_S)
    raise AssertionError(f"requests that nobody settles: {c7.tallies()}")


def answers(c7: Supervision, account: Account, model: str) -> bool:
    """Whether the engine is back. What its script still has in store may cost some requests."""
    for frame_id in range(PROBES):
        account.ask(model)
        outcome = c7.client("c998").infer(model, question("c998", frame_id), within_ms=PROBE_MS, frame_id=frame_id)
        account.tell("c998", model, frame_id, outcome, round(PROBE_MS * NS_PER_MS))
        if isinstance(outcome, InferCompleted):
            return True
        threading.Event().wait(5 * POLL_S)
    return False


def stop(c7: Supervision) -> None:
    thread = threading.Thread(target=c7.stop, name="stop", daemon=True)
    thread.start()
    thread.join(JOIN_S)
    assert not thread.is_alive(), "stop() hangs"


def seed_of_this_run() -> str:
    seed = os.environ.get("C7_CHAOS_SEED", str(time.time_ns() % 1_000_000))
    print(f"\nC7_CHAOS_SEED={seed}")
    logger.remove()
    return seed


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_request_has_one_outcome_in_a_life_where(ending: Ending) -> None:
    print(ending, live(ending, f"{seed_of_this_run()}/0"))


@pytest.mark.chaos
@pytest.mark.timeout(120 + 30 * LIVES)
def test_every_request_has_one_outcome_through_many_lives_that_end_badly() -> None:
    seed = seed_of_this_run()
    lives: dict[Ending, list[Life]] = {ending: [] for ending in ENDINGS}
    for number in range(LIVES):
        ending = ENDINGS[number % len(ENDINGS)]
        lives[ending].append(live(ending, f"{seed}/{number}"))
    for ending, such in lives.items():
        if such:
            print(
                f"  {ending}: {len(such)} lives, {sum(life.requests for life in such)} requests, "
                f"{sum(life.loads for life in such)} loads, {sum(life.duration_s for life in such):.0f} s; a rejection "
                f"came at most {max(life.latest_word_ns for life in such) / NS_PER_MS:.0f} ms after the deadline to a "
                f"waiter, {max(life.latest_unwaited_ns for life in such) / NS_PER_MS:.0f} ms to a listener"
            )
