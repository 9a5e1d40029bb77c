"""The rehearsal of a takeoff: verify, load, run, measure, release; then a go or a no-go that says why."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from actors.supervision import Supervision, supervise
from messages import NS_PER_MS, ConfigError, InferCompleted, InferRejected, TakeoffRefusedError
from runtimes import EngineCacheEntry, FlightPlan, InferenceRuntime, ModelSection, sample_inputs

RUNS = 20
"""Enough for a worst case worth comparing; a real p99 needs the flight's recordings."""
REHEARSAL_WITHIN_MS = 60_000.0
"""A first run may be slow: the rehearsal measures it, it does not expire it."""


class EngineRehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine did. Durations in milliseconds; the first run is kept apart because it warms up."""

    model: str
    first_run_ms: float
    median_run_ms: float
    worst_run_ms: float
    calls_per_frame: float
    deadline_ms: float
    problem: str = ""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Go where there is no problem. `frame_ms` is what all calls of one frame take at their worst."""

    go: bool
    problems: tuple[str, ...]
    engines: tuple[EngineRehearsal, ...]
    frame_ms: float
    frame_period_ms: float


def judge_rehearsal(engines: tuple[EngineRehearsal, ...], frame_period_ms: float) -> Verdict:
    """Pure. The sum of calls per frame times worst run must fit the frame's period, and each run its deadline."""
    problems = [f"{engine.model}: {engine.problem}" for engine in engines if engine.problem]
    problems += [
        f"{engine.model}: a run takes up to {engine.worst_run_ms:.1f} ms, its deadline is {engine.deadline_ms:g} ms"
        for engine in engines
        if engine.worst_run_ms > engine.deadline_ms
    ]
    frame_ms = sum(engine.calls_per_frame * engine.worst_run_ms for engine in engines)
    if frame_ms > frame_period_ms:
        problems.append(f"one frame's calls take {frame_ms:.0f} ms, the frame's period is {frame_period_ms:.0f} ms")
    return Verdict(
        go=not problems,
        problems=tuple(problems),
        engines=engines,
        frame_ms=frame_ms,
        frame_period_ms=frame_period_ms,
    )


def rehearse(plan: FlightPlan, runtime: InferenceRuntime, entries: Mapping[str, EngineCacheEntry]) -> Verdict:
    """Load every engine as at takeoff, run each on made-up inputs, release all. A refused load is a no-go."""
    period_ms = 1000.0 / plan.frames.rate_hz if plan.frames else math.inf
    priorities = {model: section.priority for model, section in plan.models.items()}
    try:
        supervision = supervise(runtime, entries, priorities=priorities, load_timeout_s=plan.flight.load_timeout_s)
    except TakeoffRefusedError as refusal:
        return Verdict(go=False, problems=(str(refusal),), engines=(), frame_ms=0.0, frame_period_ms=period_ms)
    with supervision:
        rehearsals = tuple(_rehearse(supervision, entries[model], section) for model, section in plan.models.items())
    return judge_rehearsal(rehearsals, period_ms)


def _rehearse(supervision: Supervision, entry: EngineCacheEntry, section: ModelSection) -> EngineRehearsal:
    runs_ms: list[float] = []
    problem = ""
    try:
        inputs = sample_inputs(entry)
    except ConfigError as error:
        inputs, problem = {}, str(error)
    while not problem and len(runs_ms) <= RUNS:
        match supervision.infer(entry.model, inputs, within_ms=REHEARSAL_WITHIN_MS):
            case InferCompleted(run_ns=run_ns):
                runs_ms.append(run_ns / NS_PER_MS)
            case InferRejected(reason=reason, detail=detail):
                problem = f"rejected its rehearsal input: {reason}: {detail}"
    warm = sorted(runs_ms[1:]) or [0.0]
    return EngineRehearsal(
        model=entry.model,
        first_run_ms=runs_ms[0] if runs_ms else 0.0,
        median_run_ms=warm[len(warm) // 2],
        worst_run_ms=warm[-1],
        calls_per_frame=section.calls_per_frame,
        deadline_ms=section.deadline_ms,
        problem=problem,
    )
