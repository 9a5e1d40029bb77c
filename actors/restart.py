"""What a fault costs, and when a dead engine is started again: pure tables and functions, no clock and no thread."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

import msgspec

from messages import NS_PER_MS, NS_PER_S, FaultClass, RejectReason

Scope = Literal["request", "engine", "device", "process"]
"""What goes down with a fault: nothing but the request, its engine, every engine of the device, or the process."""


class Remedy(NamedTuple):
    """What one class of faults costs.

    `reason` is what the request is told that met it. `tolerated_in_a_row`: so many without a completed run between
    them stay with the request, the next one takes the engine down; None for any number. `max_restarts`, where given,
    bounds the restarts for this class below the policy's own. `keeps_module`: what was verified and opened is not
    suspect. `blames_inputs`: the request may be what kills the engine. `quarantined`: starting again cannot help.
    """

    reason: RejectReason
    scope: Scope
    tolerated_in_a_row: int | None = 0
    max_restarts: int | None = None
    keeps_module: bool = False
    blames_inputs: bool = False
    quarantined: bool = False


REMEDIES: Mapping[FaultClass, Remedy] = MappingProxyType(
    {
        "bad_input": Remedy("invalid_input", "request", tolerated_in_a_row=None),
        "transient_fault": Remedy("inference_error", "request", tolerated_in_a_row=3),
        "out_of_memory": Remedy("out_of_memory", "request", tolerated_in_a_row=1),
        "engine_fault": Remedy("inference_error", "engine", keeps_module=True, blames_inputs=True),
        "context_fault": Remedy("inference_error", "device"),
        "device_fault": Remedy("inference_error", "process"),
        "hang": Remedy("inference_error", "process"),
        "corrupt_engine": Remedy("inference_error", "engine", quarantined=True),
        "programming_error": Remedy("inference_error", "engine", max_restarts=1, blames_inputs=True),
    }
)


def scope_of(fault: FaultClass, in_a_row: int) -> Scope:
    """What goes down with the `in_a_row`-th fault of this class since the engine's last completed run."""
    remedy = REMEDIES[fault]
    if remedy.scope != "request" or remedy.tolerated_in_a_row is None or in_a_row <= remedy.tolerated_in_a_row:
        return remedy.scope
    return "engine"


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """At most `max_restarts` within `window_ns`, each after a delay that doubles up to `max_delay_ns`.

    Each delay is shortened by a random part of at most `jitter_share` of it, so that engines that fell together do not
    load together. The first delay is short because at 39 requests a second every 100 ms costs four of them; Erlang's
    default of one restart in 5 s would give an engine up after two faulty frames.

    What died more often is quarantined, and tried once more after `probation_after_ns`, doubled with each quarantine up
    to `max_probation_after_ns`; 0 for never. An engine that dies on trial before it has served for `window_ns` is
    quarantined again; one that has served for longer has a clean record. Raises ValueError for a count or a duration
    that is not a whole number of 0 or more, a window of 0, and a share that is not between 0 and 1.
    """

    max_restarts: int = 5
    window_ns: int = 60 * NS_PER_S
    first_delay_ns: int = 20 * NS_PER_MS
    max_delay_ns: int = 5 * NS_PER_S
    jitter_share: float = 0.25
    probation_after_ns: int = 60 * NS_PER_S
    max_probation_after_ns: int = 960 * NS_PER_S

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            least = int(name == "window_ns")
            if name != "jitter_share" and (not isinstance(value, int) or value < least):
                raise ValueError(f"{name} must be a whole number of {least} or more, got {value!r}")
        if not isinstance(self.jitter_share, int | float) or not 0.0 <= self.jitter_share <= 1.0:
            raise ValueError(f"jitter_share must be between 0 and 1, got {self.jitter_share!r}")


class Death(NamedTuple):
    """One end of an engine by a fault, in a run or in a load.

    `at_ns` is monotonic; `served_ns` is how long this start of the engine had served, 0 where it never did.
    """

    at_ns: int
    fault: FaultClass
    served_ns: int = 0


class EngineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What counts against an engine, and whether it is on probation."""

    deaths: tuple[Death, ...] = ()
    quarantines: int = 0
    on_trial: bool = False


CLEAN_RECORD = EngineRecord()


class RestartAfter(NamedTuple):
    """Start the engine again after this delay; `attempt` counts from 1 within the window."""

    delay_ns: int
    attempt: int


class Quarantine(NamedTuple):
    """Leave the engine down; after `probation_in_ns` it is tried once more, 0 for never."""

    detail: str
    probation_in_ns: int


def judge_death(
    policy: RestartPolicy, record: EngineRecord, death: Death, chance: float
) -> tuple[RestartAfter | Quarantine, EngineRecord]:
    """What follows from a death, and the record with it. `chance`, at least 0 and below 1, sets the jitter.

    Time forgets a death only where the engine has served since: loads that take long to fail are no recovery.
    """
    if record.on_trial and death.served_ns > policy.window_ns:
        record = CLEAN_RECORD
    on_trial = record.on_trial
    former = _recent(policy, record, death.at_ns) if death.served_ns else record.deaths
    deaths = (*former, death)[-policy.max_restarts - 1 :]
    record = EngineRecord(deaths=deaths, quarantines=record.quarantines)
    remedy = REMEDIES[death.fault]
    alike = sum(each.fault == death.fault for each in deaths)
    window_s = policy.window_ns / NS_PER_S
    if remedy.quarantined:
        return Quarantine(f"{death.fault}: starting it again cannot help", 0), record
    if on_trial:
        return _quarantine(policy, record, f"failed again within {window_s:g} s of its probation")
    span = f"within {window_s:g} s" if death.at_ns - deaths[0].at_ns <= policy.window_ns else "without a recovery"
    if len(deaths) > policy.max_restarts:
        return _quarantine(policy, record, f"{len(deaths)} failures {span}; {policy.max_restarts} allowed")
    if remedy.max_restarts is not None and alike > remedy.max_restarts:
        return _quarantine(policy, record, f"{alike} times {death.fault} {span}; {remedy.max_restarts} allowed")
    delay_ns = min(policy.first_delay_ns << len(deaths) - 1, policy.max_delay_ns)
    return RestartAfter(delay_ns - int(delay_ns * policy.jitter_share * chance), len(deaths)), record


def begin_probation(record: EngineRecord) -> EngineRecord:
    """The quarantine is over: one trial."""
    return EngineRecord(quarantines=record.quarantines, on_trial=True)


def keeps_module_from_ns(policy: RestartPolicy, record: EngineRecord) -> int | None:
    """From when on an engine that is started now may, should it die, be started again from what it has verified and
    opened; None for never.

    What dies twice within the window is read and verified anew.
    """
    if policy.max_restarts == 0 or record.on_trial:
        return None
    return record.deaths[-1].at_ns + policy.window_ns + 1 if record.deaths else 0


def _recent(policy: RestartPolicy, record: EngineRecord, now_ns: int) -> tuple[Death, ...]:
    return tuple(each for each in record.deaths if now_ns - each.at_ns <= policy.window_ns)


def _quarantine(policy: RestartPolicy, record: EngineRecord, detail: str) -> tuple[Quarantine, EngineRecord]:
    probation_in_ns = min(policy.probation_after_ns << record.quarantines, policy.max_probation_after_ns)
    return Quarantine(detail, probation_in_ns), msgspec.structs.replace(record, quarantines=record.quarantines + 1)
