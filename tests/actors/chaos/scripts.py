"""What happens to engines in a chaos run, drawn by a seed."""

from __future__ import annotations

import random
from collections.abc import Mapping

from actors import RestartPolicy
from messages import (
    NS_PER_MS,
    NS_PER_S,
    DeviceContextError,
    DeviceFaultError,
    EngineDeserializeError,
    InferenceError,
    InvalidInputError,
    OutOfMemoryError,
    TransientInferenceError,
)
from runtimes import computes, fails_to_load, raises
from runtimes.fake_steps import Step, takes_ms
from tests.actors.chaos.questions import answer

POLICY = RestartPolicy(
    max_restarts=50,
    window_ns=NS_PER_S,
    first_delay_ns=NS_PER_MS,
    max_delay_ns=20 * NS_PER_MS,
    probation_after_ns=50 * NS_PER_MS,
    max_probation_after_ns=200 * NS_PER_MS,
)
"""As in flight, faster: engines die, are quarantined and tried again many times in a second."""

SLOW_MS = 40.0
"""Past most deadlines; a bystander that waits for one such run still meets its own."""

FAULTS: Mapping[str, tuple[Step, ...]] = {
    "engine fault": (raises(InferenceError("the engine failed")),),
    "transient fault": (raises(TransientInferenceError("busy")),),
    "transient faults in a row": (raises(TransientInferenceError("busy")),) * 4,
    "bad input": (raises(InvalidInputError("a shape")),),
    "out of memory": (raises(OutOfMemoryError("2 GiB")),),
    "out of memory twice": (raises(OutOfMemoryError("2 GiB")), raises(MemoryError())),
    "MemoryError": (raises(MemoryError()),),
    "SystemExit": (raises(SystemExit(3)),),
    "KeyboardInterrupt": (raises(KeyboardInterrupt()),),
    "ValueError": (raises(ValueError("a bug")),),
    "failing load": (fails_to_load(EngineDeserializeError("busy")),),
    "no memory to load": (fails_to_load(OutOfMemoryError("2 GiB")),),
    "SystemExit in a load": (fails_to_load(SystemExit(3)),),
    "slow run": (takes_ms(SLOW_MS, computes(answer)),),
}
"""None of them costs more than its own engine."""

CONTEXT_LOST_DETAIL = "CUDA error 709"
CONTEXT_LOST = raises(DeviceContextError(CONTEXT_LOST_DETAIL))
DEVICE_GONE_DETAIL = "CUDA error 700"
DEVICE_GONE = raises(DeviceFaultError(DEVICE_GONE_DETAIL))
DEVICE_GONE_AT_LOAD = fails_to_load(DeviceFaultError(DEVICE_GONE_DETAIL))


def run(run_ms: float) -> Step:
    return takes_ms(run_ms, computes(answer))


def script(choose: random.Random, *, steps: int, run_ms: float, faulty: float) -> list[Step]:
    """So many steps, of which a share of `faulty` is drawn from FAULTS; the first one and the last one are runs."""
    fine, faults = run(run_ms), tuple(FAULTS.values())
    drawn = [fine]
    while len(drawn) < steps:
        drawn += choose.choice(faults) if choose.random() < faulty else (fine,)
    return [*drawn, fine]
