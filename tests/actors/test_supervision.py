"""Engines under supervision, on real threads: every request has one outcome, whatever dies."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import pykka
import pytest

from actors import Pending, RestartPolicy, Supervision, supervise
from messages import (
    NS_PER_MS,
    AllEnginesLoaded,
    EngineDeserializeError,
    EngineDied,
    EngineLoaded,
    EngineQuarantined,
    InferCompleted,
    InferenceError,
    InferRejected,
    Message,
    Outcome,
    OutOfMemoryError,
    TakeoffRefusedError,
    Tensor,
    TensorSpec,
    VirtualClock,
)
from runtimes import FakeRuntime, blocks_until, computes, fails_to_load, loads_after, raises, returns

WAIT_S = 20.0
LetLoadTimeOut = Callable[[Supervision, VirtualClock, float], None]
IMAGE = {"image": np.ones(4, np.float32)}
RESULT = {"descriptor": np.arange(3, dtype=np.float32)}
QUICK = RestartPolicy(max_restarts=3, first_delay_ns=NS_PER_MS)


class Log:
    """Keeps every message and lets a test wait for one, instead of sleeping."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.messages: list[Message] = []

    def __call__(self, message: Message) -> None:
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def wait_for(self, wanted: Callable[[Message], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: any(wanted(message) for message in self.messages), WAIT_S)

    def wait_for_generation(self, model: str, generation: int) -> None:
        self.wait_for(lambda m: isinstance(m, EngineLoaded) and (m.model, m.generation) == (model, generation))

    def of(self, kind: type) -> list[Message]:
        with self._changed:
            return [message for message in self.messages if isinstance(message, kind)]


@pytest.fixture
def log() -> Log:
    return Log()


def fly(fake: FakeRuntime, log: Log, **options: object) -> Supervision:
    return supervise(fake, fake.entries(), record=log, policy=QUICK, **options)  # type: ignore[arg-type]


def ask(c7: Supervision, model: str = "vpr", inputs: Mapping[str, Tensor] = IMAGE) -> Outcome:
    return c7.infer(model, inputs, within_ms=WAIT_S * 1000, frame_id=1)


def reason(outcome: Outcome) -> str:
    assert isinstance(outcome, InferRejected), outcome
    return outcome.reason


# Takeoff


def test_a_result_carries_its_engines_generation_and_its_times(log: Log) -> None:
    with fly(FakeRuntime({"vpr": returns(RESULT)}), log) as c7:
        outcome = ask(c7)
    assert isinstance(outcome, InferCompleted)
    np.testing.assert_array_equal(np.asarray(outcome.outputs["descriptor"]), RESULT["descriptor"])
    assert (outcome.consumer, outcome.frame_id, outcome.generation) == ("main", 1, 1)
    assert outcome.queued_ns > 0
    assert outcome.run_ns > 0


def test_takeoff_is_refused_and_names_every_engine_that_did_not_load_and_why(log: Log) -> None:
    fake = FakeRuntime(
        {
            "vpr": returns(RESULT),
            "lightglue": fails_to_load(EngineDeserializeError("sm: engine 87, host 0")),
            "disk": fails_to_load(EngineDeserializeError("engine file is missing")),
        }
    )
    with pytest.raises(TakeoffRefusedError) as refusal:
        fly(fake, log)
    text = str(refusal.value)
    assert "2 engine(s)" in text
    assert "engine file is missing" in text
    assert "sm: engine 87, host 0" in text
    assert fake.loaded == (), "what had loaded is released again"


def test_a_takeoff_is_given_up_while_an_engine_still_loads(log: Log) -> None:
    never = threading.Event()
    fake = FakeRuntime({"lightglue": loads_after(never), "vpr": returns(RESULT)})
    try:
        with pytest.raises(TakeoffRefusedError, match="given up because of SIGTERM; not yet loaded: lightglue"):
            fly(fake, log, give_up=lambda: "SIGTERM", priorities={"vpr": 1, "lightglue": 2})
    finally:
        never.set()


def test_takeoff_is_refused_where_an_engine_does_not_load_in_time(log: Log) -> None:
    never = threading.Event()
    fake = FakeRuntime({"vpr": loads_after(never)})
    try:
        with pytest.raises(TakeoffRefusedError, match=r"vpr: did not load within 0\.05 s"):
            fly(fake, log, load_timeout_s=0.05)
    finally:
        never.set()


def test_a_flight_without_engines_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one engine"):
        supervise(FakeRuntime({}), {})


def test_engines_load_in_the_order_of_priority(log: Log) -> None:
    fake = FakeRuntime({name: returns(RESULT) for name in ("refine", "vpr", "match")})
    with fly(fake, log, priorities={"vpr": 0, "match": 1, "refine": 2}):
        pass
    assert [m.model for m in log.of(EngineLoaded) if isinstance(m, EngineLoaded)] == ["vpr", "match", "refine"]
    assert len(log.of(AllEnginesLoaded)) == 1


# Outcomes


def test_a_model_that_is_not_flown_is_unknown(log: Log) -> None:
    with fly(FakeRuntime({"vpr": returns(RESULT)}), log) as c7:
        assert reason(ask(c7, "vrp")) == "unknown_model"


def test_a_bad_input_is_rejected_by_name_and_the_engine_lives(log: Log) -> None:
    fake = FakeRuntime({"vpr": returns(RESULT)}, inputs={"vpr": {"image": TensorSpec((4,), "float32")}})
    with fly(fake, log) as c7:
        outcome = ask(c7, inputs={"image": np.ones(5, np.float32)})
        assert reason(outcome) == "invalid_input"
        assert isinstance(outcome, InferRejected)
        assert "image" in outcome.detail
        assert isinstance(ask(c7), InferCompleted)
    assert fake.loads("vpr") == 1


def test_running_out_of_memory_rejects_the_frame_and_the_engine_lives(log: Log) -> None:
    fake = FakeRuntime({"vpr": [raises(OutOfMemoryError("2 GiB")), returns(RESULT)]})
    with fly(fake, log) as c7:
        assert reason(ask(c7)) == "out_of_memory"
        assert isinstance(ask(c7), InferCompleted)


def crash(error: BaseException) -> Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]:
    def run(_inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        raise error

    return run


@pytest.mark.parametrize(
    "fault",
    [InferenceError("716"), ValueError("a programming error"), SystemExit(3), KeyboardInterrupt()],
    ids=lambda error: type(error).__name__,
)
def test_an_engine_that_crashes_comes_back_as_the_next_generation(log: Log, fault: BaseException) -> None:
    fake = FakeRuntime({"vpr": [computes(crash(fault)), returns(RESULT)], "match": returns(RESULT)})
    with fly(fake, log) as c7:
        assert reason(ask(c7)) == "inference_error"
        assert isinstance(ask(c7, "match"), InferCompleted), "the other engine is not touched"
        log.wait_for_generation("vpr", 2)
        outcome = ask(c7)
        assert isinstance(outcome, InferCompleted)
        assert outcome.generation == 2
        assert (fake.loads("vpr") + fake.resumes("vpr"), fake.loads("match")) == (2, 1)


def test_requests_queued_behind_a_crash_have_their_outcome_too(log: Log) -> None:
    go = threading.Event()
    fake = FakeRuntime({"vpr": [blocks_until(go, raises(InferenceError("716"))), returns(RESULT)]})
    with fly(fake, log) as c7:
        pending = [c7.submit("vpr", IMAGE, within_ms=WAIT_S * 1000, frame_id=1) for _ in range(5)]
        go.set()
        reasons = [reason(each.result()) for each in pending]
        log.wait_for_generation("vpr", 2)
        assert len(fake.calls) == 1, "no request is tried again by the engine that comes back"
    assert reasons == ["inference_error"] + ["engine_unavailable"] * 4


def test_an_engine_that_keeps_crashing_is_quarantined_and_the_others_fly_on(log: Log) -> None:
    fake = FakeRuntime({"vpr": raises(InferenceError("716")), "match": returns(RESULT)})
    with fly(fake, log) as c7:
        for generation in range(1, QUICK.max_restarts + 2):
            log.wait_for_generation("vpr", generation)
            assert reason(ask(c7)) == "inference_error"
        log.wait_for(lambda message: isinstance(message, EngineQuarantined))
        outcome = ask(c7)
        assert reason(outcome) == "engine_unavailable"
        assert isinstance(outcome, InferRejected)
        assert "quarantined" in outcome.detail
        assert isinstance(ask(c7, "match"), InferCompleted)
    assert len(log.of(EngineDied)) == QUICK.max_restarts + 1


def test_a_request_past_its_deadline_is_not_run(log: Log) -> None:
    go = threading.Event()
    fake = FakeRuntime({"vpr": [blocks_until(go, returns(RESULT)), returns(RESULT)]})
    with fly(fake, log) as c7:
        running = c7.submit("vpr", IMAGE, within_ms=WAIT_S * 1000, frame_id=1)
        assert reason(c7.infer("vpr", IMAGE, within_ms=20, frame_id=1)) == "expired"
        go.set()
        assert isinstance(running.result(), InferCompleted)
        assert isinstance(ask(c7), InferCompleted)
    assert len(fake.calls) == 2, "the expired request never reached the engine"


def test_a_newer_frame_takes_the_place_of_the_oldest(log: Log) -> None:
    go = threading.Event()
    fake = FakeRuntime({"vpr": [blocks_until(go, returns(RESULT)), returns(RESULT)]})
    with fly(fake, log) as c7:
        frames = [c7.submit("vpr", IMAGE, within_ms=WAIT_S * 1000, frame_id=0)]
        while not fake.calls:  # the first frame is being run; those after it wait
            frames[0].done or threading.Event().wait(0.001)
        frames += [c7.submit("vpr", IMAGE, within_ms=WAIT_S * 1000, frame_id=frame) for frame in (1, 2, 3)]
        assert reason(frames[1].result()) == "shed"
        go.set()
        assert all(isinstance(frames[index].result(), InferCompleted) for index in (0, 2, 3))


def test_all_runs_of_a_frame_share_one_deadline_and_come_back_in_order(log: Log) -> None:
    fake = FakeRuntime({"match": computes(lambda inputs: inputs)})
    batch = [{"x": np.full(2, index, np.float32)} for index in range(13)]
    with fly(fake, log) as c7:
        outcomes = c7.client("c3").infer_many("match", batch, within_ms=WAIT_S * 1000, frame_id=9)
    values = [np.asarray(o.outputs["x"])[0] for o in outcomes if isinstance(o, InferCompleted)]
    assert values == list(range(13))
    assert {outcome.consumer for outcome in outcomes} == {"c3"}


def test_a_consumer_may_fill_the_same_dict_again_at_once(log: Log) -> None:
    go = threading.Event()
    fake = FakeRuntime({"vpr": [blocks_until(go, returns(RESULT)), computes(lambda inputs: inputs)]})
    with fly(fake, log) as c7:
        held = c7.submit("vpr", IMAGE, within_ms=WAIT_S * 1000, frame_id=1)
        inputs = {"x": np.zeros(1, np.float32)}
        first = c7.submit("vpr", inputs, within_ms=WAIT_S * 1000, frame_id=1)
        inputs["x"] = np.ones(1, np.float32)
        second = c7.submit("vpr", inputs, within_ms=WAIT_S * 1000, frame_id=1)
        go.set()
        outcomes = [each.result() for each in (held, first, second)]
    values = [float(np.asarray(o.outputs["x"])[0]) for o in outcomes[1:] if isinstance(o, InferCompleted)]
    assert values == [0.0, 1.0]


@pytest.mark.parametrize("within_ms", [0, -1, float("nan"), float("inf"), 1e12])
def test_a_deadline_that_is_no_deadline_is_a_mistake(log: Log, within_ms: float) -> None:
    with fly(FakeRuntime({"vpr": returns(RESULT)}), log) as c7, pytest.raises(ValueError, match="within_ms"):
        c7.infer("vpr", IMAGE, within_ms=within_ms)


def test_the_supervisor_routes_a_message_like_the_client_does(log: Log) -> None:
    fake = FakeRuntime({"vpr": returns(RESULT)})
    with fly(fake, log) as c7:
        assert isinstance(ask(c7), InferCompleted)
        [asked] = [message for message in log.messages if type(message).__name__ == "Infer"]
        pending = c7._supervisor.ask(asked, timeout=WAIT_S)
        assert isinstance(pending, Pending)
        assert isinstance(pending.result(), InferCompleted)


# Recovery


def test_a_recovery_serves_the_most_urgent_engine_while_the_others_still_load(log: Log) -> None:
    go = threading.Event()
    fake = FakeRuntime({"vpr": returns(RESULT), "match": [loads_after(go), returns(RESULT)]})
    with fly(fake, log, mode="recovery", priorities={"vpr": 0, "match": 1}) as c7:
        log.wait_for_generation("vpr", 1)
        assert isinstance(ask(c7), InferCompleted)
        assert reason(ask(c7, "match")) == "engine_unavailable"
        assert not log.of(AllEnginesLoaded)
        go.set()
        log.wait_for(lambda message: isinstance(message, AllEnginesLoaded))
        assert isinstance(ask(c7, "match"), InferCompleted)


def test_in_a_recovery_an_engine_that_fails_to_load_is_tried_again(log: Log) -> None:
    fake = FakeRuntime({"vpr": [fails_to_load(EngineDeserializeError("busy")), returns(RESULT)]})
    with fly(fake, log, mode="recovery") as c7:
        log.wait_for_generation("vpr", 2)
        assert isinstance(ask(c7), InferCompleted)


def test_in_a_recovery_a_load_that_hangs_does_not_hold_up_the_others(
    log: Log, let_load_time_out: LetLoadTimeOut
) -> None:
    never, clock = threading.Event(), VirtualClock()
    fake = FakeRuntime({"vpr": loads_after(never), "match": returns(RESULT)})
    options = {"priorities": {"vpr": 0, "match": 1}, "load_timeout_s": 0.05, "clock": clock}
    try:
        with fly(fake, log, mode="recovery", **options) as c7:
            let_load_time_out(c7, clock, 0.05)
            log.wait_for_generation("match", 1)
            assert isinstance(ask(c7, "match"), InferCompleted)
            assert "did not load within" in c7.readiness.failed["vpr"]
            never.set()
    finally:
        never.set()


# The end


def test_a_stop_settles_everything_and_later_requests_are_told_so(log: Log) -> None:
    go = threading.Event()
    fake = FakeRuntime({"vpr": blocks_until(go, returns(RESULT))})
    c7 = fly(fake, log)
    pending = [c7.submit("vpr", IMAGE, within_ms=WAIT_S * 1000, frame_id=1) for _ in range(3)]
    threading.Timer(0.01, go.set).start()
    c7.stop()
    assert all(each.done for each in pending)
    assert reason(ask(c7)) == "shutting_down"
    assert fake.loaded == ()
    tally = c7.tallies()["vpr"]
    assert (tally.submitted, tally.open) == (4, 0)
    c7.stop()


def test_stopping_every_actor_of_the_process_restarts_nothing(log: Log) -> None:
    fake = FakeRuntime({"vpr": returns(RESULT), "match": returns(RESULT)})
    with fly(fake, log) as c7:
        pykka.ActorRegistry.stop_all(timeout=WAIT_S)
        assert reason(ask(c7)) in {"shutting_down", "engine_unavailable"}
        assert not c7.is_alive()
    assert (fake.loads("vpr"), fake.loads("match"), fake.loaded) == (1, 1, ())


def test_producers_count_the_same_as_the_ledger_while_engines_crash(log: Log) -> None:
    faults = [raises(InferenceError("716")), *[returns(RESULT)] * 40]
    fake = FakeRuntime({"vpr": faults * 5, "match": [*[returns(RESULT)] * 70, raises(InferenceError("700"))] * 4})
    seen: Counter[tuple[str, str]] = Counter()
    lock = threading.Lock()

    def produce(c7: Supervision, consumer: str) -> None:
        client = c7.client(consumer)
        for frame in range(60):
            model = ("vpr", "match")[frame % 2]
            outcomes = client.infer_many(model, [IMAGE] * 5, within_ms=WAIT_S * 1000, frame_id=frame)
            with lock:
                for outcome in outcomes:
                    kind = outcome.reason if isinstance(outcome, InferRejected) else "completed"
                    seen[(model, kind)] += 1

    with supervise(fake, fake.entries(), record=log, policy=RestartPolicy(max_restarts=100, first_delay_ns=1)) as c7:
        threads = [threading.Thread(target=produce, args=(c7, f"c{index}"), daemon=True) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        tallies = c7.tallies()
    for model, tally in tallies.items():
        theirs = {kind: count for (name, kind), count in seen.items() if name == model}
        ours: dict[str, int] = {"completed": tally.completed} if tally.completed else {}
        ours.update({str(why): count for why, count in tally.rejected.items()})
        assert theirs == ours
        assert tally.submitted == 600
        assert tally.open == 0
    assert fake.peak_concurrency() == 1, "one device runs one engine at a time"
