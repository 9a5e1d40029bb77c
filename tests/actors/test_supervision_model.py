"""Any order of requests, faults, loads, releases, cancels and waits, on virtual time: what must hold in all of them.

The machine counts for itself what it asked and what it was told; the supervision's own figures are only compared with
that. `C7_MODEL_STEPS` makes the long run longer.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from typing import ClassVar
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from loguru import logger

from actors import Pending, RestartPolicy
from actors.device_gate import DeviceGate
from actors.engine_slot import EngineSlot
from actors.frame_scope import frame_scope
from actors.stepped import SteppedWorld, stepped
from messages import (
    NS_PER_MS,
    NS_PER_S,
    CorruptEngineError,
    DeviceContextError,
    DeviceFaultError,
    EngineDeserializeError,
    EngineDied,
    EngineLoaded,
    EngineLoadFailed,
    EngineQuarantined,
    EngineRestartScheduled,
    InferenceError,
    InferRejected,
    InvalidInputError,
    Message,
    Outcome,
    OutOfMemoryError,
    ProcessRestartNeeded,
    RequestRejectedError,
    Tensor,
    TransientInferenceError,
    VirtualClock,
)
from runtimes import FakeRuntime, computes, fails_to_load, raises, returns, takes_ms
from runtimes.fake_steps import Step, hangs, hangs_at_load, loads
from runtimes.inference_runtime import EngineCacheEntry, EngineHandle

MODELS = ("vpr", "matcher", "refiner")
PRIORITIES = {"vpr": 0, "matcher": 1, "refiner": 1}
LATE = ("lightglue", "extractor")
"""Engines that the flight does not begin with: components hold them through the runtime interface."""
ALL = (*MODELS, *LATE)
CONSUMERS = ("c2", "c3")
RESULT = {"y": np.ones(2, np.float32)}
LOAD_TIMEOUT_S = 3.0
RUN_LIMIT_MS = 1500.0
WITHIN_MS_MAX = 800
SWEEP_MS = 100
STEPS = int(os.environ.get("C7_MODEL_STEPS", "100000"))
POLICY = RestartPolicy(
    max_restarts=3, window_ns=10 * NS_PER_S, first_delay_ns=10 * NS_PER_MS, probation_after_ns=20 * NS_PER_S
)


def exits(_inputs: object) -> dict[str, Tensor]:
    raise SystemExit(3)


RUNS: dict[str, Step] = {
    "slow": takes_ms(40, returns(RESULT)),
    "very slow": takes_ms(700, returns(RESULT)),
    "slow death": takes_ms(90, raises(InferenceError("716"))),
    "bad input": raises(InvalidInputError("a shape")),
    "transient": raises(TransientInferenceError("busy")),
    "memory": raises(OutOfMemoryError("2 GiB")),
    "engine": raises(InferenceError("716")),
    "context": raises(DeviceContextError("lost")),
    "bug": raises(ValueError("a bug")),
    "exit": computes(exits),
}
ENDS: dict[str, Step] = {"hangs": hangs(), "device": raises(DeviceFaultError("gone"))}
LOADS: dict[str, Step] = {
    "slow": takes_ms(200, loads()),
    "fails": fails_to_load(EngineDeserializeError("busy")),
    "memory": fails_to_load(OutOfMemoryError("2 GiB")),
    "corrupt": fails_to_load(CorruptEngineError("altered")),
    "bug": fails_to_load(ValueError("a bug")),
    "hangs": hangs_at_load(),
}


class Engines(FakeRuntime):
    """Plays what the machine has put in line for the next run and load, else it does well; watches who runs beside."""

    def __init__(self, violations: list[str]) -> None:
        super().__init__(dict.fromkeys(ALL, returns(RESULT)))
        self.next_runs: dict[str, deque[Step]] = defaultdict(deque)
        self.next_loads: dict[str, deque[Step]] = defaultdict(deque)
        self.begun: list[int] = []
        self._at_work: list[str] = []
        self._violations = violations

    def deserialize_engine(self, entry: EngineCacheEntry) -> EngineHandle:  # type: ignore[override]
        line = self.next_loads[entry.model]
        if line:
            line.popleft().play({}, self.stage)
        return super().deserialize_engine(entry)

    def infer(self, handle: EngineHandle, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self._at_work:
            self._violations.append(f"{handle.entry.model} runs beside {self._at_work}")
        self.begun.append(int(np.asarray(inputs["number"])))
        self._at_work.append(handle.entry.model)
        try:
            line = self.next_runs[handle.entry.model]
            if line:
                return line.popleft().play(inputs, self.stage)
            return super().infer(handle, inputs)
        finally:
            self._at_work.remove(handle.entry.model)


class WatchedGate(DeviceGate):
    """Whenever the device is handed over, it goes to the most urgent of those who wait, then to the first deadline."""

    violations: ClassVar[list[str]] = []

    def __init__(self, clock: VirtualClock, *rest: object) -> None:
        super().__init__(clock, *rest)  # type: ignore[arg-type]
        self._asked = 0
        self._waiting: set[tuple[int, int, int]] = set()
        self._handed_among: set[tuple[int, int, int]] = set()

    def enter(self, priority: int, deadline_ns: int) -> bool:
        self._asked += 1
        key = (priority, deadline_ns, self._asked)
        self._waiting.add(key)
        granted = super().enter(priority, deadline_ns)
        self._waiting.discard(key)
        if granted and key in self._handed_among:
            if key != min(self._handed_among):
                self.violations.append(f"{key} got the device before {min(self._handed_among)}")
            self._handed_among = set()
        return granted

    def leave(self) -> None:
        self._handed_among = {key for key in self._waiting if key[1] > self._clock.monotonic_ns()}
        super().leave()


class Asked:
    """One request, and what its listener was told."""

    def __init__(self, number: int, model: str, pending: Pending, clock: VirtualClock) -> None:
        self.number = number
        self.model = model
        self.pending = pending
        self.told: list[Outcome] = []
        self.told_ns = 0
        self.queued_at_poke = False
        self._clock = clock
        pending.listen(self._hear)

    def _hear(self, outcome: Outcome) -> None:
        self.told.append(outcome)
        self.told_ns = self._clock.monotonic_ns()

    @property
    def kind(self) -> str:
        [outcome] = self.told
        return outcome.reason if isinstance(outcome, InferRejected) else "completed"


class Supervision(RuleBasedStateMachine):
    """Rules are what may happen, invariants what must never break."""

    steps_done: ClassVar[int] = 0
    seen: ClassVar[Counter[str]] = Counter()

    @initialize(seed=st.integers(0, 2**32 - 1))
    def take_off(self, seed: int) -> None:
        self.violations: list[str] = []
        self.asked: list[Asked] = []
        self.facts: list[tuple[int, Message]] = []
        self.engines = Engines(self.violations)
        self.handles: list[EngineHandle] = []
        self.told_by_runtime: Counter[tuple[str, str]] = Counter()
        self.clock = VirtualClock()
        WatchedGate.violations = self.violations
        with mock.patch("actors.takeoff.DeviceGate", WatchedGate):
            self.world: SteppedWorld = stepped(
                self.engines,
                seed=seed,
                engines={model: self.engines.entry(model) for model in MODELS},
                priorities=PRIORITIES,
                policy=POLICY,
                run_limit_ms=RUN_LIMIT_MS,
                load_timeout_s=LOAD_TIMEOUT_S,
                record=lambda message: self.facts.append((self.clock.monotonic_ns(), message)),
                clock=self.clock,
            )
        self.runtime = self.world.supervision.as_runtime()

    @rule(
        model=st.sampled_from(ALL),
        consumer=st.sampled_from(CONSUMERS),
        frame_id=st.integers(0, 5),
        within_ms=st.integers(1, WITHIN_MS_MAX),
        burst=st.integers(1, 13),
    )
    def ask(self, model: str, consumer: str, frame_id: int, within_ms: int, burst: int) -> None:
        client = self.world.consumer(consumer)
        for _ in range(burst):
            number = len(self.asked)
            inputs = {"number": np.array(number)}
            pending = client.submit(model, inputs, within_ms=within_ms, frame_id=frame_id)
            self.asked.append(Asked(number, model, pending, self.clock))

    @rule(of_the_last=st.integers(1, 20))
    def cancel(self, of_the_last: int) -> None:
        if self.asked:
            self.asked[-min(of_the_last, len(self.asked))].pending.cancel()

    @rule(model=st.sampled_from(ALL))
    def hold(self, model: str) -> None:
        try:
            self.handles.append(self.runtime.deserialize_engine(self.engines.entry(model)))
        except (EngineDeserializeError, InferenceError, OutOfMemoryError) as error:
            assert model in LATE, "an engine of the flight is not waited for"
            self.seen[f"load: {type(error).__name__}"] += 1
        else:
            self.seen["held"] += 1

    @rule(which=st.integers(0, 100))
    def let_go(self, which: int) -> None:
        if self.handles:
            self.runtime.release_engine(self.handles.pop(which % len(self.handles)))
            self.seen["let go"] += 1

    @rule(
        which=st.integers(0, 100),
        consumer=st.sampled_from(CONSUMERS),
        frame_id=st.integers(0, 5),
        within_ms=st.integers(1, WITHIN_MS_MAX),
        calls=st.integers(1, 4),
    )
    def ask_as_a_component(self, which: int, consumer: str, frame_id: int, within_ms: int, calls: int) -> None:
        if not self.handles:
            return
        handle = self.handles[which % len(self.handles)]
        with frame_scope(consumer, frame_id, within_ms, clock=self.clock) as scope:
            for call in range(calls):
                kind = self._infer(handle, -len(self.engines.begun) - 1_000_000 * (call + 1))
                self.told_by_runtime[handle.entry.model, kind] += 1
                assert self.clock.monotonic_ns() <= scope.deadline_ns or kind == "expired"

    def _infer(self, handle: EngineHandle, number: int) -> str:
        try:
            self.runtime.infer(handle, {"number": np.array(number)})
        except RequestRejectedError as error:
            return error.reason
        except InvalidInputError:
            return "invalid_input"
        except InferenceError:
            return "inference_error"
        except OutOfMemoryError:
            return "out_of_memory"
        return "completed"

    @rule(really=st.integers(0, 9))
    def what_hangs_returns(self, really: int) -> None:
        if really == 0:
            self.engines.release_hung()

    @rule(model=st.sampled_from(ALL), run=st.sampled_from(sorted(RUNS)))
    def the_next_run(self, model: str, run: str) -> None:
        self.engines.next_runs[model].append(RUNS[run])

    @rule(model=st.sampled_from(ALL), end=st.sampled_from(sorted(ENDS)), really=st.integers(0, 9))
    def the_next_run_is_the_last(self, model: str, end: str, really: int) -> None:
        if really == 0:  # most flights go on for longer
            self.engines.next_runs[model].append(ENDS[end])

    @rule(model=st.sampled_from(ALL), load=st.sampled_from(sorted(LOADS)))
    def the_next_load(self, model: str, load: str) -> None:
        self.engines.next_loads[model].append(LOADS[load])

    @rule(model=st.sampled_from(ALL), really=st.integers(0, 3))
    def poke(self, model: str, really: int) -> None:
        """A message that an engine does not take ends it: in the control lane, ahead of all work that waits."""
        if really:
            return
        slot = self._slots().get(model)
        if slot is None or slot.ref is None or not slot.ref.is_alive():
            return
        slot.ref.tell("no work at all")
        queued = [pending for burst in slot.mailbox._frames.values() for pending in burst]
        for each in self.asked:
            each.queued_at_poke = each.queued_at_poke or any(each.pending is pending for pending in queued)

    @rule(duration_ms=st.sampled_from([0, 1, 15, 60, 250, 1000, 5000, 25_000]))
    def let_time_pass(self, duration_ms: int) -> None:
        self.world.advance_ms(duration_ms)

    @invariant()
    def nothing_was_out_of_order(self) -> None:
        type(self).steps_done += 1
        assert not self.violations

    @invariant()
    def nobody_is_told_twice_or_too_late(self) -> None:
        for each in self.asked:
            assert len(each.told) == each.pending.done
            if each.told and each.kind == "completed":
                assert each.told_ns <= each.pending.deadline_ns

    @invariant()
    def whoever_is_overdue_has_been_told(self) -> None:
        overdue_ns = self.clock.monotonic_ns() - SWEEP_MS * NS_PER_MS
        assert not [each for each in self.asked if each.pending.deadline_ns < overdue_ns and not each.told]

    @invariant()
    def control_goes_before_work(self) -> None:
        begun = set(self.engines.begun)
        assert not [each.number for each in self.asked if each.queued_at_poke and each.number in begun]

    @invariant()
    def no_request_is_run_twice(self) -> None:
        assert len(self.engines.begun) == len(set(self.engines.begun))

    @invariant()
    def whoever_holds_an_engine_has_one(self) -> None:
        assert {handle.entry.model for handle in self.handles} <= self._slots().keys()

    @invariant()
    def no_engine_is_there_twice(self) -> None:
        assert max(Counter(self.engines.loaded).values(), default=0) <= 1

    def _slots(self) -> dict[str, EngineSlot]:
        supervisor = self.world.supervision.actor_ref._actor_weakref()
        assert supervisor is not None
        return supervisor._slots

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.advance_ms(LOAD_TIMEOUT_S * 1000 + RUN_LIMIT_MS + 2 * SWEEP_MS)  # what hangs has been found by then
        self.nothing_was_out_of_order()
        self.nobody_is_told_twice_or_too_late()
        mine = Counter((_row(each.model), each.kind) for each in self.asked)
        for (model, kind), count in self.told_by_runtime.items():
            mine[_row(model), kind] += count
        tallies = self.world.tallies()
        theirs: Counter[tuple[str, str]] = Counter()
        for model, tally in tallies.items():
            theirs[_row(model), "completed"] += tally.completed
            for why, count in tally.rejected.items():
                theirs[_row(model), why] += count
        assert mine == theirs
        assert sum(tally.open for tally in tallies.values()) == 0
        self._check_lives()
        self._check_who_is_left()
        type(self).seen.update(kind for _, kind in mine.elements())
        type(self).seen.update(type(fact).__name__ for _, fact in self.facts)
        self.world.close()
        if not self.world.supervision.restart_needed:
            assert self.engines.loaded == ()

    def _check_who_is_left(self) -> None:
        """What nobody holds is gone, but for a load that hangs; and nobody waits for it."""
        slots = self._slots()
        held = {*MODELS, *(handle.entry.model for handle in self.handles)}
        assert self.world.supervision.readiness.undecided <= slots.keys()
        if self.world.supervision.restart_needed:
            return
        for model in slots.keys() - held:
            assert (slots[model].state, slots[model].unwanted) == ("quarantined", True)
            assert model not in self.engines.loaded
        assert set(self.engines.loaded) <= slots.keys()

    def _check_lives(self) -> None:
        """Generations count up by one; restarts keep to the policy; what is given up stays down for its time."""
        for model in MODELS:
            generation, restarts_ns, not_before_ns = 0, [], 0
            for at_ns, fact in self.facts:
                if getattr(fact, "model", "") != model:
                    continue
                if isinstance(fact, EngineLoaded | EngineLoadFailed):
                    assert fact.generation == generation + 1
                    generation = fact.generation
                    assert at_ns >= not_before_ns, "nothing loads before its delay is over"
                elif isinstance(fact, EngineDied):
                    assert fact.generation == generation or fact.fault == "context_fault"
                    generation = fact.generation
                elif isinstance(fact, EngineRestartScheduled):
                    assert 0 < fact.delay_ns <= POLICY.max_delay_ns
                    restarts_ns.append(at_ns)
                    not_before_ns = at_ns + fact.delay_ns
                elif isinstance(fact, EngineQuarantined):
                    not_before_ns = at_ns + (fact.probation_in_ns or 2**62)
            for first_ns in restarts_ns:
                window = [each for each in restarts_ns if first_ns <= each <= first_ns + POLICY.window_ns]
                assert len(window) <= POLICY.max_restarts
        for model in LATE:
            generations = [
                fact.generation for _, fact in self.facts if isinstance(fact, EngineLoaded) and fact.model == model
            ]
            assert generations == sorted(set(generations)), "a generation that loads again is another one"
        ends = [fact for _, fact in self.facts if isinstance(fact, ProcessRestartNeeded)]
        assert len(ends) == bool(self.world.supervision.restart_needed)


def _row(model: str) -> str:
    """A name that was never loaded is counted with the strangers, so all that come late are one row here."""
    return model if model in MODELS else "late"


def run(examples: int, steps: int, *, repeats_itself: bool) -> None:
    logger.remove()
    Supervision.steps_done, Supervision.seen = 0, Counter()
    run_state_machine_as_test(
        Supervision,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=repeats_itself,
            database=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def test_a_few_hundred_flights_of_any_kind_keep_every_promise() -> None:
    run(examples=60, steps=40, repeats_itself=True)
    assert Supervision.seen["completed"]
    assert Supervision.seen["held"]
    assert Supervision.seen["let go"]


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_steps_keep_every_promise() -> None:
    steps = 0
    seen: Counter[str] = Counter()
    while steps < STEPS:
        run(examples=400, steps=50, repeats_itself=False)
        steps += Supervision.steps_done
        seen += Supervision.seen
    print(f"\n{steps} steps; {dict(sorted(seen.items()))}")
    every = {"completed", "expired", "shed", "engine_unavailable", "inference_error", "out_of_memory", "cancelled"}
    assert every <= set(seen)
