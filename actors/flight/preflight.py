"""The rehearsal of a takeoff: load, self-test, construct, run, measure, release; a go or a no-go that says why."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from actors.consumer import Consumer, FrameSource, build_source
from actors.flight.consumers import compose_each
from actors.flight.surroundings import load_order
from actors.supervision import Supervision
from actors.takeoff import supervise
from messages import (
    NS_PER_MS,
    NS_PER_S,
    Clock,
    ConfigError,
    InferCompleted,
    InferRejected,
    MonotonicClock,
    TakeoffRefusedError,
)
from runtimes import EngineCacheEntry, FlightPlan, InferenceRuntime, ModelSection, sample_inputs
from runtimes.memory_budget import MemoryBudget
from runtimes.samples import Samples

RUNS_MIN = 20
RUNS_MAX = 200
"""Of 200 runs the 99th percentile by nearest rank is the third slowest: one outlier alone makes no no-go."""
RUNS_FOR_P99 = 100
"""Of fewer runs it is the slowest one."""
MEASURED_FOR_NS = 5 * NS_PER_S
"""Each engine, once it has made RUNS_MIN runs."""
REHEARSAL_WITHIN_MS = 60_000.0
"""A first run may be slow: the rehearsal measures it, it does not expire it."""


class EngineRehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine did. Durations in milliseconds; the first run is kept apart because it warms up.

    `self_test` is `passed` where known answers were given again when the engine was loaded, `none` where it brings
    none. `runs` are those that median and p99 are of.
    """

    model: str
    self_test: Literal["passed", "none"]
    inputs: Literal["samples", "made up"]
    first_run_ms: float
    median_run_ms: float
    p99_run_ms: float
    runs: int
    calls_per_frame: float
    deadline_ms: float
    problem: str = ""

    @property
    def frame_ms(self) -> float:
        """What all its calls of one frame take."""
        return self.calls_per_frame * self.p99_run_ms


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Go where there is no problem. `frame_ms` is what all calls of one frame take at the p99 of each engine.

    `frame_period_ms` is infinite (null in JSON) without `[frames]`. `engines` are in the order of loading, and empty
    where they were not loaded: not all of them could be, or the memory does not last.
    """

    go: bool
    problems: tuple[str, ...]
    engines: tuple[EngineRehearsal, ...]
    frame_ms: float
    frame_period_ms: float
    memory: MemoryBudget


def nearest_rank(values: Sequence[float], share: float) -> float:
    """Pure. The smallest of `values` that at least `share` (0 to 1) of them do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def measured_enough(runs: int, elapsed_ns: int) -> bool:
    """Pure. Enough runs for a p99, or as many as there was time for, and never fewer than RUNS_MIN."""
    return runs >= RUNS_MAX or (runs >= RUNS_MIN and elapsed_ns >= MEASURED_FOR_NS)


def judge_rehearsal(
    engines: Sequence[EngineRehearsal], frame_period_ms: float, memory: MemoryBudget, faults: Sequence[str] = ()
) -> Verdict:
    """Pure. The sum of calls per frame times p99 must fit the frame's period, and each run's p99 its deadline.

    `faults` say which component of the flight could not be constructed, and why.
    """
    problems = [*memory.shortages, *faults]
    problems += [f"{engine.model}: {engine.problem}" for engine in engines if engine.problem]
    problems += [
        f"{engine.model}: a run takes {engine.p99_run_ms:.1f} ms (p99 of {engine.runs}), its deadline is"
        f" {engine.deadline_ms:g} ms"
        for engine in engines
        if engine.p99_run_ms > engine.deadline_ms
    ]
    frame_ms = sum(engine.frame_ms for engine in engines)
    if frame_ms > frame_period_ms:
        largest = max(engines, key=lambda engine: engine.frame_ms)
        problems.append(
            f"one frame's calls take {frame_ms:.1f} ms, the frame's period is {frame_period_ms:.1f} ms;"
            f" {largest.model} takes most of it: {largest.calls_per_frame:g} calls of {largest.p99_run_ms:.1f} ms"
        )
    return Verdict(
        go=not problems,
        problems=tuple(problems),
        engines=tuple(engines),
        frame_ms=frame_ms,
        frame_period_ms=frame_period_ms,
        memory=memory,
    )


