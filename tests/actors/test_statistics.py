"""What each model has done, as the ledger knows it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from actors import RestartPolicy, supervise
from actors.ledger import UNKNOWN_MODEL, Ledger
from messages import NS_PER_MS, EngineLoaded, FaultClass, InferCompleted, InferenceError
from runtimes import FakeRuntime, raises, returns

WAIT_S = 20.0
IMAGE = {"image": np.ones(4, np.float32)}
RESULT = {"descriptor": np.arange(3, dtype=np.float32)}


def test_statistics_say_what_became_of_every_request_and_how_long_it_took() -> None:
    again = threading.Event()

    def record(message: Any) -> None:
        if isinstance(message, EngineLoaded) and message.generation == 2:
            again.set()

    fake = FakeRuntime({"vpr": [returns(RESULT), raises(InferenceError("716")), returns(RESULT)], "idle": returns({})})
    quick = RestartPolicy(first_delay_ns=NS_PER_MS)
    with supervise(fake, fake.entries(), record=record, policy=quick) as c7:
        outcomes = [c7.infer("vpr", IMAGE, within_ms=WAIT_S * 1000) for _ in range(2)]
        assert again.wait(WAIT_S)
        outcomes.append(c7.infer("vpr", IMAGE, within_ms=WAIT_S * 1000))
        c7.infer("nobody", IMAGE, within_ms=WAIT_S * 1000)
        statistics = c7.statistics()
        assert {model: each.tally for model, each in statistics.items()} == c7.tallies()
    vpr = statistics["vpr"]
    assert (vpr.tally.submitted, vpr.tally.completed, vpr.tally.rejected) == (3, 2, {"inference_error": 1})
    completed = [outcome for outcome in outcomes if isinstance(outcome, InferCompleted)]
    assert (vpr.run.count, vpr.run.max_ns) == (2, max(outcome.run_ns for outcome in completed))
    assert (vpr.queue.count, vpr.queue.max_ns) == (2, max(outcome.queued_ns for outcome in completed))
    assert (vpr.generation, vpr.restarts, vpr.undelivered) == (2, 1, 0)
    idle = statistics["idle"]
    assert (idle.tally.submitted, idle.run.count, idle.generation, idle.restarts) == (0, 0, 1, 0)
    assert statistics[UNKNOWN_MODEL].tally.rejected == {"unknown_model": 1}


def test_statistics_without_a_recorder_know_the_generation_too() -> None:
    fake = FakeRuntime({"vpr": returns(RESULT)})
    with supervise(fake, fake.entries()) as c7:
        assert c7.statistics()["vpr"].generation == 1


def test_faults_are_counted_by_class_and_not_among_the_outcomes() -> None:
    ledger = Ledger(["vpr", "match"])
    faults: tuple[FaultClass, ...] = ("transient_fault", "hang", "transient_fault")
    for fault in faults:
        ledger.count_fault("vpr", fault)
    statistics = ledger.statistics()
    assert statistics["vpr"].faults == {"transient_fault": 2, "hang": 1}
    assert statistics["vpr"].tally.submitted == 0
    assert statistics["match"].faults == {}