def rehearse(
    plan: FlightPlan,
    runtime: InferenceRuntime,
    entries: Mapping[str, EngineCacheEntry],
    memory: MemoryBudget,
    clock: Clock | None = None,
) -> Verdict:
    """Load every engine as at takeoff, construct what flies on them, run each on its samples, release all.

    A refused load is a no-go, and so is a frame source or a consumer that cannot be constructed. Those that can be are
    given no frame, but take their memory while the engines run. Where the memory does not last nothing is loaded.

    Blocks for some five seconds an engine, for RUNS_MIN + 1 runs where these take longer, for REHEARSAL_WITHIN_MS where
    one of them hangs, and for as long as constructors take.
    """
    period_ms = 1000.0 / plan.frames.rate_hz if plan.frames else math.inf
    if memory.shortages:
        return judge_rehearsal((), period_ms, memory)
    clock = clock or MonotonicClock()
    try:
        supervision = supervise(
            runtime,
            entries,
            priorities={model: section.priority for model, section in plan.models.items()},
            self_test_tolerances={model: section.self_test_tolerance for model, section in plan.models.items()},
            load_timeout_s=plan.flight.load_timeout_s,
            run_limit_ms=plan.flight.run_limit_ms,
            runs_at_once=plan.flight.runs_at_once,
            clock=clock,
        )
    except TakeoffRefusedError as refusal:
        verdict = judge_rehearsal((), period_ms, memory)
        return msgspec.structs.replace(verdict, go=False, problems=(str(refusal),))
    with supervision:
        constructed, faults = _construct(plan, entries, supervision)
        rehearsals = [
            _rehearse(supervision, entry, plan.models[entry.model], clock) for entry in load_order(plan, entries)
        ]
        constructed.clear()  # what lets go of an engine at its end finds it answering still
    return judge_rehearsal(rehearsals, period_ms, memory, faults)


def _construct(
    plan: FlightPlan, entries: Mapping[str, EngineCacheEntry], supervision: Supervision
) -> tuple[list[FrameSource | Consumer], list[str]]:
    """The frame source and the consumers in the order of a takeoff, and why others could not be constructed."""
    constructed: list[FrameSource | Consumer] = []
    faults: list[str] = []
    if plan.frames is not None:
        try:
            constructed.append(build_source(plan.frames))
        except ConfigError as error:
            faults.append(str(error))
    consumers, missing = compose_each(plan, entries, supervision.as_runtime())
    return [*constructed, *consumers.values()], [*faults, *missing.values()]


def _rehearse(
    supervision: Supervision, entry: EngineCacheEntry, section: ModelSection, clock: Clock
) -> EngineRehearsal:
    runs_ms: list[float] = []
    problem = ""
    given = _given_inputs(entry, section)
    began_ns = clock.monotonic_ns()
    try:
        while not problem and not measured_enough(len(runs_ms) - 1, clock.monotonic_ns() - began_ns):
            if len(runs_ms) == 1:
                began_ns = clock.monotonic_ns()  # the first run warms up: its time is not the others'
            match supervision.infer(entry.model, next(given), within_ms=REHEARSAL_WITHIN_MS):
                case InferCompleted(run_ns=run_ns):
                    runs_ms.append(run_ns / NS_PER_MS)
                case InferRejected(reason=reason, detail=detail):
                    problem = f"rejected its rehearsal input: {reason}: {detail}"
    except ConfigError as error:
        problem = str(error)
    warm_ms = runs_ms[1:]
    return EngineRehearsal(
        model=entry.model,
        self_test="none" if entry.self_test_sha256 is None else "passed",
        inputs="samples" if _has_samples(section) else "made up",
        first_run_ms=runs_ms[0] if runs_ms else 0.0,
        median_run_ms=nearest_rank(warm_ms, 0.5),
        p99_run_ms=nearest_rank(warm_ms, 0.99),
        runs=len(warm_ms),
        calls_per_frame=section.calls_per_frame,
        deadline_ms=section.deadline_ms,
        problem=problem,
    )


def _given_inputs(entry: EngineCacheEntry, section: ModelSection) -> Iterator[dict[str, np.ndarray]]:
    """The plan's samples one after the other, again and again; made-up inputs where they are not on this machine.

    Raises ConfigError for samples that cannot be read or that change meanwhile, and where nothing can be made up.
    """
    if section.samples is not None and _has_samples(section):
        samples = Samples.open(section.samples)
        while True:
            yield from samples
    inputs = sample_inputs(entry)
    while True:
        yield inputs


def _has_samples(section: ModelSection) -> bool:
    return section.samples is not None and os.path.lexists(section.samples)
